package access_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/access/idp"
	"github.com/certfarm/certfarm/internal/access/idp/idptest"
	"github.com/certfarm/certfarm/internal/store"
)

// A journey is a browser, a gate and an identity provider.
type journey struct {
	*browser
	idp *idptest.Provider
}

func newJourney(t *testing.T) journey {
	t.Helper()
	var clock *bed
	p := idptest.New(t, func() time.Time { return clock.now() })
	b := newBed(t, func(c *access.Config) {
		var err error
		c.OIDC, err = idp.New(idp.Config{
			Issuer: p.URL, ClientID: idptest.ClientID, Redirect: "https://certfarm.example/login/callback", Now: func() time.Time { return clock.now() },
		})
		if err != nil {
			t.Fatal(err)
		}
		c.Grants = []access.GroupGrant{
			{Group: "ops", Grant: store.Grant{Role: "operator", Farm: "shop", Tags: []string{"shop"}}},
			{Group: "root", Grant: store.Grant{Role: "admin"}},
		}
	})
	clock = b
	return journey{b.browser(), p}
}

// out is the browser's way to the provider: where it comes back with.
func (j journey) out(query string) string {
	j.t.Helper()
	w := j.do("GET", "/login/oidc"+query, nil)
	if w.Code != http.StatusSeeOther {
		j.t.Fatalf("begin: %d %s", w.Code, w.Body)
	}
	to := w.Header().Get("Location")
	u, err := url.Parse(to)
	if err != nil || !strings.HasPrefix(to, j.idp.URL+"/auth?") {
		j.t.Fatalf("sent to %s", to)
	}
	if q := u.Query(); len(q.Get("state")) < 43 || len(q.Get("nonce")) < 43 || q.Get("state") == q.Get("nonce") {
		j.t.Errorf("query %v", q)
	}
	req, err := http.NewRequestWithContext(j.t.Context(), "GET", to, nil)
	if err != nil {
		j.t.Fatal(err)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		j.t.Fatal(err)
	}
	defer res.Body.Close()
	back := res.Header.Get("Location")
	path, ok := strings.CutPrefix(back, "https://certfarm.example")
	if !ok {
		j.t.Fatalf("the provider answers %s, and sends to %q", res.Status, back)
	}
	return path
}

func TestAPersonLogsIn(t *testing.T) {
	j := newJourney(t)
	w := j.do("GET", j.out("?next=/sites"), nil)
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/sites" {
		t.Fatalf("%d %v %s\n%s", w.Code, w.Header(), w.Body, j.log.String())
	}
	if len(j.cookies) != 1 || j.cookies["__Host-certfarm"] == nil {
		t.Errorf("cookies %v", j.cookies)
	}
	if home := j.do("GET", "/", nil); !strings.HasPrefix(home.Body.String(), "ann ") {
		t.Errorf("home: %d %s", home.Code, home.Body)
	}
	all, err := access.Desk{Store: j.store}.Sessions(t.Context())
	if err != nil || len(all) != 1 || all[0].Key != j.idp.URL+" u1" || !slices.Equal(all[0].Groups, []string{"ops"}) {
		t.Errorf("%+v, %v", all, err)
	}
	j.wants("an act", j.do("POST", "/act", url.Values{"csrf": {j.csrf()}}), 200)
}

func TestWhereAPersonGoesNext(t *testing.T) {
	j := newJourney(t)
	for _, next := range []string{"//evil.example", "https://evil.example/", "/\\evil"} {
		w := j.do("GET", j.out("?next="+url.QueryEscape(next)), nil)
		if got := w.Header().Get("Location"); got != "/" {
			t.Errorf("%s leads to %s", next, got)
		}
	}
}

func TestGroups(t *testing.T) {
	j := newJourney(t)
	for name, k := range map[string]struct {
		claims, info map[string]any
		want         int
	}{
		"as one text":             {map[string]any{"groups": "ops"}, nil, 303},
		"none":                    {map[string]any{"groups": []string{}}, nil, 401},
		"no claim":                {map[string]any{"groups": nil}, nil, 401},
		"others":                  {map[string]any{"groups": []string{"OPS", "ops ", "admin"}}, nil, 401},
		"in the user info":        {map[string]any{"groups": nil}, map[string]any{"groups": []string{"ops"}}, 303},
		"of another's user info":  {map[string]any{"groups": nil}, map[string]any{"groups": []string{"ops"}, "sub": "u2"}, 401},
		"user info is not signed": {map[string]any{"groups": []string{"none"}}, map[string]any{"groups": []string{"root"}}, 401},
	} {
		j := journey{j.bed.browser(), j.idp}
		j.idp.Claims, j.idp.UserInfo = k.claims, map[string]any{} // the provider is asked only once what it has
		maps.Copy(j.idp.UserInfo, k.info)
		j.wants(name, j.do("GET", j.out(""), nil), k.want)
		if (len(j.cookies) == 1) != (k.want == 303) {
			t.Errorf("%s: cookies %v", name, j.cookies)
		}
	}
}

// TestAttacks: each one is a login that must not be.
func TestAttacks(t *testing.T) {
	claims := func(name string, v any) func(journey) {
		return func(j journey) { j.idp.Claims = map[string]any{name: v} }
	}
	sign := func(f func(*idptest.Provider, []byte) string) func(journey) {
		return func(j journey) { j.idp.Sign = f }
	}
	back := func(name, value string) func(journey) {
		return func(j journey) { j.idp.Back = func(q url.Values) { q.Set(name, value) } }
	}
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	j, n := newJourney(t), 0
	past := time.Date(2026, 1, 2, 3, 4, 4, 0, time.UTC).Unix()
	for name, attack := range map[string]func(journey){
		"another login's nonce":     claims("nonce", strings.Repeat("0", 64)),
		"no nonce":                  claims("nonce", nil),
		"for another client":        claims("aud", "other"),
		"for many, without azp":     claims("aud", []string{idptest.ClientID, "other"}),
		"azp is another client":     claims("azp", "other"),
		"from another issuer":       claims("iss", "https://evil.example"),
		"expired":                   claims("exp", past),
		"without an end":            claims("exp", nil),
		"not yet":                   claims("nbf", past+3600),
		"another's key":             sign(func(p *idptest.Provider, c []byte) string { return p.By(jose.ES256, stranger, c) }),
		"HMAC under the public key": sign(func(p *idptest.Provider, c []byte) string { return p.By(jose.HS256, p.PublicPEM(), c) }),
		"HMAC under the client id": sign(func(p *idptest.Provider, c []byte) string {
			return p.By(jose.HS256, []byte(strings.Repeat("certfarm", 4)), c)
		}),
		"no signature": sign(func(_ *idptest.Provider, c []byte) string {
			enc := base64.RawURLEncoding.EncodeToString
			return enc([]byte(`{"alg":"none","kid":"1"}`)) + "." + enc(c) + "."
		}),
		"a signature of other claims": sign(func(p *idptest.Provider, c []byte) string {
			parts := strings.Split(p.Signed(c), ".")
			return parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(c), `"ops"`, `"root"`, 1))) + "." + parts[2]
		}),
		"no ID token":          sign(func(*idptest.Provider, []byte) string { return "" }),
		"another state":        back("state", strings.Repeat("0", 64)),
		"no state":             back("state", ""),
		"another code":         back("code", "x"),
		"another issuer":       back("iss", "https://evil.example"),
		"no issuer":            back("iss", ""),
		"an error beside":      back("error", "access_denied"),
		"an error with markup": back("error", "<script>alert(1)</script>"),
	} {
		n++
		j := journey{j.bed.browser(), j.idp}
		j.from = fmt.Sprintf("192.0.2.%d:1", n) // each has tries of its own
		j.idp.Claims, j.idp.Sign, j.idp.Back = nil, nil, nil
		attack(j)
		j.wants(name, j.do("GET", j.out(""), nil), 401)
		if len(j.cookies) != 0 {
			t.Errorf("%s: cookies %v", name, j.cookies)
		}
	}
	if all, err := (access.Desk{Store: j.store}).Sessions(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("sessions %+v, %v", all, err)
	}
	if strings.Contains(j.log.String(), "<script>") {
		t.Errorf("logged: %s", j.log.String())
	}
}

func TestTheWayBackIsForTheBrowserThatLeft(t *testing.T) {
	j := newJourney(t)
	back := j.out("")
	victim := j.bed.browser()
	victim.wants("an attacker's code in another browser", victim.do("GET", back, nil), 401)
	other := journey{j.bed.browser(), j.idp}
	other.out("")
	other.wants("and in one that is on its way, too", other.do("GET", back, nil), 401)
	if len(victim.cookies)+len(other.cookies) != 0 {
		t.Errorf("cookies %v %v", victim.cookies, other.cookies)
	}

	back = j.out("")
	mine := *j.cookies["__Host-certfarm-login"]
	j.wants("its own", j.do("GET", back, nil), 303)
	j.cookies = map[string]*http.Cookie{mine.Name: &mine}
	j.wants("a second time", j.do("GET", back, nil), 401)
}

func TestAFreshLoginIsOneAtTheProvider(t *testing.T) {
	j := newJourney(t)
	export := func(want int, what string) {
		t.Helper()
		j.wants("back", j.do("GET", j.out("?fresh"), nil), 303)
		j.wants(what, j.do("GET", "/export", nil), want)
	}
	j.idp.Claims = map[string]any{"groups": []string{"root"}}
	export(200, "just shown")
	j.idp.Claims = map[string]any{"groups": []string{"root"}, "auth_time": j.now().Add(-time.Hour).Unix()}
	export(403, "single sign-on of an hour ago")
	j.idp.Claims = map[string]any{"groups": []string{"root"}, "auth_time": nil}
	export(403, "it does not say when")
	j.idp.Claims = map[string]any{"groups": []string{"root"}, "auth_time": j.now().Add(time.Hour).Unix()}
	export(200, "its clock is ahead")
	j.pass(11 * time.Minute)
	j.wants("and yet only ten minutes", j.do("GET", "/export", nil), 403)
}

func TestAProviderThatIsDown(t *testing.T) {
	p, err := idp.New(idp.Config{Issuer: "http://127.0.0.1:1", ClientID: "x", Redirect: "https://certfarm.example/login/callback"})
	if err != nil {
		t.Fatal(err)
	}
	b := newBed(t, func(c *access.Config) { c.OIDC = p }).browser()
	b.wants("begin", b.do("GET", "/login/oidc", nil), 500)
	if got := b.login(lineToken); got != 200 {
		t.Errorf("a token, meanwhile: %d", got)
	}
}

func TestProvidersThatAreNotTaken(t *testing.T) {
	good := idp.Config{Issuer: "https://idp.example", ClientID: "x", Redirect: "https://certfarm.example/login/callback"}
	if _, err := idp.New(good); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*idp.Config){
		"no TLS":            func(c *idp.Config) { c.Issuer = "http://idp.example" },
		"no TLS on return":  func(c *idp.Config) { c.Redirect = "http://certfarm.example/x" },
		"no issuer":         func(c *idp.Config) { c.Issuer = "" },
		"no client":         func(c *idp.Config) { c.ClientID = "" },
		"a name of a thing": func(c *idp.Config) { c.Issuer = "keycloak" },
	} {
		c := good
		change(&c)
		if _, err := idp.New(c); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
