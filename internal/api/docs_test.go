package api_test

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/api"
)

// TestThePageOfTheAPI: every route and every kind of problem stands on it, its links
// lead somewhere, and it loads nothing from elsewhere and runs nothing.
func TestThePageOfTheAPI(t *testing.T) {
	d := open(t, true, "everything "+strings.Repeat("e", 32)+"\n")
	get := func(path, kind string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, d.config.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK || !strings.HasPrefix(res.Header.Get("Content-Type"), kind) {
			t.Errorf("%s: %d %s %v", path, res.StatusCode, res.Header.Get("Content-Type"), err)
		}
		if policy := res.Header.Get("Content-Security-Policy"); strings.Contains(policy, "unsafe") || !strings.Contains(policy, "default-src 'none'") {
			t.Errorf("%s: policy %s", path, policy)
		}
		return string(body)
	}
	page := get("/api/docs", "text/html")
	get("/api/docs.css", "text/css")
	get("/api/openapi.json", "application/")
	for _, r := range api.Routes() {
		part := page[max(0, strings.Index(page, `id="`+r.ID+`"`)):]
		part, _, _ = strings.Cut(part, "</article>")
		for _, want := range []string{r.Path, "<code>" + string(r.Needs) + "</code>", "curl -H"} {
			if !strings.Contains(part, want) {
				t.Errorf("%s: the page does not say %q", r.ID, want)
			}
		}
	}
	for _, kind := range api.Problems() {
		if !strings.Contains(page, "#problem-"+kind+`"`) {
			t.Errorf("the problem %s is not on the page", kind)
		}
	}
	for _, m := range regexp.MustCompile(`href="#([^"]+)"`).FindAllStringSubmatch(page, -1) {
		if !strings.Contains(page, `id="`+m[1]+`"`) {
			t.Errorf("#%s leads nowhere", m[1])
		}
	}
	for _, m := range regexp.MustCompile(`(?:src|<link[^>]* href)="([^"]+)"`).FindAllStringSubmatch(page, -1) {
		if !strings.HasPrefix(m[1], "/") {
			t.Errorf("the page loads %s", m[1])
		}
	}
	for _, no := range []string{"<script", "style=", "onclick", "ZgotmplZ"} {
		if strings.Contains(page, no) {
			t.Errorf("the page has %s", no)
		}
	}
}
