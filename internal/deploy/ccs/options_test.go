package ccs

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
)

func TestOptions(t *testing.T) {
	share := func(o *Options) { o.Share, o.User = `\\files\certs`, "publisher" }
	for name, c := range map[string]struct {
		change func(*Options)
		field  string
	}{
		"a share":             {share, ""},
		"no place":            {func(*Options) {}, "share"},
		"two places":          {func(o *Options) { share(o); o.Path = `C:\certs` }, "share"},
		"no UNC path":         {func(o *Options) { share(o); o.Share = `files\certs` }, "share"},
		"no user":             {func(o *Options) { share(o); o.User = "" }, "user"},
		"a port":              {func(o *Options) { share(o); o.Port = 4450 }, ""},
		"no port":             {func(o *Options) { share(o); o.Port = 70000 }, "port"},
		"a path":              {func(o *Options) { o.Path = `C:\certs` }, ""},
		"a path of Unix":      {func(o *Options) { o.Path = `/srv/certs/` }, ""},
		"a share as path":     {func(o *Options) { o.Path = `\\files\certs` }, ""},
		"a relative path":     {func(o *Options) { o.Path = `certs` }, "path"},
		"a drive":             {func(o *Options) { o.Path = `C:certs` }, "path"},
		"a way out":           {func(o *Options) { o.Path = `C:\certs\..\x` }, "path"},
		"a user of a path":    {func(o *Options) { o.Path = `C:\certs`; o.User = "u" }, "user"},
		"staging beside":      {func(o *Options) { share(o); o.Staging = `\\FILES\certs\staging` }, ""},
		"staging elsewhere":   {func(o *Options) { share(o); o.Staging = `\\files\else` }, "staging"},
		"staging is the root": {func(o *Options) { share(o); o.Staging = `\\files\certs` }, "staging"},
		"staging of dots":     {func(o *Options) { share(o); o.Staging = `..` }, "staging"},
		"staging as PFX":      {func(o *Options) { share(o); o.Staging = `x.pfx` }, "staging"},
		"no staging":          {func(o *Options) { share(o); o.Staging = `` }, "staging"},
		"an address":          {func(o *Options) { share(o); o.Names = []string{"www.example.org", "192.0.2.1"} }, "names[1]"},
		"a live canary":       {func(o *Options) { share(o); o.Names = []string{"www.example.org"}; o.Canary = "WWW.example.org" }, "canary"},
		"a wildcard canary":   {func(o *Options) { share(o); o.Canary = "*.example.org" }, "canary"},
		"older readers":       {func(o *Options) { share(o); o.Readers = "2016" }, ""},
		"unknown readers":     {func(o *Options) { share(o); o.Readers = "2012" }, "readers"},
		"no interval":         {func(o *Options) { share(o); o.PollingInterval = "often" }, "polling_interval"},
		"a long interval":     {func(o *Options) { share(o); o.PollingInterval = "25h" }, "polling_interval"},
	} {
		o := Defaults()
		c.change(&o)
		_, _, err := o.Facts()
		mistake, ok := errors.AsType[*deploy.FieldError](err)
		if c.field == "" && err != nil || c.field != "" && (!ok || mistake.Field != c.field || mistake.Hint == "") {
			t.Errorf("%s: got %v, want a mistake in %q", name, err, c.field)
		}
	}
}

func TestFacts(t *testing.T) {
	o := Defaults()
	o.Share, o.User, o.Names = `\\Files\Certs\iis`, "publisher", []string{"www.example.org", "*.example.org"}
	identity, group, err := o.Facts()
	must(t, err)
	if identity != "ccs //files/certs/iis/www.example.org.pfx" || group != "ccs //files/certs/iis" {
		t.Errorf("it is %q in %q", identity, group)
	}
	if got := o.Places(); !slices.Equal(got, []string{identity, "ccs //files/certs/iis/_.example.org.pfx"}) {
		t.Errorf("it writes to %q", got)
	}
	if o.root() != "/iis" || o.staging() != "/iis/.certfarm" {
		t.Errorf("root %q, staging %q", o.root(), o.staging())
	}
	o.Staging = `\\files\certs\iis-staging`
	if o.staging() != "/iis-staging" {
		t.Errorf("staging %q", o.staging())
	}
	through := Defaults()
	through.Path = `\\files\certs\iis`
	if through.root() != "//files/certs/iis" || through.staging() != "//files/certs/iis/.certfarm" {
		t.Errorf("root %q, staging %q", through.root(), through.staging())
	}
}

// The kind is described as all others are: its options are read strictly.
func TestKind(t *testing.T) {
	kind := Kind(nil)
	facts, err := kind.Check([]byte(`{"share": "\\\\files\\certs", "user": "u", "names": ["www.example.org"]}`), StorePassword)
	must(t, err)
	if !strings.Contains(string(facts.Options), `"readers":"2019+"`) || len(facts.Places) != 1 {
		t.Errorf("got %+v %s", facts, facts.Options)
	}
	if _, err := kind.Check([]byte(`{"share": "\\\\files\\certs", "user": "u", "shar": 1}`), StorePassword); err == nil {
		t.Error("an unknown option passed")
	}
	if _, err := kind.Check(facts.Options); err == nil {
		t.Error("a store without a password passed")
	}
	kinds := deploy.NewKinds(kind)
	open := func(secrets map[string]farm.Secret) error {
		_, err := kinds.Open("ccs", facts.Options, deploy.Setup{Secrets: secrets})
		return err
	}
	must(t, open(map[string]farm.Secret{StorePassword: secret(), AccountPassword: secret()}))
	if err := open(map[string]farm.Secret{StorePassword: secret()}); err == nil {
		t.Error("a share without a password passed")
	}
	d, err := kinds.Open("ccs", []byte(`{"path": "/srv/certs"}`), deploy.Setup{Secrets: map[string]farm.Secret{StorePassword: secret()}})
	must(t, err)
	if _, ok := d.(deploy.Auditor); !ok || !kind.Audits {
		t.Errorf("it can be looked through (%t), and says so (%t)", ok, kind.Audits)
	}
}
