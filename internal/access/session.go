package access

import (
	"context"
	"crypto/subtle"
	"errors"
	"net/http"

	"github.com/certfarm/certfarm/internal/store"
)

// session finds who is logged in with a cookie. What they may do is found anew at
// every request: a token that is revoked or has expired, a line that is gone from the
// token file, a group that has lost its role end or shrink the session at once.
func (g *Gate) session(ctx context.Context, cookie string) (c Caller, err error) {
	var n store.Session
	now := g.Now()
	err = g.Store.View(ctx, func(tx *store.Tx) error {
		n, err = tx.Session(ctx, digest(cookie))
		if err != nil || !now.Before(n.Expires) || now.Sub(n.Seen) > g.Idle {
			return unlessMissing(err)
		}
		c, err = g.holder(ctx, tx, n)
		return err
	})
	if err != nil || !c.Known() {
		return Caller{}, err
	}
	c.Login = n.Login
	g.note(ctx, "", n.Seen, n)
	return c, nil
}

// holder is what the holder of a session may do now.
func (g *Gate) holder(ctx context.Context, tx *store.Tx, n store.Session) (Caller, error) {
	switch n.Via {
	case ViaToken:
		k, err := tx.APITokenByID(ctx, n.Key)
		return tokenCaller(k, err, g.Now()), unlessMissing(err)
	case ViaFile:
		c, _ := g.File.keyed(n.Key)
		return c, nil
	case ViaOIDC:
		if g.OIDC == nil {
			return Caller{}, nil
		}
		return g.person(n.Key, n.Name, n.Groups), nil
	}
	return Caller{}, nil
}

// begin logs a browser in under a new id, and out of the session that it had: an id
// that somebody else planted or knew before is never one that is logged in.
func (g *Gate) begin(w http.ResponseWriter, r *http.Request, c Caller, groups []string) error {
	cookie, now := mint(""), g.Now()
	n := store.Session{
		Digest: digest(cookie), Via: c.Via, Key: c.Key, Name: c.Name, Groups: groups,
		From: addressOf(r.RemoteAddr), Begun: now, Login: c.Login, Seen: now, Expires: now.Add(g.Long),
	}
	if n.Login.IsZero() {
		n.Login = now // they showed it with this request
	}
	err := g.Store.Update(r.Context(), func(tx *store.Tx) error {
		if was := g.cookie(r, ""); was != "" {
			if err := tx.RemoveSession(r.Context(), digest(was)); err != nil {
				return err
			}
		}
		return tx.AddSession(r.Context(), n)
	})
	if err != nil {
		return err
	}
	g.setCookie(w, r, "", cookie, g.Long)
	g.told(r.Context(), Act{Do: "login", Caller: c, From: n.From})
	return nil
}

// Login logs a browser in with the API token in the form's field "token", a POST
// that came through Protect. The errors are ErrWrongToken, *TooMany and those of the
// store; after nil, send the browser to SafeNext of what it asked for.
func (g *Gate) Login(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodPost {
		return ErrForged // a link must not log anybody in
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	token := r.PostFormValue("token")
	c, err := g.try(r.Context(), token, r.RemoteAddr)
	if err == nil {
		return g.begin(w, r, c, nil)
	}
	if errors.Is(err, ErrWrongToken) {
		g.told(r.Context(), Act{Do: "login refused", From: addressOf(r.RemoteAddr), Why: err.Error()})
	}
	return err
}

// Logout ends the browser's session, in the store and not in the cookie alone: a
// copy of the cookie opens nothing any more.
func (g *Gate) Logout(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodPost {
		return ErrForged // an image on any page must not log people out
	}
	c, known := CallerOf(r.Context())
	if was := g.cookie(r, ""); was != "" {
		err := g.Store.Update(r.Context(), func(tx *store.Tx) error { return tx.RemoveSession(r.Context(), digest(was)) })
		if err != nil {
			return err
		}
	}
	g.setCookie(w, r, "", "", 0)
	if known {
		g.told(r.Context(), Act{Do: "logout", Caller: c, From: addressOf(r.RemoteAddr)})
	}
	return nil
}

// Caller tells who sent a request that came through Protect.
func (g *Gate) Caller(r *http.Request) (Caller, bool) { return CallerOf(r.Context()) }

// The places of a request where the word is that shows that its page is ours.
const (
	CSRFHeader = "X-CSRF-Token"
	CSRFField  = "csrf"
)

// maxForm is what a form may have of bytes that is read for its word: a farm.yaml
// and what it takes more in a form.
const maxForm = 64 << 20

// CSRF is the word that forms and scripts of the session's pages send along with
// everything but GET: in the field CSRFField or the header CSRFHeader. It is empty
// where there is no session, as on the login page.
func (g *Gate) CSRF(r *http.Request) string {
	v, ok := r.Context().Value(visitKey{}).(visit)
	if !ok {
		return ""
	}
	return derive(v.cookie, "csrf")
}

// meant checks that a request of a session came from a page of that session. The
// cookie alone does not show that; where it came from (see http.CrossOriginProtection)
// was checked before, and old browsers do not say.
func meant(w http.ResponseWriter, r *http.Request, cookie string) error {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return nil
	}
	word := r.Header.Get(CSRFHeader)
	if word == "" {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		word = r.PostFormValue(CSRFField)
	}
	if subtle.ConstantTimeCompare([]byte(word), []byte(derive(cookie, "csrf"))) != 1 {
		return ErrForged
	}
	return nil
}
