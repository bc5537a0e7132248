// Package accesstest is the contract of every table of routes: whoever asks for
// whatever gets through exactly where a table written by hand, beside the Guard's own
// reasoning, says so. The API and the dashboard run it over all of their routes.
package accesstest

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// Words are what stands in paths: all of it belongs to site www of farm shop, whose
// only tag is "shop". A word that is not here is x.
func Words() map[string]string {
	return map[string]string{"farm": "shop", "site": "www", "target": "www/files@n1", "rollout": "ro_1", "node": "n1"}
}

// Fill makes the farm that Words are of. Beside www it has a site blog with the tag
// "blog", on a node of its own and on one that both are on.
func Fill(t testing.TB, s *store.Store) {
	t.Helper()
	target := func(site, node string) farm.Target {
		return farm.Target{Name: site + "/files@" + node, Site: site, Node: node, Kind: "files"}
	}
	f := farm.Farm{
		Name:  "shop",
		Nodes: []farm.Node{{Name: "both"}, {Name: "n1"}, {Name: "n2"}},
		Sites: []farm.Site{
			{Name: "blog", Tags: []string{"blog"}, Names: []string{"blog.example"}, Targets: []farm.Target{target("blog", "both"), target("blog", "n2")}},
			{Name: "www", Tags: []string{"shop"}, Names: []string{"www.example"}, Targets: []farm.Target{target("www", "both"), target("www", "n1")}},
		},
	}
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		if _, err := tx.SaveFarm(t.Context(), f, []byte("farm: shop\n"), "test", 0); err != nil {
			return err
		}
		for _, site := range []string{"www", "blog"} {
			if err := tx.AddEvent(t.Context(), farm.Event{Farm: "shop", Site: site, Kind: "test", Level: farm.Info, Text: site}); err != nil {
				return err
			}
		}
		if err := tx.PutRollout(t.Context(), farm.Rollout{ID: "ro_2", Farm: "shop", Site: "blog", Outcome: farm.Done}); err != nil {
			return err
		}
		return tx.PutRollout(t.Context(), farm.Rollout{ID: "ro_1", Farm: "shop", Site: "www", Outcome: farm.Done})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// may is what each role may do, written by hand.
func may() map[access.Role]string {
	return map[access.Role]string{
		"nothing":       "",
		access.Viewer:   "view",
		access.Operator: "view operate",
		access.Approver: "view approve",
		access.Editor:   "view operate edit",
		access.Puller:   "key-export",
		access.Scraper:  "metrics",
		access.Admin:    "view operate approve edit secrets key-export access metrics",
	}
}

// The answers to a request.
const (
	through = "through"
	nobody  = "401"
	no      = "403"
	nowhere = "404"
)

// A standing is where somebody's role is good, and what they are answered, by object,
// where the role has the permission. Without it they are answered 403 for what they
// see, and 404 for what they do not.
type standing struct {
	name string
	farm string
	tags []string
	gets map[access.Object]string
	not  map[access.Object]string // where the role has not the permission; not here: 403
}

func standings() []standing {
	all := func(answer string, but map[access.Object]string) map[access.Object]string {
		m := map[access.Object]string{}
		for _, o := range access.Objects() {
			m[o] = answer
		}
		maps.Copy(m, but)
		return m
	}
	elsewhere := map[access.Object]string{access.Installation: no, access.Any: no}
	hidden := map[access.Object]string{
		access.Site: nowhere, access.Target: nowhere, access.Rollout: nowhere, access.Node: nowhere, access.WholeNode: nowhere,
	}
	return []standing{
		{name: "everywhere", gets: all(through, nil)},
		{name: "this farm", farm: "shop", gets: all(through, map[access.Object]string{access.Installation: no})},
		{name: "another farm", farm: "other", not: all(nowhere, elsewhere),
			gets: all(nowhere, map[access.Object]string{access.Installation: no, access.Any: through})},
		{name: "its tag", farm: "shop", tags: []string{"x", "shop"},
			gets: all(through, map[access.Object]string{access.Installation: no, access.Farm: no})},
		{name: "its tag, every farm", tags: []string{"shop"},
			gets: all(through, map[access.Object]string{access.Installation: no, access.Farm: no})},
		{name: "another tag", farm: "shop", tags: []string{"blog"}, not: hidden,
			gets: all(nowhere, map[access.Object]string{access.Installation: no, access.Any: through, access.Farm: no, access.Sites: through})},
	}
}

func (s standing) answer(role access.Role, r access.Route) string {
	if r.Needs == access.Public {
		return through
	}
	if slices.Contains(strings.Fields(may()[role]), string(r.Needs)) {
		return s.gets[r.Object]
	}
	if role == "nothing" && len(r.Object.Words()) > 0 { // who may nothing anywhere sees no farm
		return nowhere
	}
	if answer, ok := s.not[r.Object]; ok {
		return answer
	}
	return no
}

// A Walk asks every route as everybody.
type Walk struct {
	Routes []access.Route
	// Serve answers; the request's context holds the Caller.
	Serve http.Handler
	// Refused walks only where the answer is no, so that real handlers are never reached.
	Refused bool
}

// Run walks: every route as nobody, and as every role in every standing.
func (w Walk) Run(t *testing.T) {
	t.Helper()
	asked := 0
	for _, r := range w.Routes {
		if r.Needs != access.Public {
			w.ask(t, r, context.Background(), "nobody", nobody)
		}
		for role := range may() {
			for _, s := range standings() {
				c := access.Caller{Name: "somebody", Via: access.ViaToken, Key: "k"}
				if p := role.Permissions(); p != nil {
					c.Grants = []access.Grant{{Role: role, May: p, Farm: s.farm, Tags: s.tags}}
				}
				want := s.answer(role, r)
				if w.Refused && want == through {
					continue
				}
				asked++
				w.ask(t, r, access.WithCaller(context.Background(), c), string(role)+", "+s.name, want)
			}
		}
	}
	if asked < len(w.Routes)*10 {
		t.Errorf("only %d requests were made for %d routes", asked, len(w.Routes))
	}
}

var word = regexp.MustCompile(`\{(\w+)(\.\.\.|\$)?\}`)

// Path is a route's path with Words in it.
func Path(r access.Route) string {
	words := Words()
	return word.ReplaceAllStringFunc(r.Path, func(m string) string {
		name := word.FindStringSubmatch(m)[1]
		if m == "{$}" {
			return ""
		}
		if words[name] == "" {
			return "x"
		}
		return url.PathEscape(words[name])
	})
}

func (w Walk) ask(t *testing.T, r access.Route, ctx context.Context, who, want string) { //nolint:revive // the context is what is asked with
	t.Helper()
	req := httptest.NewRequestWithContext(ctx, r.Method, Path(r), strings.NewReader("{}"))
	req.Header.Set("Content-Type", "application/json")
	rec := httptest.NewRecorder()
	w.Serve.ServeHTTP(rec, req)
	got := fmt.Sprint(rec.Code)
	if got != nobody && got != no && got != nowhere {
		got = through
	}
	if got != want {
		t.Errorf("%s as %s: %s %s gave %s, want %s: %.200s", r.ID, who, r.Method, Path(r), fmt.Sprint(rec.Code), want, rec.Body)
	}
}
