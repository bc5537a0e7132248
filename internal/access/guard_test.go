package access_test

import (
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/access/accesstest"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

// everyRoute is a route for each permission on each object.
func everyRoute() (all []access.Route) {
	all = append(all, access.Route{ID: "login", Method: "GET", Path: "/login", Needs: access.Public, Object: access.Nothing})
	for _, o := range access.Objects() {
		if o == access.Nothing {
			continue
		}
		for _, p := range access.Permissions() {
			path := "/" + string(p) + "/" + string(o)
			for _, w := range o.Words() {
				path += "/{" + w + "}"
			}
			all = append(all, access.Route{ID: string(p) + " " + string(o), Method: "GET", Path: path, Needs: p, Object: o})
		}
	}
	return all
}

func status(w http.ResponseWriter, _ *http.Request, err error) {
	_, forbidden := errors.AsType[*access.Forbidden](err)
	switch {
	case errors.Is(err, access.ErrNobody):
		w.WriteHeader(http.StatusUnauthorized)
	case errors.Is(err, store.ErrNotFound):
		w.WriteHeader(http.StatusNotFound)
	case forbidden || errors.Is(err, access.ErrStale) || errors.Is(err, access.ErrForged):
		w.WriteHeader(http.StatusForbidden)
	default:
		if many, ok := errors.AsType[*access.TooMany](err); ok && many.Seconds() > 0 {
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		w.WriteHeader(http.StatusInternalServerError)
	}
}

// served is every route behind the guard; what gets through is answered 200.
func served(s *store.Store, routes []access.Route) http.Handler {
	g, mux := access.NewGuard(s, nil), http.NewServeMux()
	for _, r := range routes {
		mux.Handle(r.Method+" "+r.Path, g.Wrap(r, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), status))
	}
	return mux
}

func TestEveryPermissionOnEveryObject(t *testing.T) {
	s := storetest.SQLite(t, store.Options{})
	accesstest.Fill(t, s)
	accesstest.Walk{Routes: everyRoute(), Serve: served(s, everyRoute())}.Run(t)
}

func TestARouteThatDoesNotSayWhatItIsAboutNeedsTheMost(t *testing.T) {
	s := storetest.SQLite(t, store.Options{})
	accesstest.Fill(t, s)
	g := access.NewGuard(s, nil)
	r := access.Route{ID: "forgotten", Needs: access.View}
	scoped := access.Caller{Name: "x", Via: access.ViaToken, Grants: []access.Grant{{May: access.Permissions(), Farm: "shop"}}}
	if err := g.Allow(t.Context(), scoped, r, func(string) string { return "shop" }); err == nil {
		t.Error("a farm's admin got through")
	}
	if err := g.Allow(t.Context(), access.Local("x"), r, func(string) string { return "" }); err != nil {
		t.Error(err)
	}
	public := access.Route{ID: "mistaken", Needs: access.Public, Object: access.Site}
	if err := g.Allow(t.Context(), access.Caller{}, public, func(string) string { return "" }); !errors.Is(err, access.ErrNobody) {
		t.Errorf("a public route about a site: %v", err)
	}
}

// tagged is a caller with a role on sites with a tag.
func tagged(role access.Role, tag string) access.Caller {
	return access.Caller{Name: "x", Via: access.ViaToken, Grants: access.Granted([]store.Grant{{Role: string(role), Farm: "shop", Tags: []string{tag}}})}
}

func TestTagsAreReadAnewWithEachRevision(t *testing.T) {
	s := storetest.SQLite(t, store.Options{})
	accesstest.Fill(t, s)
	g, ctx := access.NewGuard(s, nil), t.Context()
	c := tagged(access.Viewer, "shop")
	r := access.Route{ID: "site", Needs: access.View, Object: access.Site}
	at := func(site string) func(string) string {
		return func(w string) string { return map[string]string{"farm": "shop", "site": site}[w] }
	}
	if err := g.Allow(ctx, c, r, at("www")); err != nil {
		t.Fatal(err)
	}
	err := s.Update(ctx, func(tx *store.Tx) error {
		f, err := tx.Farm(ctx, "shop")
		if err != nil {
			return err
		}
		for i := range f.Sites {
			f.Sites[i].Tags = map[string][]string{"www": {"secret"}, "blog": {"blog", "shop"}}[f.Sites[i].Name]
		}
		_, err = tx.SaveFarm(ctx, f, nil, "test", 1)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Allow(ctx, c, r, at("www")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("www has another tag now: %v", err)
	}
	if err := g.Allow(ctx, c, r, at("blog")); err != nil {
		t.Errorf("blog has the tag now: %v", err)
	}
}

func TestLens(t *testing.T) {
	s := storetest.SQLite(t, store.Options{})
	accesstest.Fill(t, s)
	g, ctx := access.NewGuard(s, nil), t.Context()
	sees := func(c access.Caller) []string {
		t.Helper()
		l, err := g.Lens(ctx, c, access.View, "shop")
		if err != nil {
			t.Fatal(err)
		}
		return access.Keep(l, []string{"www", "blog", "gone", ""}, func(s string) string { return s })
	}
	for name, k := range map[string]struct {
		c    access.Caller
		want []string
	}{
		"everything": {access.Local("x"), []string{"www", "blog", "gone", ""}},
		"a tag":      {tagged(access.Viewer, "shop"), []string{"www"}},
		"no tag":     {tagged(access.Viewer, "none"), nil},
		"nobody":     {access.Caller{}, nil},
		"other farm": {access.Caller{Via: access.ViaToken, Grants: access.Granted([]store.Grant{{Role: "admin", Farm: "other"}})}, nil},
	} {
		if got := sees(k.c); !slices.Equal(got, k.want) {
			t.Errorf("%s sees %q, want %q", name, got, k.want)
		}
	}
}

func TestAWholeNodeNeedsAllOfItsSites(t *testing.T) {
	s := storetest.SQLite(t, store.Options{})
	accesstest.Fill(t, s)
	g := access.NewGuard(s, nil)
	both := access.Caller{Name: "x", Via: access.ViaToken, Grants: access.Granted([]store.Grant{{Role: "operator", Tags: []string{"shop", "blog"}}})}
	for _, k := range []struct {
		c      access.Caller
		object access.Object
		ok     bool
	}{
		{tagged(access.Operator, "shop"), access.Node, true},
		{tagged(access.Operator, "shop"), access.WholeNode, false},
		{both, access.WholeNode, true},
	} {
		r := access.Route{ID: "hold", Needs: access.Operate, Object: k.object}
		err := g.Allow(t.Context(), k.c, r, func(w string) string { return map[string]string{"farm": "shop", "node": "both"}[w] })
		if (err == nil) != k.ok {
			t.Errorf("%s of %v: %v", k.object, k.c.Grants, err)
		}
	}
}

func TestARolloutIsFoundByItsSiteToo(t *testing.T) {
	s := storetest.SQLite(t, store.Options{})
	accesstest.Fill(t, s)
	g := access.NewGuard(s, nil)
	r := access.Route{ID: "pause", Needs: access.Operate, Object: access.Rollout}
	for name, ok := range map[string]bool{"www": true, "ro_1": true, "blog": false, "ro_2": false, "ro_3": false} {
		err := g.Allow(t.Context(), tagged(access.Operator, "shop"), r, func(w string) string { return map[string]string{"farm": "shop", "rollout": name}[w] })
		if (err == nil) != ok || !ok && !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSomeThingsNeedAFreshLogin(t *testing.T) {
	s := storetest.SQLite(t, store.Options{})
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	g := access.NewGuard(s, func() time.Time { return now })
	c := access.Local("x")
	for name, k := range map[string]struct {
		r     access.Route
		login time.Time
		ok    bool
	}{
		"export with a token":    {access.Route{Needs: access.KeyExport, Object: access.Farm}, time.Time{}, true},
		"export after the login": {access.Route{Needs: access.KeyExport, Object: access.Farm}, now.Add(-10 * time.Minute), true},
		"export later":           {access.Route{Needs: access.KeyExport, Object: access.Farm}, now.Add(-10*time.Minute - time.Second), false},
		"a fresh route later":    {access.Route{Needs: access.View, Object: access.Farm, Fresh: true}, now.Add(-time.Hour), false},
		"another route later":    {access.Route{Needs: access.View, Object: access.Farm}, now.Add(-time.Hour), true},
	} {
		c.Login = k.login
		err := g.Allow(t.Context(), c, k.r, func(string) string { return "shop" })
		if (err == nil) != k.ok || !k.ok && !errors.Is(err, access.ErrStale) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGrantsThatNobodyKnowsAreWorthNothing(t *testing.T) {
	c := access.Caller{Via: access.ViaToken, Grants: access.Granted([]store.Grant{{Role: "root"}, {Role: ""}})}
	for _, p := range access.Permissions() {
		if c.May(p, "shop") || c.MaySomewhere(p) {
			t.Errorf("may %s", p)
		}
	}
	if c.Enters("shop") {
		t.Error("enters")
	}
}
