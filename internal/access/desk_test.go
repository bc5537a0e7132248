package access_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

func TestTokensAreMadeAndRevoked(t *testing.T) {
	s := storetest.SQLite(t, store.Options{})
	d, ctx, root := access.Desk{Store: s}, t.Context(), access.Local("root")
	k, secret, err := d.Create(ctx, access.TokenAsk{Name: "ci", Grants: []store.Grant{{Role: "editor", Farm: "shop"}}}, root)
	if err != nil || k.By != "root" || k.Expires.Sub(k.Created) != access.TokenLife {
		t.Fatalf("%+v, %v", k, err)
	}
	if text := string(secret.Reveal()); !strings.HasPrefix(text, access.Prefix) || len(text) != len(access.Prefix)+52 || strings.Contains(k.Digest, text) {
		t.Errorf("token %q", text)
	}
	refused := func(what string, ask access.TokenAsk, by access.Caller) {
		t.Helper()
		_, _, err := d.Create(ctx, ask, by)
		if r, ok := errors.AsType[*access.Refusal](err); !ok || r.Hint == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	viewer := []store.Grant{{Role: "viewer"}}
	refused("the same name", access.TokenAsk{Name: "ci", Grants: viewer}, root)
	for _, name := range []string{"", "a b", "-x", "a/b", strings.Repeat("x", 64), "ü", "a\nb"} {
		refused("name "+name, access.TokenAsk{Name: name, Grants: viewer}, root)
	}
	refused("no role", access.TokenAsk{Name: "x"}, root)
	refused("an unknown role", access.TokenAsk{Name: "x", Grants: []store.Grant{{Role: "root"}}}, root)
	refused("an empty tag", access.TokenAsk{Name: "x", Grants: []store.Grant{{Role: "viewer", Tags: []string{""}}}}, root)
	refused("for ever", access.TokenAsk{Name: "x", Grants: viewer, Life: access.LongestToken + time.Second}, root)
	refused("backwards", access.TokenAsk{Name: "x", Grants: viewer, Life: -1}, root)

	some := access.Caller{Name: "some", Via: access.ViaFile, Grants: []access.Grant{{May: []access.Permission{access.View, access.Access}}}}
	if _, _, err := d.Create(ctx, access.TokenAsk{Name: "less", Grants: viewer}, some); err != nil {
		t.Error(err)
	}
	refused("more than they have", access.TokenAsk{Name: "more", Grants: []store.Grant{{Role: "admin"}}}, some)
	some.Grants[0].Farm = "shop"
	refused("in every farm", access.TokenAsk{Name: "wider", Grants: viewer}, some)
	some.Grants[0].Tags = []string{"shop"}
	refused("without tags", access.TokenAsk{Name: "wider", Grants: []store.Grant{{Role: "viewer", Farm: "shop"}}}, some)

	if _, err := d.Revoke(ctx, "nope"); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
	if _, err := d.Revoke(ctx, k.ID); err != nil {
		t.Error(err)
	}
	if all, err := d.List(ctx); err != nil || len(all) != 1 || all[0].Name != "less" {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestTheFirstStartMakesOneToken(t *testing.T) {
	s := storetest.SQLite(t, store.Options{})
	d := access.Desk{Store: s}
	var wg sync.WaitGroup
	var mu sync.Mutex
	n := 0
	for range 4 { // controllers that start together
		wg.Go(func() {
			k, secret, made, err := d.First(t.Context())
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if made {
				n++
			}
			if made == secret.IsZero() || made != (k.Name == access.FirstToken) {
				t.Errorf("made %v, %+v", made, k)
			}
		})
	}
	if wg.Wait(); n != 1 {
		t.Errorf("%d tokens were made", n)
	}
}
