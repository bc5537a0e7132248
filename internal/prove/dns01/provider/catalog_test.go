package provider

import (
	"errors"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/config"
)

func TestEveryProviderOfTheCatalogCanBeMade(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range All() {
		if p.Name == "" || p.About == "" || p.Check == nil || p.New == nil || seen[p.Name] {
			t.Errorf("%q: %q", p.Name, p.About)
		}
		seen[p.Name] = true
	}
	for name, e := range catalog() {
		_, legos := makers[name]
		_, ours := owns[name]
		if e.Own && (legos || !ours) || !e.Own && !legos {
			t.Errorf("%s: nobody makes it, or both", name)
		}
		if len(e.Settings) == 0 {
			t.Errorf("%s has no settings", name)
		}
	}
	for name := range owns {
		if _, known := catalog()[name]; !known {
			t.Errorf("%s is not in the catalog", name)
		}
	}
	if n := len(catalog()); n < 180 {
		t.Errorf("there are %d of lego's providers", n)
	}
	for _, name := range []string{"manual", "dnsupdate"} {
		if seen[name] {
			t.Errorf("there is %s", name)
		}
	}
}

func TestForgets(t *testing.T) {
	for name, want := range map[string]bool{
		"cloudflare": false, "digitalocean": false, "ovh": false, "gandiv5": false, "route53": false, "azuredns": false, "gcloud": false,
		"hetzner": false, "pdns": false, "desec": false, "netlify": true, "porkbun": true, "easydns": true, "glesys": true, "virtualname": true,
	} {
		if got := find(t, name).Forgets; got != want {
			t.Errorf("%s forgets: %v", name, got)
		}
	}
}

func TestCheckSettings(t *testing.T) {
	token := []string{"CF_DNS_API_TOKEN"}
	for _, c := range []struct {
		options string
		secrets []string
		field   string
		want    string // of problem and hint; empty: no mistake
	}{
		{`{"CLOUDFLARE_TTL": 120}`, token, "", ""},
		{``, token, "", ""},
		{`{"CF_API_EMAIL": "me@example.com"}`, []string{"CF_API_KEY"}, "", ""},
		{`{"CLOUDFLARE_EMIAL": "me@example.com"}`, token, "CLOUDFLARE_EMIAL", "did you mean CLOUDFLARE_EMAIL?"},
		{`{"LD_PRELOAD": "/tmp/x"}`, token, "LD_PRELOAD", "not an option of cloudflare"},
		{`{"CF_DNS_API_TOKEN": "x"}`, nil, "CF_DNS_API_TOKEN", "set it with `certfarm secret set` and name it under secrets"},
		{`{}`, []string{"CF_TOKEN"}, "CF_TOKEN", "not a secret of cloudflare"},
		{`{}`, nil, "", "name one under secrets: CF_API_KEY"},
		{`{"CLOUDFLARE_TTL": [120]}`, token, "CLOUDFLARE_TTL", "a text, a number"},
		{`{"CF_API_EMAIL": "a"}`, []string{"CF_API_EMAIL"}, "CF_API_EMAIL", "under options and under secrets"},
	} {
		canonical, err := find(t, "cloudflare").Check([]byte(c.options), c.secrets)
		if c.want == "" {
			if err != nil || canonical == nil {
				t.Errorf("%s %v: %v", c.options, c.secrets, err)
			}
			continue
		}
		wrong, ok := errors.AsType[config.OptionError](err)
		if !ok {
			t.Errorf("%s %v: %v", c.options, c.secrets, err)
			continue
		}
		field, problem, hint := wrong.Option()
		if field != c.field || !strings.Contains(problem+"; "+hint, c.want) {
			t.Errorf("%s %v: %s: %s; %s", c.options, c.secrets, field, problem, hint)
		}
	}
	if got, err := find(t, "cloudflare").Check([]byte(`{"CLOUDFLARE_TTL": 120}`), token); string(got) != `{"CLOUDFLARE_TTL":"120"}` {
		t.Errorf("%s %v", got, err)
	}
	got, err := find(t, "route53").Check(nil, nil) // by the machine's role
	if want := `{"AWS_WAIT_FOR_RECORD_SETS_CHANGED":"false"}`; err != nil || string(got) != want {
		t.Errorf("%s %v", got, err)
	}
}

// TestNoSettingNamesAFile: whoever may edit farm.yaml must not have the
// controller read a file.
func TestNoSettingNamesAFile(t *testing.T) {
	for _, e := range catalog() {
		for _, s := range e.Settings {
			named := strings.HasSuffix(s.Name, "_FILE") || strings.HasSuffix(s.Name, "_PATH") || strings.HasSuffix(s.Name, "_LOCATION")
			if named && !(s.File && s.Secret) {
				t.Errorf("%s: %s", e.Name, s.Name)
			}
		}
	}
}
