package cloud

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/cloud/azurefake"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/farm"
)

// forget has a deployer forget bundles.
func forget(t *testing.T, d *records, all ...farm.Bundle) (deploy.Forgotten, error) {
	t.Helper()
	return d.Deployer.(deploy.Forgetter).Forget(t.Context(), deploytest.KeysOf(t, all...))
}

func TestVaultForgetsOldVersions(t *testing.T) {
	s := newKVServer(2)
	d := kv(t, s, newWire(handler{s}))
	person, old, next := deploytest.NewBundle(t, farm.EC256), deploytest.NewBundle(t, farm.RSA2048), deploytest.NewBundle(t, farm.EC256)
	s.puts(t, person)
	install(t, d, old)
	s.versions = append(s.versions, map[string]any{"tls.key": string(old.Key.Reveal())}) // under another name, without its certificate
	_, err := forget(t, d, old)
	if says(t, err, []string{"of no use"}); len(s.destroyed) > 0 {
		t.Errorf("destroyed: %v", s.destroyed)
	}
	install(t, d, old)
	_, err = forget(t, d, old)
	if says(t, err, []string{"current", "left alone"}); len(s.destroyed) > 0 {
		t.Errorf("what is current has the key, and there are destroyed: %v", s.destroyed)
	}
	install(t, d, next)
	s.newest()["tls.key"] = string(old.Key.Reveal())
	_, err = forget(t, d, old)
	says(t, err, []string{"field", "take that out"})
	delete(s.newest(), "tls.key")
	s.versions = append(s.versions[:4:4], nil, s.newest()) // one that a person has deleted, before the newest
	f, err := forget(t, d, old)
	must(t, err)
	if !slices.Equal(f.Versions, []string{"2", "3", "4"}) || !strings.Contains(f.Left, "-versions=5 tls/shop") {
		t.Errorf("got %+v", f)
	}
	if s.versions[0] == nil || s.versions[1] != nil || s.versions[2] != nil || s.versions[3] != nil || s.destroyed[5] {
		t.Errorf("destroyed: %v", s.destroyed)
	}
	holds(t, d, next.Leaf)
	if f, err = forget(t, d, old); err != nil || len(f.Versions) > 0 {
		t.Errorf("the second time: %+v, %v", f, err)
	}
}

func TestVaultForgetsNothingWhereNothingIsKept(t *testing.T) {
	s := newKVServer(1)
	d := kv(t, s, newWire(handler{s}))
	old, next := deploytest.NewBundle(t, farm.EC256), deploytest.NewBundle(t, farm.EC256)
	install(t, d, old)
	install(t, d, next)
	if f, err := forget(t, d, old); err != nil || len(f.Versions) > 0 || f.Left != "" {
		t.Errorf("got %+v, %v", f, err)
	}
	holds(t, d, next.Leaf)
}

func TestVaultMayNotForget(t *testing.T) {
	s := newKVServer(2)
	d := kv(t, s, newWire(handler{s}))
	old := deploytest.NewBundle(t, farm.EC256)
	install(t, d, old)
	install(t, d, deploytest.NewBundle(t, farm.EC256))
	for _, below := range []string{"metadata", "destroy"} {
		s.answer = func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasPrefix(r.URL.Path, "/v1/secret/"+below+"/") {
				return false
			}
			kvSays(w, http.StatusForbidden, "permission denied")
			return true
		}
		_, err := forget(t, d, old)
		says(t, err, []string{"403", `path "secret/` + below + `/tls/shop"`})
	}
	if len(s.destroyed) > 0 {
		t.Errorf("destroyed: %v", s.destroyed)
	}
}

func TestKeyVaultForgetsOldVersions(t *testing.T) {
	v := azurefake.New()
	d := azure(t, line(newWire(v)), "")
	person, old, next := deploytest.NewBundle(t, farm.RSA2048), deploytest.NewBundle(t, farm.EC256), deploytest.NewBundle(t, farm.EC256)
	must(t, v.Put(person))
	install(t, d, old)
	must(t, v.Put(person))
	install(t, d, old)
	disabled := func() (all []int) {
		for i, c := range v.Versions {
			if c.Disabled {
				all = append(all, i+1)
			}
		}
		return all
	}
	_, err := forget(t, d, old)
	if says(t, err, []string{"current", "left alone"}); len(disabled()) > 0 {
		t.Errorf("what is current has the key, and there are disabled: %v", disabled())
	}
	install(t, d, next)
	for method, right := range map[string]string{http.MethodPatch: "certificates/update", http.MethodGet: "certificates/list"} {
		v.Answer = func(r *http.Request) *http.Response {
			if r.Method == method && r.Header.Get("Authorization") != "" {
				return refusal(http.StatusForbidden, "ForbiddenByRbac", "no")
			}
			return nil
		}
		_, err := forget(t, d, old)
		says(t, err, []string{"403", right})
	}
	v.Answer = nil
	for range 2 { // the second time changes nothing and tells the same
		f, err := forget(t, d, old)
		must(t, err)
		if !slices.Equal(f.Versions, []string{"2", "4"}) || !strings.Contains(f.Left, "deleted and purged") {
			t.Errorf("got %+v", f)
		}
		if !slices.Equal(disabled(), []int{2, 4}) {
			t.Errorf("disabled: %v", disabled())
		}
	}
	holds(t, d, next.Leaf)
	if f, err := forget(t, d, deploytest.NewBundle(t, farm.EC256)); err != nil || len(f.Versions) > 0 || f.Left != "" {
		t.Errorf("a key that never was there: %+v, %v", f, err)
	}
}
