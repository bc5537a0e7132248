package web_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/lab"
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
