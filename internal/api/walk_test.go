package api

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/access/accesstest"
	"github.com/certfarm/certfarm/internal/audit"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

func table() (all []access.Route) {
	for _, r := range Routes() {
		all = append(all, r.access())
	}
	return all
}

func walked(t *testing.T) *store.Store {
	t.Helper()
	s := storetest.SQLite(t, store.Options{})
	accesstest.Fill(t, s)
	return s
}

// TestEveryRouteForEveryRole walks the whole table: each route as nobody and as every
// role in every standing, through the real router and guard to handlers that do
// nothing.
func TestEveryRouteForEveryRole(t *testing.T) {
	full := newServer(t)
	kept, log := full.Store, full.log
	s := &server{Controller: full.Controller, guard: access.NewGuard(kept, nil), doorkeeper: audit.Doorkeeper{Book: audit.Book{Store: kept}, Log: log}, log: log}
	mux := http.NewServeMux()
	a := humago.New(mux, huma.DefaultConfig("walk", "test"))
	for _, r := range Routes() {
		op := r.operation(s, a)
		op.DefaultStatus = http.StatusNoContent
		huma.Register(a, op, func(context.Context, *struct{}) (*struct{}, error) { return nil, nil })
	}
	accesstest.Walk{Routes: table(), Serve: mux}.Run(t)
}

// TestEveryHandlerStandsBehindTheGuard walks the API as it is served, wherever the
// answer is no.
func TestEveryHandlerStandsBehindTheGuard(t *testing.T) {
	accesstest.Walk{Routes: table(), Serve: newServer(t).handler, Refused: true}.Run(t)
}

type served struct {
	*server
	handler http.Handler
}

func newServer(t *testing.T) served {
	t.Helper()
	c, lines := controller.Real(walked(t), secret.Fresh(), nil)
	t.Cleanup(func() { _ = lines.Close() }) // nobody was reached
	ctl := controller.New(c)
	h := New(Config{Controller: ctl, Version: "test"})
	return served{&server{Controller: ctl, log: c.Log}, h}
}

// TestListsAreFiltered asks every list as somebody who may see one of two sites.
func TestListsAreFiltered(t *testing.T) {
	h := newServer(t).handler
	as := func(path string, grants ...store.Grant) string {
		t.Helper()
		c := access.Caller{Name: "x", Via: access.ViaToken, Key: "x", Grants: access.Granted(grants)}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(access.WithCaller(t.Context(), c), "GET", path, nil))
		if w.Code != http.StatusOK {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		return w.Body.String()
	}
	lists := 0
	for _, r := range Routes() {
		if r.Method != http.MethodGet || r.Object != OfSites || r.Needs != View || r.ID == "follow-events" {
			continue
		}
		lists++
		path := accesstest.Path(r.access()) + map[string]string{"list-sites": "?limit=1", "progress": "?site=www"}[r.ID]
		shop := as(path, store.Grant{Role: "viewer", Farm: "shop", Tags: []string{"shop"}})
		if strings.Contains(shop, "blog") || strings.Contains(shop, "n2") || r.ID != "list-nodes" && !strings.Contains(shop, "www") {
			t.Errorf("%s shows who may see www: %s", r.ID, shop)
		}
		if r.ID == "progress" {
			continue
		}
		all := as(strings.TrimSuffix(path, "?limit=1"), store.Grant{Role: "viewer"})
		for _, want := range []string{"blog", "www"} {
			if r.ID != "list-nodes" && !strings.Contains(all, want) {
				t.Errorf("%s does not show %s to who may see all: %s", r.ID, want, all)
			}
		}
	}
	if lists < 5 {
		t.Errorf("only %d lists", lists)
	}
	if got := as("/v1/farms", store.Grant{Role: "viewer", Farm: "other"}); strings.Contains(got, "shop") {
		t.Errorf("another farm's viewer sees %s", got)
	}
	if got := as("/v1/farms/shop/nodes/both", store.Grant{Role: "viewer", Tags: []string{"shop"}}); !strings.Contains(got, `"targets":1`) {
		t.Errorf("a node of two sites: %s", got)
	}
}
