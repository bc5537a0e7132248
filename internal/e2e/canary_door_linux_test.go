package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
)

// A visitor is a browser at the controller: it has a session, and follows what happens.
type visitor struct {
	cookie  *http.Cookie
	streams map[string]*locked // what was read of each, by where
	leave   func()             // ends the streams
}

// visit logs a browser in at the second try, with cookies from then on, and follows the
// streams of events: the API's, and the one that keeps pages fresh.
func (c *canaryFarm) visit(t *testing.T) {
	t.Helper()
	c.hunt["a token that is refused"] = []byte("canary0refused0" + rand.Text())
	c.post(t, "/login", url.Values{"token": {string(c.hunt["a token that is refused"])}}, http.StatusUnauthorized)
	given := c.post(t, "/login", url.Values{"token": {string(c.hunt["the token of the API"])}}, http.StatusSeeOther)
	if len(given) != 1 {
		t.Fatalf("the login gives the cookies %v", given)
	}
	c.browser.cookie = given[0]
	c.hunt["the session of a browser"] = []byte(c.browser.cookie.Value)
	ctx, leave := context.WithCancel(t.Context())
	var ended []<-chan struct{}
	c.browser.streams = map[string]*locked{}
	for where, path := range map[string]string{"stream of the API": "/v1/farms/" + openWord + "/events/follow", "stream of a page": "/farms/" + openWord + "/live"} {
		res := c.get(ctx, t, path) //nolint:bodyclose // the goroutine below does
		if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
			t.Fatalf("%s answers %s", path, res.Status)
		}
		into, end := &locked{}, make(chan struct{})
		c.browser.streams[where], ended = into, append(ended, end)
		go func() {
			defer close(end)
			defer res.Body.Close()
			_, _ = io.Copy(into, res.Body) // it ends when the browser leaves
		}()
	}
	c.browser.leave = func() {
		leave()
		for _, end := range ended {
			<-end
		}
	}
	t.Cleanup(c.browser.leave)
}

// depart waits until the streams have told of the end of the story, and logs out.
func (c *canaryFarm) depart(t *testing.T) {
	t.Helper()
	for where, word := range map[string]string{"stream of the API": `"rollout.restored"`, "stream of a page": "event: changed"} {
		within(t, limit, where+" tells "+word, func() bool { return strings.Contains(c.browser.streams[where].String(), word) })
	}
	c.browser.leave()
	for where, text := range c.browser.streams {
		c.hear(where, []byte(text.String()))
	}
	page := c.heard["DOM page-overview"]
	word := regexp.MustCompile(`name="` + access.CSRFField + `" value="([^"]+)"`).FindSubmatch(page)
	if word == nil {
		t.Fatalf("a page has no %s: it was not read with the session: %.300s", access.CSRFField, page)
	}
	c.post(t, "/logout", url.Values{access.CSRFField: {string(word[1])}}, http.StatusSeeOther)
}

// get asks for a path, with the session's cookie.
func (c *canaryFarm) get(ctx context.Context, t *testing.T, path string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.address+path, http.NoBody)
	must(t, err)
	r.AddCookie(c.browser.cookie)
	res, err := http.DefaultTransport.RoundTrip(r)
	must(t, err)
	return res
}

// post sends a form as the browser does, and keeps the page that comes. It returns the
// cookies that come with it.
func (c *canaryFarm) post(t *testing.T, path string, form url.Values, status int) []*http.Cookie {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+c.address+path, strings.NewReader(form.Encode()))
	must(t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if c.browser.cookie != nil {
		r.AddCookie(c.browser.cookie)
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	must(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	must(t, err)
	if res.StatusCode != status {
		t.Fatalf("POST %s: %s, want %d: %s", path, res.Status, status, body)
	}
	c.hear("DOM after "+path, body)
	return res.Cookies()
}

// sealedKeys are the private keys that the controller keeps, read beside it with its
// master key: those of the accounts at CAs, and of the certificates.
func (c *canaryFarm) sealedKeys(t *testing.T) map[string][]byte {
	t.Helper()
	kept, err := store.Open(t.Context(), filepath.Join(c.state, "certfarm.db"), store.Options{ReadOnly: true})
	must(t, err)
	defer kept.Close()
	keys, err := secret.Load(secret.Source{File: filepath.Join(c.state, "master.key"), MustExist: true, Getenv: func(string) string { return "" }})
	must(t, err)
	all, kinds := map[string][]byte{}, map[string]bool{}
	must(t, kept.View(t.Context(), func(tx *store.Tx) error {
		for r, err := range tx.AllSealed(t.Context()) {
			if err != nil {
				return err
			}
			plain, err := keys.Open(secret.RecordID(r.Farm, r.Kind, r.Name), r.Sealed)
			if err != nil {
				return err
			}
			if bytes.Contains(plain.Reveal(), []byte("PRIVATE KEY-----")) && r.Kind != "secret" {
				all["the "+r.Kind+" "+r.Name], kinds[r.Kind] = plain.Reveal(), true
			}
		}
		return nil
	}))
	if !kinds["account"] || !kinds["key"] {
		t.Fatalf("of the keys in the store only the kinds %v were found", kinds)
	}
	return all
}
