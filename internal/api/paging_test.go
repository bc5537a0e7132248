package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/access/accesstest"
	"github.com/certfarm/certfarm/internal/audit"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// whole are the lists that have no pages, and why.
func whole() map[string]string {
	return map[string]string{
		"list-farms":    "a controller has few",
		"list-sessions": "its order changes while it is read",
	}
}

// several gives every list three items at least, some of them of the same moment.
func several(t *testing.T, s served) {
	t.Helper()
	ctx := t.Context()
	admin := access.Caller{Name: "x", Via: access.ViaSocket, Grants: access.Granted([]store.Grant{{Role: "admin"}})}
	var campaigns []farm.Campaign
	for i := range 3 {
		name := fmt.Sprintf("name-%d", i)
		if _, _, err := (access.Desk{Store: s.Store}).Create(ctx, access.TokenAsk{Name: name, Grants: []store.Grant{{Role: "viewer"}}}, admin); err != nil {
			t.Fatal(err)
		}
		if err := s.SetSecret(ctx, "shop", name, farm.NewSecret([]byte("x")), "x"); err != nil {
			t.Fatal(err)
		}
		if err := (audit.Book{Store: s.Store}).Write(ctx, audit.Entry{Actor: "x", Action: name}); err != nil {
			t.Fatal(err)
		}
		campaigns = append(campaigns, farm.Campaign{ID: "rep_" + name, Farm: "shop", Ended: time.Unix(1, 0)})
	}
	err := s.Store.Update(ctx, func(tx *store.Tx) error {
		for i := range 4 { // two of each moment
			r := farm.Rollout{ID: fmt.Sprintf("ro_1%d", 3-i), Farm: "shop", Site: "www", Outcome: farm.Done, Created: time.Unix(int64(i/2), 0)}
			if err := tx.PutRollout(ctx, r); err != nil {
				return err
			}
		}
		text, err := json.Marshal(campaigns)
		if err != nil {
			return err
		}
		return tx.SetWord(ctx, "shop", "campaigns", string(text))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// got asks as an admin, or as somebody with certain grants.
func (s served) got(t *testing.T, path string, grants ...store.Grant) *httptest.ResponseRecorder {
	t.Helper()
	if grants == nil {
		grants = []store.Grant{{Role: "admin"}}
	}
	c := access.Caller{Name: "x", Via: access.ViaSocket, Grants: access.Granted(grants)}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, httptest.NewRequestWithContext(access.WithCaller(t.Context(), c), "GET", path, nil))
	return w
}

// page reads a page of a list: its one field that is a list, and next.
func (s served) page(t *testing.T, path string, grants ...store.Grant) (all []any, next string) {
	t.Helper()
	w := s.got(t, path, grants...)
	var out map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%s: %d %s %v", path, w.Code, w.Body, err)
	}
	for name, v := range out {
		if name == "next" {
			next, _ = v.(string)
		} else if some, ok := v.([]any); ok {
			all = some
		}
	}
	return all, next
}

// TestEveryListIsPaged walks every list one by one, and finds what it is as a whole; and
// so does somebody who sees a part of it.
func TestEveryListIsPaged(t *testing.T) {
	s := newServer(t)
	several(t, s)
	lists := 0
	for _, r := range Routes() {
		if !strings.HasPrefix(r.ID, "list-") || whole()[r.ID] != "" {
			continue
		}
		lists++
		path := accesstest.Path(r.access())
		ask := [][]store.Grant{{{Role: "admin"}}}
		if r.Object == OfSites {
			ask = append(ask, []store.Grant{{Role: "viewer", Farm: "shop", Tags: []string{"shop"}}})
		}
		for _, grants := range ask {
			queries := []string{"?limit=1"}
			if r.ID == "list-events" {
				queries = append(queries, "?newest=true&limit=1")
			}
			for _, query := range queries {
				want, next := s.page(t, path+strings.Replace(query, "limit=1", "limit=1000", 1), grants...)
				if next != "" || len(want) < 2 && grants[0].Role == "admin" {
					t.Errorf("%s: %d items as a whole, then %q", r.ID, len(want), next)
				}
				var got []any
				for at := ""; ; {
					some, next := s.page(t, path+query+at, grants...)
					if len(some) > 1 {
						t.Fatalf("%s: %d items on a page of one", r.ID, len(some))
					}
					if got = append(got, some...); next == "" || len(got) > len(want) {
						break
					}
					at = "&after=" + url.QueryEscape(next)
				}
				if !reflect.DeepEqual(got, slices.Clone(want)) {
					t.Errorf("%s%s: one by one %v, as a whole %v", r.ID, query, got, want)
				}
			}
		}
	}
	if lists < 9 {
		t.Errorf("only %d lists", lists)
	}
}

// TestACursorThatIsNone: what next never said is refused in words, and not repeated.
func TestACursorThatIsNone(t *testing.T) {
	s := newServer(t)
	for _, r := range Routes() {
		if !strings.HasPrefix(r.ID, "list-") || whole()[r.ID] != "" {
			continue
		}
		bad := []string{"hunter\x00", "hunter\xff", strings.Repeat("hunter", 200)}
		if r.ID == "list-rollouts" || r.ID == "list-replacements" || r.ID == "list-events" || r.ID == "list-audit" {
			bad = append(bad, "hunter")
		}
		for _, after := range bad {
			w := s.got(t, accesstest.Path(r.access())+"?after="+url.QueryEscape(after))
			var p Problem
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
				t.Fatal(err)
			}
			if w.Code != http.StatusUnprocessableEntity || p.Kind() != Invalid || len(p.Faults) == 0 || p.Faults[0].Where != "query.after" || strings.Contains(w.Body.String(), "hunter") {
				t.Errorf("%s after %.10q: %d %s", r.ID, after, w.Code, w.Body)
			}
		}
	}
}
