package cloud

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/cloud/azurefake"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/farm"
)

const testMark = "certfarm-test"

func tryAt(t *testing.T, k deploy.Kind, options string, s deploy.Setup) map[string]deploy.Check {
	t.Helper()
	all := map[string]deploy.Check{}
	for _, c := range (deploy.Try{
		Kinds: deploy.NewKinds(k), Kind: k.Name, Options: []byte(options), Setup: s, Now: time.Now,
		Trial: deploy.Trial{Mark: testMark, Names: []string{testMark + ".invalid"}},
	}).Run(t.Context()) {
		if all[c.Name] = c; c.Verdict == deploy.CheckFailed {
			t.Errorf("%+v", c)
		}
	}
	return all
}

var rules = []string{
	"an activation cut anywhere can be finished", "a hanging node ends with the context", "every step may be repeated",
	"a first activation cut anywhere can be undone", "discarding an old receipt leaves the way back of the new",
}

// kept holds a kind to some rules of the contract in a shadow place.
func kept(t *testing.T, k deploy.Kind, options string, s deploy.Setup) {
	t.Helper()
	all, err := (&deploytest.Practice{Kinds: deploy.NewKinds(k), Kind: k.Name, Options: []byte(options), Setup: s, Mark: "certfarm-selftest"}).Run(t.Context(), rules...)
	must(t, err)
	n := map[string]int{}
	for _, o := range all {
		if n[o.Result]++; o.Result == deploytest.Broken {
			t.Errorf("%s: %q", o.Rule, o.Details)
		}
	}
	if n[deploytest.Kept] != len(rules) {
		t.Errorf("%v", n)
	}
}

// A vault is tried under another name, twice, and the contract as well; nothing of it
// stays, and what is live is what it was.
func TestShadowOfKeyVault(t *testing.T) {
	v := azurefake.New()
	k := KeyVaultOver(v, azurefake.Credential())
	live := azure(t, line(newWire(v)), "")
	b := deploytest.NewBundle(t, farm.EC256)
	install(t, live, b)
	for range 2 { // the second recovers the name
		tryAt(t, k, azureOptions, deploy.Setup{})
	}
	kept(t, k, azureOptions, deploy.Setup{})
	if v.Has("shop-"+testMark) || v.Has("shop-certfarm-selftest-1") || !v.Has("shop") || len(v.Versions) != 1 {
		t.Errorf("%d versions are live, or something is left", len(v.Versions))
	}
	holds(t, live, b.Leaf)

	// A right that is missing is no failure of the target.
	v.Answer = func(r *http.Request) *http.Response {
		if r.Method == http.MethodDelete {
			return refusal(http.StatusForbidden, "ForbiddenByRbac", "no")
		}
		return nil
	}
	if c := tryAt(t, k, azureOptions, deploy.Setup{})["clean up"]; c.Verdict != deploy.CheckNotTried || !strings.Contains(c.Saw, "certificates/delete") {
		t.Errorf("got %+v", c)
	}
}

// kvHouse is an engine with secrets of any name below tls/.
type kvHouse struct {
	kv      int
	mu      sync.Mutex
	secrets map[string]*kvServer
}

func (h *kvHouse) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	before, name, named := strings.Cut(r.URL.Path, "/tls/")
	h.mu.Lock()
	if h.secrets[name] == nil {
		h.secrets[name] = newKVServer(h.kv)
	}
	s := h.secrets[name]
	if r.Method == http.MethodDelete {
		delete(h.secrets, name)
		w.WriteHeader(http.StatusNoContent)
		h.mu.Unlock()
		return
	}
	h.mu.Unlock()
	if named {
		r.URL.Path = before + "/tls/shop"
	}
	s.ServeHTTP(w, r)
}

// Over HTTP, as in production: the suite cuts the line before each request.
func TestShadowOfVault(t *testing.T) {
	for _, version := range []int{1, 2} {
		h := &kvHouse{kv: version, secrets: map[string]*kvServer{"shop": newKVServer(version)}}
		server := httptest.NewServer(h)
		defer server.Close()
		b := deploytest.NewBundle(t, farm.EC256)
		h.secrets["shop"].puts(t, b)
		options := fmt.Sprintf(`{"address": %q, "path": "tls/shop", "kv": %d}`, server.URL, version)
		setup := deploy.Setup{Secrets: map[string]farm.Secret{"token": farm.NewSecret([]byte(vaultToken))}}
		for range 2 {
			tryAt(t, Vault(), options, setup)
		}
		kept(t, Vault(), options, setup)
		delete(h.secrets, "") // asked for what is no secret
		if len(h.secrets) != 1 || len(h.secrets["shop"].versions) != 1 {
			t.Errorf("kv %d: %d secrets, and %d versions are live", version, len(h.secrets), len(h.secrets["shop"].versions))
		}
	}
}
