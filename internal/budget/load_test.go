package budget

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// certsOf are certificates of one name each, under one domain or each under its own.
func certsOf(n int, life time.Duration, domain string) (all []Cert) {
	for i := range n {
		under := domain
		if under == "" {
			under = fmt.Sprintf("d%d.example", i)
		}
		all = append(all, Cert{Site: fmt.Sprint("s", i), Names: []string{fmt.Sprintf("s%d.%s", i, under)}, Life: life})
	}
	return all
}

// addresses are certificates of one IPv6 address each, all of one /64.
func addresses(n int, life time.Duration) (all []Cert) {
	for i := range n {
		all = append(all, Cert{Site: fmt.Sprint("ip", i), Names: []string{fmt.Sprintf("2001:db8::%x", i+1)}, Life: life})
	}
	return all
}

func third(c Cert) time.Duration     { return c.Life / 3 }
func twoThirds(c Cert) time.Duration { return c.Life * 2 / 3 }

func TestOverload(t *testing.T) {
	const day = 24 * time.Hour
	counts := LetsEncrypt()
	counts.Exempt = farm.ExemptNone
	for name, test := range map[string]struct {
		certs  []Cert
		limits farm.Limits
		want   []string // what each text has
	}{
		"10,000 of 45 days, nothing exempt": {certsOf(10_000, 45*day, ""), counts, nil},
		"10,000 of 6 days, nothing exempt": {
			certsOf(10_000, 6*day, ""), counts,
			[]string{"10000 certificates need 2500 orders a day, one each 4d, and the CA allows 2400 (300 per 3h): in the long run 4 %"},
		},
		"10,000 of 6 days": {
			certsOf(10_000, 6*day, ""), LetsEncrypt(),
			[]string{"10000 certificates live 6d or less, and to get them all anew takes 4.04d (10000 orders, 300 per 3h), but they end 2d after"},
		},
		"4,000 of 6 days":            {certsOf(4000, 6*day, ""), LetsEncrypt(), nil},
		"one of 6 days among 10,000": {append(certsOf(10_000, 90*day, ""), certsOf(1, 6*day, "a.example")...), LetsEncrypt(), nil},
		"a domain of 300": {
			certsOf(300, 90*day, "example.com"), LetsEncrypt(),
			[]string{"domain example.com: 300 certificates live 90d or less, and to get them all anew takes 35d (300 orders, 50 per 7d), but they end 30d"},
		},
		"of three domains that which takes most": {
			slices.Concat(certsOf(40, 90*day, "a.example"), certsOf(300, 90*day, "example.com"), certsOf(200, 90*day, "z.example"),
				[]Cert{{Site: "both", Names: []string{"a.example", "*.EXAMPLE.com"}, Life: 90 * day}}),
			LetsEncrypt(),
			[]string{"domain example.com: 301 certificates live 90d or less, and to get them all anew takes 35.1d (301 orders, 50 per 7d), but they end 30d"},
		},
		"addresses of one network": {
			slices.Concat(certsOf(40, 90*day, "a.example"), addresses(300, 90*day)), LetsEncrypt(),
			[]string{"domain 2001:db8::/64: 300 certificates live 90d or less"},
		},
		"nothing is known of the CA": {certsOf(100_000, 6*day, "example.com"), farm.Limits{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := Overload(test.certs, test.limits, third, twoThirds)
			if !slices.EqualFunc(got, test.want, strings.HasPrefix) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

// What Overload calls too much, the forecast finds too, and what it calls well the
// forecast plays without a certificate that expires.
func TestOverloadIsWhatTheForecastPlays(t *testing.T) {
	limits := farm.Limits{Orders: farm.Rate{Count: 10, Per: 24 * time.Hour}, Exempt: farm.ExemptNone}
	start := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	for _, n := range []int{20, 30, 50, 70, 90} {
		certs := certsOf(n, 6*24*time.Hour, "")
		for i := range certs {
			certs[i].NotAfter = start.Add(2 * 24 * time.Hour) // all are due at once: after an outage
			certs[i].Due = start
		}
		f := Simulate(Scenario{
			Certs: certs, Issuers: alone(Ledger{Limits: limits}), Start: start, Days: 60,
			Before: func(_ string, life time.Duration) time.Duration { return life / 3 },
		})[0]
		if text := Overload(certs, limits, third, twoThirds); (text != nil) != (len(f.Lapses) > 0) {
			t.Errorf("%d certificates: %q, and %d expire", n, text, len(f.Lapses))
		}
	}
}
