package access_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/access/accesstest"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

const lineToken = "0123456789abcdef0123456789abcdef"

// A bed is a gate with a small dashboard behind it, and a clock that stands.
type bed struct {
	t     *testing.T
	store *store.Store
	gate  *access.Gate
	log   bytes.Buffer
	mux   http.Handler

	mu   sync.Mutex
	time time.Time
	acts []string
}

func (b *bed) now() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.time
}

func (b *bed) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.time = b.time.Add(d)
}

func newBed(t *testing.T, more func(*access.Config)) *bed {
	t.Helper()
	b := &bed{t: t, time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	b.store = storetest.SQLite(t, store.Options{Now: b.now})
	accesstest.Fill(t, b.store)
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte("ops "+lineToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	lines, err := access.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c := access.Config{
		Store: b.store, File: lines, Now: b.now, Log: slog.New(slog.NewTextHandler(&b.log, nil)),
		Tell: func(_ context.Context, a access.Act) { b.acts = append(b.acts, a.Do+" "+a.Caller.Name) },
	}
	if more != nil {
		more(&c)
	}
	if b.gate, err = access.NewGate(c); err != nil {
		t.Fatal(err)
	}
	b.mux = b.gate.Headers(b.gate.Protect(b.pages(), status))
	return b
}

// pages are a few pages as the dashboard has them.
func (b *bed) pages() http.Handler {
	g, mux := access.NewGuard(b.store, b.now), http.NewServeMux()
	page := func(r access.Route, h http.HandlerFunc) { mux.Handle(r.Method+" "+r.Path, g.Wrap(r, h, status)) }
	answer := func(f func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			switch err := f(w, r); {
			case errors.Is(err, access.ErrWrongToken) || errors.Is(err, access.ErrRefused) || errors.Is(err, access.ErrNoRole):
				w.WriteHeader(http.StatusUnauthorized)
			case err != nil:
				status(w, r, err)
			}
		}
	}
	public := access.Route{Needs: access.Public, Object: access.Nothing}
	public.Method, public.Path = "POST", "/login"
	page(public, answer(b.gate.Login))
	public.Method, public.Path = "POST", "/logout"
	page(public, answer(b.gate.Logout))
	public.Method, public.Path = "GET", "/login/oidc"
	page(public, answer(func(w http.ResponseWriter, r *http.Request) error {
		return b.gate.Begin(w, r, r.URL.Query().Get("next"), r.URL.Query().Has("fresh"))
	}))
	public.Method, public.Path = "GET", "/login/callback"
	page(public, answer(func(w http.ResponseWriter, r *http.Request) error {
		next, err := b.gate.Callback(w, r)
		if err == nil {
			http.Redirect(w, r, next, http.StatusSeeOther)
		}
		return err
	}))
	page(access.Route{Method: "GET", Path: "/{$}", Needs: access.View, Object: access.Any}, func(w http.ResponseWriter, r *http.Request) {
		c, _ := b.gate.Caller(r)
		fmt.Fprint(w, c.Name, " ", b.gate.CSRF(r))
	})
	page(access.Route{Method: "POST", Path: "/act", Needs: access.Operate, Object: access.Any}, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "done ", r.PostFormValue("what"))
	})
	page(access.Route{Method: "GET", Path: "/export", Needs: access.KeyExport, Object: access.Any}, func(http.ResponseWriter, *http.Request) {})
	return mux
}

// A browser keeps cookies, as a real one does: by name, and none that is Secure from
// a line that is not.
type browser struct {
	*bed
	cookies map[string]*http.Cookie
	plain   bool // on loopback without TLS
	from    string
}

func (b *bed) browser() *browser {
	return &browser{bed: b, cookies: map[string]*http.Cookie{}, from: "192.0.2.1:1234"}
}

func (b *browser) do(method, path string, form url.Values, header ...string) *httptest.ResponseRecorder {
	b.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r := httptest.NewRequestWithContext(b.t.Context(), method, path, body)
	r.Host, r.RemoteAddr = "certfarm.example", b.from
	if !b.plain {
		r.TLS = &tls.ConnectionState{}
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	for _, c := range b.cookies {
		r.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value})
	}
	w := httptest.NewRecorder()
	b.mux.ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		if strings.HasPrefix(c.Name, "__Host-") && (!c.Secure || c.Path != "/" || c.Domain != "") {
			b.t.Errorf("no browser takes the cookie %s", c)
		}
		if !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Secure == b.plain {
			b.t.Errorf("cookie %s", c)
		}
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
			continue
		}
		b.cookies[c.Name] = c
	}
	return w
}

func (b *browser) login(token string) int {
	b.t.Helper()
	return b.do("POST", "/login", url.Values{"token": {token}, "csrf": {b.csrf()}}).Code
}

// csrf is the word of the session's pages.
func (b *browser) csrf() string {
	b.t.Helper()
	_, word, _ := strings.Cut(b.do("GET", "/", nil).Body.String(), " ")
	return word
}

func (b *browser) wants(what string, got *httptest.ResponseRecorder, want int) {
	b.t.Helper()
	if got.Code != want {
		b.t.Errorf("%s: %d, want %d: %s", what, got.Code, want, got.Body)
	}
}

func (b *bed) token(name string, role access.Role) string {
	b.t.Helper()
	_, secret, err := access.Desk{Store: b.store}.Create(b.t.Context(),
		access.TokenAsk{Name: name, Grants: []store.Grant{{Role: string(role)}}}, access.Local("test"))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(secret.Reveal())
}

func TestASession(t *testing.T) {
	b := newBed(t, nil).browser()
	b.wants("nobody", b.do("GET", "/", nil), 401)
	if got := b.login("cf_wrong"); got != 401 || len(b.cookies) != 0 {
		t.Errorf("a wrong token: %d, cookies %v", got, b.cookies)
	}
	if got := b.login(b.token("ann", access.Operator)); got != 200 {
		t.Fatalf("login: %d", got)
	}
	home := b.do("GET", "/", nil)
	if !strings.HasPrefix(home.Body.String(), "ann ") || len(home.Body.String()) < 40 {
		t.Errorf("home: %d %s", home.Code, home.Body)
	}
	b.wants("an act", b.do("POST", "/act", url.Values{"csrf": {b.csrf()}, "what": {"x"}}), 200)
	b.wants("an act of another page", b.do("POST", "/act", nil, access.CSRFHeader, b.csrf()), 200)
	stolen := b.cookies["__Host-certfarm"]
	if stolen == nil {
		t.Fatalf("cookies %v", b.cookies)
	}
	b.wants("logout", b.do("POST", "/logout", url.Values{"csrf": {b.csrf()}}), 200)
	if len(b.cookies) != 0 {
		t.Errorf("cookies after the logout: %v", b.cookies)
	}
	b.cookies["__Host-certfarm"] = stolen
	b.wants("a copy of the cookie after the logout", b.do("GET", "/", nil), 401)
	if want := "[login refused  login ann logout ann]"; fmt.Sprint(b.acts) != want {
		t.Errorf("told %v, want %s", b.acts, want)
	}
}

func TestForgedRequests(t *testing.T) {
	b := newBed(t, nil).browser()
	if got := b.login(lineToken); got != 200 {
		t.Fatal(got)
	}
	mine := b.csrf()
	other := newBed(t, nil).browser()
	other.login(lineToken)
	for name, header := range map[string][]string{
		"no word":                     nil,
		"an empty word":               {access.CSRFHeader, ""},
		"another session's word":      {access.CSRFHeader, other.csrf()},
		"the word, from another site": {access.CSRFHeader, mine, "Sec-Fetch-Site", "cross-site"},
		"the word, from a neighbour":  {access.CSRFHeader, mine, "Sec-Fetch-Site", "same-site"},
		"the word, with their origin": {access.CSRFHeader, mine, "Sec-Fetch-Site", "", "Origin", "https://evil.example"},
		"the cookie itself":           {access.CSRFHeader, b.cookies["__Host-certfarm"].Value},
	} {
		b.wants(name, b.do("POST", "/act", nil, header...), 403)
		b.wants("logout, "+name, b.do("POST", "/logout", nil, header...), 403)
	}
	b.wants("the word in the URL", b.do("POST", "/act?csrf="+mine, nil), 403)
	b.wants("the word, from our page", b.do("POST", "/act", nil, access.CSRFHeader, mine), 200)
	if got := b.do("POST", "/login", url.Values{"token": {lineToken}}, "Sec-Fetch-Site", "cross-site").Code; got != 403 {
		t.Errorf("another site logged the browser in: %d", got)
	}
	b.wants("a login by link", b.do("GET", "/login?token="+lineToken, nil), 405)
}

func TestAnIDIsNeverFixed(t *testing.T) {
	b := newBed(t, nil).browser()
	planted := &http.Cookie{Name: "__Host-certfarm", Value: "planted"}
	b.cookies[planted.Name] = planted
	if b.login(lineToken); b.cookies[planted.Name].Value == "planted" {
		t.Error("the planted id is logged in")
	}
	first := b.cookies[planted.Name]
	if got := b.login(lineToken); got != 200 {
		t.Fatalf("a second login: %d", got)
	}
	if b.cookies[planted.Name].Value == first.Value {
		t.Error("the id is the same after another login")
	}
	b.cookies[planted.Name] = first
	b.wants("the id from before", b.do("GET", "/", nil), 401)
	b.plain = true
	b.cookies = map[string]*http.Cookie{"__Host-certfarm": {Name: "__Host-certfarm", Value: first.Value}, "certfarm": {Name: "certfarm", Value: "x"}}
	b.wants("cookies of TLS without it", b.do("GET", "/", nil), 401)
}

func TestThePlainCookieIsForPlainLines(t *testing.T) {
	b := newBed(t, nil).browser()
	b.plain = true
	if got := b.login(lineToken); got != 200 || b.cookies["certfarm"] == nil {
		t.Fatalf("%d, %v", got, b.cookies)
	}
	b.wants("on loopback", b.do("GET", "/", nil), 200)
	if h := b.do("GET", "/", nil).Header().Get("Strict-Transport-Security"); h != "" {
		t.Errorf("plain lines are told %s", h)
	}
	b.plain = false
	b.wants("the plain cookie over TLS", b.do("GET", "/", nil), 401)
}

func TestAProxyInFront(t *testing.T) {
	u, _ := url.Parse("https://certfarm.example")
	b := newBed(t, func(c *access.Config) { c.URL = u })
	r := httptest.NewRequestWithContext(t.Context(), "POST", "/login", strings.NewReader("token="+lineToken))
	r.Host = "certfarm.example"
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", "https://certfarm.example")
	w := httptest.NewRecorder()
	b.mux.ServeHTTP(w, r)
	if c := w.Result().Cookies(); len(c) != 1 || c[0].Name != "__Host-certfarm" || !c[0].Secure {
		t.Errorf("%d, cookies %v", w.Code, c)
	}
}

func TestSessionsEnd(t *testing.T) {
	day, b := 24*time.Hour, newBed(t, nil).browser()
	for name, k := range map[string]struct {
		steps []time.Duration
		want  int
	}{
		"used every hour":        {[]time.Duration{time.Hour, time.Hour, 4 * time.Hour}, 200},
		"left alone":             {[]time.Duration{4*time.Hour + time.Second}, 401},
		"used for a day, nearly": {[]time.Duration{4 * time.Hour, 4 * time.Hour, 4 * time.Hour, 4 * time.Hour, 4 * time.Hour, 4*time.Hour - time.Second}, 200},
		"used for a day":         {[]time.Duration{4 * time.Hour, 4 * time.Hour, 4 * time.Hour, 4 * time.Hour, 4 * time.Hour, 4 * time.Hour}, 401},
		"from long ago":          {[]time.Duration{9 * day}, 401},
	} {
		b := b.bed.browser()
		b.login(lineToken)
		var last *httptest.ResponseRecorder
		for _, d := range k.steps {
			b.pass(d)
			last = b.do("GET", "/", nil)
		}
		b.wants(name, last, k.want)
	}
}

func TestASessionMayWhatItsTokenMayNow(t *testing.T) {
	b := newBed(t, nil).browser()
	desk := access.Desk{Store: b.store}
	b.login(b.token("ann", access.Viewer))
	b.wants("before", b.do("GET", "/", nil), 200)
	if _, err := desk.Revoke(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	b.wants("revoked", b.do("GET", "/", nil), 401)

	b = newBed(t, nil).browser()
	_, secret, err := access.Desk{Store: b.store}.Create(t.Context(), access.TokenAsk{Name: "short", Grants: []store.Grant{{Role: "viewer"}}, Life: time.Hour}, access.Local("x"))
	if err != nil {
		t.Fatal(err)
	}
	b.login(string(secret.Reveal()))
	b.pass(time.Hour - time.Second)
	b.wants("just before it expires", b.do("GET", "/", nil), 200)
	b.pass(time.Second)
	b.wants("expired", b.do("GET", "/", nil), 401)
	if got := b.login(string(secret.Reveal())); got != 401 {
		t.Errorf("login with an expired token: %d", got)
	}
}

func TestSessionsAreListedAndEnded(t *testing.T) {
	b := newBed(t, nil).browser()
	b.login(lineToken)
	desk := access.Desk{Store: b.store}
	all, err := desk.Sessions(t.Context())
	if err != nil || len(all) != 1 || all[0].Name != "ops" || all[0].From != "192.0.2.1" {
		t.Fatalf("%+v, %v", all, err)
	}
	if err := desk.End(t.Context(), "nope"); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
	if err := desk.End(t.Context(), access.SessionID(all[0])); err != nil {
		t.Fatal(err)
	}
	b.wants("ended", b.do("GET", "/", nil), 401)
}

func TestBearers(t *testing.T) {
	b := newBed(t, nil).browser()
	ann := b.token("ann", access.Operator)
	b.wants("of the store", b.do("GET", "/", nil, "Authorization", "Bearer "+ann), 200)
	b.wants("of the file", b.do("GET", "/", nil, "Authorization", "Bearer "+lineToken), 200)
	b.wants("an act needs no word", b.do("POST", "/act", nil, "Authorization", "Bearer "+ann), 200)
	b.wants("a fresh one", b.do("GET", "/export", nil, "Authorization", "Bearer "+lineToken), 200)
	b.login(lineToken)
	for _, header := range []string{"Bearer ", "Bearer x", "Bearer " + ann + "0", "Bearer " + ann[:len(ann)-1], "bearer " + ann, "Basic " + ann, ann} {
		b.wants(header+" beside a good cookie", b.do("GET", "/", nil, "Authorization", header), 401)
	}
	k, err := access.Desk{Store: b.store}.List(t.Context())
	if err != nil || len(k) != 1 || !k[0].Used.Equal(b.now()) {
		t.Errorf("used: %+v, %v", k, err)
	}
}

func TestAStreamEndsWithWhatOpenedIt(t *testing.T) {
	b := newBed(t, nil)
	still := map[string]func() bool{}
	b.mux = b.gate.Protect(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		still[r.URL.Path] = func() bool { return access.Still(r.Context()) }
	}), status)
	ann := b.token("ann", access.Viewer)
	one := b.browser()
	one.do("GET", "/bearer", nil, "Authorization", "Bearer "+ann)
	one.do("GET", "/file", nil, "Authorization", "Bearer "+lineToken)
	if !still["/bearer"]() || !still["/file"]() || !access.Still(t.Context()) {
		t.Error("they may")
	}
	if _, err := (access.Desk{Store: b.store}).Revoke(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	if still["/bearer"]() || !still["/file"]() {
		t.Error("a revoked token's stream goes on, or another's does not")
	}
}

func TestExportNeedsAFreshLogin(t *testing.T) {
	b := newBed(t, nil).browser()
	b.login(lineToken)
	b.wants("at once", b.do("GET", "/export", nil), 200)
	b.pass(11 * time.Minute)
	b.wants("later", b.do("GET", "/export", nil), 403)
	b.wants("the rest", b.do("GET", "/", nil), 200)
	b.login(lineToken)
	b.wants("after another login", b.do("GET", "/export", nil), 200)
}

func TestLoginsAreLimited(t *testing.T) {
	b := newBed(t, nil).browser()
	good := b.token("ann", access.Viewer)
	for i := range 10 {
		if got := b.login("cf_guess"); got != 401 {
			t.Fatalf("guess %d: %d", i, got)
		}
	}
	w := b.do("POST", "/login", url.Values{"token": {"cf_guess"}})
	b.wants("one guess more", w, 429)
	b.wants("a good token now", b.do("POST", "/login", url.Values{"token": {good}}), 429)
	b.wants("a bearer from there", b.do("GET", "/", nil, "Authorization", "Bearer "+good), 429)
	b.from = "192.0.2.2:99"
	if got := b.login(good); got != 200 {
		t.Errorf("from another address: %d", got)
	}
	b.from = "192.0.2.1:1"
	b.cookies = map[string]*http.Cookie{}
	b.pass(7 * time.Second)
	if got := b.login(good); got != 200 {
		t.Errorf("a while later: %d", got)
	}
	b.cookies = map[string]*http.Cookie{}
	all := 0
	for i := range 300 {
		b.from = fmt.Sprintf("10.0.%d.%d:1", i/200, i%200)
		if b.login("cf_guess") == 401 {
			all++
		}
	}
	if all > 110 {
		t.Errorf("%d guesses from everywhere were looked at", all)
	}
	for i := range 12 {
		b.from = fmt.Sprintf("[2001:db8::%x]:1", i+1)
		w = b.do("POST", "/login", url.Values{"token": {"x"}})
	}
	b.wants("one subscriber's many addresses", w, 429)
}

func TestCallersAreLimited(t *testing.T) {
	b := newBed(t, nil).browser()
	one, two := lineToken, b.token("two", access.Viewer)
	for range 500 {
		b.wants("within", b.do("GET", "/", nil, "Authorization", "Bearer "+one), 200)
	}
	b.wants("one more", b.do("GET", "/", nil, "Authorization", "Bearer "+one), 429)
	b.wants("somebody else", b.do("GET", "/", nil, "Authorization", "Bearer "+two), 200)
	b.pass(time.Second)
	b.wants("a second later", b.do("GET", "/", nil, "Authorization", "Bearer "+one), 200)
}

func TestHeaders(t *testing.T) {
	b := newBed(t, nil).browser()
	h := b.do("GET", "/", nil).Header()
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'", "X-Content-Type-Options": "nosniff",
		"Referrer-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin", "Cache-Control": "no-store",
		"Strict-Transport-Security": "max-age=",
	} {
		if !strings.HasPrefix(h.Get(name), want) {
			t.Errorf("%s: %q", name, h.Get(name))
		}
	}
	for _, loose := range []string{"unsafe", "*", "http"} {
		if strings.Contains(h.Get("Content-Security-Policy"), loose) {
			t.Errorf("the policy has %s", loose)
		}
	}
}

func TestSafeNext(t *testing.T) {
	for next, want := range map[string]string{
		"/sites?x=1#y": "/sites?x=1#y", "": "/", "sites": "/", "//evil.example": "/", "https://evil.example": "/", "/\\evil.example": "/",
		"\\\\evil": "/", "javascript:alert(1)": "/", "/a\r\nSet-Cookie: x": "/", "https:/evil": "/",
	} {
		if got := access.SafeNext(next); got != want {
			t.Errorf("%q: %q, want %q", next, got, want)
		}
	}
}
