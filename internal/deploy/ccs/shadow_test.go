package ccs

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
)

// tryStore tries a store, and holds it to a few rules of the contract. The store has
// a certificate, which stays, and nothing else does.
func tryStore(t *testing.T, root string, o map[string]any, password farm.Secret, rules ...string) {
	t.Helper()
	b := deploytest.NewBundle(t, farm.EC256)
	live, err := encode.PFX(b, encode.PFXOptions{Password: secret()})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(root, "www.example.org.pfx"), live, 0o666)) // Samba lets in another user
	o["names"] = []string{"www.example.org"}
	options, err := json.Marshal(o)
	must(t, err)
	kinds := deploy.NewKinds(Kind(nil))
	setup := deploy.Setup{Secrets: map[string]farm.Secret{StorePassword: secret(), AccountPassword: password}}
	checks := deploy.Try{
		Kinds: kinds, Kind: "ccs", Options: options, Setup: setup, Now: time.Now,
		Trial: deploy.Trial{Mark: "certfarm-test", Names: []string{"certfarm-test.invalid"}},
	}.Run(t.Context())
	ok := 0
	for _, c := range checks {
		switch c.Verdict {
		case deploy.CheckOK:
			ok++
		case deploy.CheckFailed:
			t.Errorf("%+v", c)
		case deploy.CheckNotTried:
		}
	}
	if ok != 9 {
		t.Errorf("%d checks are well: %+v", ok, checks)
	}
	all, err := (&deploytest.Practice{Kinds: kinds, Kind: "ccs", Options: options, Setup: setup, Mark: "certfarm-selftest"}).Run(t.Context(), rules...)
	must(t, err)
	for _, r := range all {
		if r.Result == deploytest.Broken {
			t.Errorf("%s: %q", r.Rule, r.Details)
		}
	}
	if want := max(len(rules), 1); len(all) < want {
		t.Errorf("%d rules were run, not %d", len(all), want)
	}
	entries, err := os.ReadDir(root)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == Defaults().Staging }) // stays, empty, as after a rollout
	left, err := os.ReadDir(filepath.Join(root, Defaults().Staging))
	if !slices.Equal(names, []string{"www.example.org.pfx"}) || err == nil && len(left) > 0 {
		t.Errorf("there is %q, and %v in the staging folder", names, left)
	}
	if is, err := os.ReadFile(filepath.Join(root, "www.example.org.pfx")); err != nil || string(is) != string(live) {
		t.Errorf("what is live is not what it was: %v", err)
	}
}

var someRules = []string{
	"an empty target holds nothing", "every step may be repeated", "restoring a first installation leaves a placeholder",
	"plain files are taken over and given back", "bytes changed on the way are found by staging", "nothing piles up",
}

func TestShadowOfAFolder(t *testing.T) {
	root := t.TempDir()
	tryStore(t, root, map[string]any{"path": filepath.ToSlash(root)}, farm.Secret{}, someRules...)
}

// A store that does not open with the password is told before anything is written.
func TestTryTellsAWrongPassword(t *testing.T) {
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "www.example.org.pfx"), []byte("of another password"), 0o600))
	options, err := json.Marshal(map[string]any{"path": filepath.ToSlash(root), "names": []string{"www.example.org"}})
	must(t, err)
	checks := deploy.Try{
		Kinds: deploy.NewKinds(Kind(nil)), Kind: "ccs", Options: options, Now: time.Now,
		Setup: deploy.Setup{Secrets: map[string]farm.Secret{StorePassword: secret()}},
		Trial: deploy.Trial{Mark: "certfarm-test", Names: []string{"certfarm-test.invalid"}},
	}.Run(t.Context())
	if c := checks[1]; c.Name != "live" || c.Verdict != deploy.CheckFailed || checks[2].Verdict != deploy.CheckNotTried {
		t.Errorf("got %+v", checks)
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) != 1 {
		t.Errorf("there is %v (%v)", entries, err)
	}
}
