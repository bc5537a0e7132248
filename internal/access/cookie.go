package access

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// The cookies. A name with __Host- is taken by browsers only over TLS, with Secure,
// for this host alone and all of its paths, so that no neighbour under the same
// domain and nobody on the line can plant one (RFC 6265bis §4.1.3.2). On loopback
// without TLS browsers differ in whether they keep a Secure cookie, so the cookie has
// neither there. The plain names are read on such lines only: what is not protected
// can never stand in for what is.
const (
	cookieHost  = "__Host-certfarm"
	cookiePlain = "certfarm"
	loginSuffix = "-login" // of the cookie between leaving for the identity provider and coming back
)

// secure reports that the browser came by TLS: to us, or to a proxy that the
// configured URL says is in front.
func (g *Gate) secure(r *http.Request) bool {
	return r.TLS != nil || g.URL != nil && g.URL.Scheme == "https" && strings.EqualFold(r.Host, g.URL.Host)
}

func (g *Gate) cookieName(r *http.Request, suffix string) string {
	if g.secure(r) {
		return cookieHost + suffix
	}
	return cookiePlain + suffix
}

// setCookie gives the browser a cookie for as long as life; 0 or less takes it away.
func (g *Gate) setCookie(w http.ResponseWriter, r *http.Request, suffix, value string, life time.Duration) {
	age := int(life / time.Second)
	if age <= 0 {
		age = -1
	}
	http.SetCookie(w, &http.Cookie{
		Name: g.cookieName(r, suffix), Value: value, Path: "/", MaxAge: age,
		Secure: g.secure(r), HttpOnly: true,
		// Lax and not Strict: who follows a link from an alarm's mail, or comes back from
		// the identity provider, is logged in. It is sent along with no foreign POST.
		SameSite: http.SameSiteLaxMode,
	})
}

func (g *Gate) cookie(r *http.Request, suffix string) string {
	c, err := r.Cookie(g.cookieName(r, suffix))
	if err != nil {
		return ""
	}
	return c.Value
}

// derive makes a value for one use from a secret: who knows it learns nothing of
// the secret or of values for other uses.
func derive(secret, use string) string {
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte("certfarm " + use))
	return hex.EncodeToString(m.Sum(nil))
}

// SafeNext is where a browser goes after the login: a path of this controller, or
// "/" if what it asked for is anything else.
func SafeNext(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.IsAbs() || u.Host != "" || u.User != nil || !strings.HasPrefix(next, "/") ||
		strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") {
		return "/"
	}
	return next
}
