package web_test

import (
	"context"
	"fmt"
	"html"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/web"
)

// fetch asks for a page as somebody without a script does.
func (w *world) fetch(t *testing.T, path, token string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.URL+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// A table is had with what the page was asked with, and as CSV it is one.
func TestATableIsThatOfThePage(t *testing.T) {
	w := worldOf(t, lab.Options{Layout: lab.Layout{Nodes: 1}})
	w.settled(t)
	path := "/farms/" + w.Farm + "/matrix?find=sho&order=expiry"
	if _, body := w.fetch(t, path, w.Token); !strings.Contains(body, "?as=csv&amp;find=sho&amp;order=expiry") {
		t.Errorf("the page does not offer its own table:\n%s", body)
	}
	if _, body := w.fetch(t, path+"&as=csv", w.Token); strings.Count(body, "\n") != 2 || !strings.HasPrefix(body, "site,node,") {
		t.Errorf("the table: %s", body)
	}
	if _, body := w.fetch(t, "/farms/"+w.Farm+"/matrix?find=none&as=csv", w.Token); strings.Count(body, "\n") != 1 {
		t.Errorf("a table of nothing: %s", body)
	}
}

// Every page says what it has to say before any script runs.
func TestEveryPageWithoutScript(t *testing.T) {
	d := demoOf(t)
	w := &world{URL: d.URL}
	for _, p := range append(d.pages(), sight{"missing", "/farms/" + d.Farm + "/sites/none"}) {
		want := http.StatusOK
		if p.name == "missing" {
			want = http.StatusNotFound
		}
		status, body := w.fetch(t, p.path, d.Token)
		if status != want || !strings.Contains(body, "</html>") || !strings.Contains(body, "<h1>") {
			t.Errorf("%s: %d\n%.600s", p.name, status, body)
		}
	}
	d.pagesOfRollouts(t)
}

func routes() []access.Route { return web.Routes() }

// ask sends a request as somebody, and says how it was answered.
func (w *world) ask(t *testing.T, method, path, token string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, w.URL+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return res.StatusCode
}

// pagesOfRollouts reads the rollouts of a site page by page, each of them once.
func (d *demo) pagesOfRollouts(t *testing.T) {
	t.Helper()
	d.update(func(ctx context.Context, tx *store.Tx) error {
		for i := range 120 {
			r := farm.Rollout{ID: fmt.Sprintf("ro_old%03d", i), Farm: d.Farm, Site: "shop", Outcome: farm.Done, Created: d.at.Add(-time.Duration(i+100) * aDay)}
			if err := tx.PutRollout(ctx, r); err != nil {
				return err
			}
		}
		return nil
	})
	w := &world{URL: d.URL}
	path := "/farms/" + d.Farm + "/rollouts"
	seen, pages := 0, 0
	for query := "?site=shop"; query != ""; pages++ {
		status, body := w.fetch(t, path+query, d.Token)
		if status != http.StatusOK {
			t.Fatalf("%s: %d", query, status)
		}
		seen += strings.Count(body, "/rollouts/ro_")
		query = ""
		if link := regexp.MustCompile(`href="(\?[^"]+)">older`).FindStringSubmatch(body); link != nil {
			query = html.UnescapeString(link[1])
		}
	}
	if seen != 121 || pages != 3 {
		t.Errorf("%d rollouts on %d pages", seen, pages)
	}
	if status, _ := w.fetch(t, path+"?before=ro_gone", d.Token); status != http.StatusNotFound {
		t.Errorf("a page after a rollout that is not there: %d", status)
	}
}
