package controller

import (
	"fmt"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/plan"
)

// Ten thousand certificates of six days are more than Let's Encrypt gives, and the plan
// that asks for them says so with the arithmetic; one that does not touch what is
// ordered stays quiet.
func TestAPlanWarnsOfMoreThanTheCAGives(t *testing.T) {
	f := farm.Farm{Name: "shop", Issuers: []farm.Issuer{{Name: "le", Directory: "https://acme-v02.api.letsencrypt.org/directory"}}}
	for i := range 10_000 {
		f.Sites = append(f.Sites, farm.Site{Name: fmt.Sprint("s", i), Names: []string{fmt.Sprintf("s%d.example", i)}, Issuer: "le", KeyTypes: []farm.KeyType{farm.EC256}})
	}
	short := f
	short.Issuers = []farm.Issuer{f.Issuers[0]}
	short.Issuers[0].Profile = "shortlived"
	quiet := short
	quiet.Proxy = "http://proxy.example"
	for name, test := range map[string]struct {
		from, to farm.Farm
		want     string
	}{
		"90 days":       {farm.Farm{Name: "shop"}, f, ""},
		"6 days":        {f, short, "10000 certificates live 6.67d or less, and to get them all anew takes 4.04d (10000 orders, 300 per 3h)"},
		"another proxy": {short, quiet, ""},
	} {
		var got string
		for _, w := range overloaded(test.to, plan.Diff(test.from, test.to)) {
			got += w.Issuer + ": " + w.Text
		}
		if test.want == "" && got != "" || !strings.Contains(got, test.want) {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}
