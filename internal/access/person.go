package access

import (
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/access/idp"
	"github.com/certfarm/certfarm/internal/store"
)

// A GroupGrant is what people of a group at the identity provider may do.
type GroupGrant struct {
	Group string
	store.Grant
}

// person is who the identity provider says that somebody is, with what their groups
// may do now; nobody, if that is nothing.
func (g *Gate) person(key, name string, groups []string) Caller {
	var all []store.Grant
	for _, m := range g.Grants {
		if slices.Contains(groups, m.Group) {
			all = append(all, m.Grant)
		}
	}
	granted := Granted(all)
	if len(granted) == 0 {
		return Caller{}
	}
	return Caller{Name: name, Via: ViaOIDC, Key: key, Grants: granted}
}

// ErrNoRole says that the identity provider knows a person, but none of their groups
// may do anything here.
var ErrNoRole = errors.New("none of your groups may do anything here: ask whoever keeps access.yaml")

// ErrNoProvider says that there is no identity provider to log in with.
var ErrNoProvider = errors.New("no identity provider is set up: log in with a token")

// ErrRefused says that a login through the identity provider is not good; why is in
// the log.
var ErrRefused = errors.New("the identity provider's answer was not taken: try again, and if it stays so, the controller's log says why")

// tripFor is how long a person may take at the identity provider.
const tripFor = 10 * time.Minute

// HasOIDC reports that people can log in through an identity provider.
func (g *Gate) HasOIDC() bool { return g.OIDC != nil }

// Begin sends a browser to the identity provider, and afterwards to next. With fresh
// the person must show there anew who they are. Everything that ties the way back to
// the browser that left is in a cookie that scripts cannot read, so that any
// controller can take it up: a random seed, of which state, nonce and PKCE verifier
// are made.
func (g *Gate) Begin(w http.ResponseWriter, r *http.Request, next string, fresh bool) error {
	if g.OIDC == nil {
		return ErrNoProvider
	}
	seed := mint("")
	to, err := g.OIDC.Begin(r.Context(), trip(seed), fresh)
	if err != nil {
		g.Log.Error("the identity provider cannot be asked", "error", err)
		return idp.ErrUnreachable
	}
	g.setCookie(w, r, loginSuffix, seed+"."+base64.RawURLEncoding.EncodeToString([]byte(SafeNext(next))), tripFor)
	http.Redirect(w, r, to, http.StatusSeeOther)
	return nil
}

func trip(seed string) idp.Trip {
	return idp.Trip{State: derive(seed, "state"), Nonce: derive(seed, "nonce"), Verifier: derive(seed, "verifier")}
}

// Callback logs a browser in that comes back from the identity provider, and says
// where it goes next. The errors are ErrRefused, ErrNoRole, ErrNoProvider,
// idp.ErrUnreachable, *TooMany and those of the store.
func (g *Gate) Callback(w http.ResponseWriter, r *http.Request) (next string, err error) {
	if g.OIDC == nil {
		return "", ErrNoProvider
	}
	from := addressOf(r.RemoteAddr)
	if err := g.logins.spent(from, g.Now()); err != nil {
		return "", err
	}
	seed, where, _ := strings.Cut(g.cookie(r, loginSuffix), ".")
	g.setCookie(w, r, loginSuffix, "", 0) // it is good for one try
	if seed == "" {
		return "", g.refused(r, from, errors.New("the browser has no cookie of a login: it took too long, or began elsewhere"))
	}
	p, err := g.OIDC.Redeem(r.Context(), r.URL.Query(), trip(seed))
	if err != nil {
		return "", g.refused(r, from, err)
	}
	c := g.person(p.Key, p.Name, p.Groups)
	if !c.Known() {
		g.told(r.Context(), Act{Do: "login refused", Caller: Caller{Name: p.Name, Via: ViaOIDC, Key: p.Key}, From: from, Why: ErrNoRole.Error()})
		return "", ErrNoRole
	}
	if c.Login = p.Proved; c.Login.IsZero() {
		c.Login = time.Unix(0, 0) // it does not say: then long ago
	}
	text, _ := base64.RawURLEncoding.DecodeString(where) // what is wrong in it leads home
	return SafeNext(string(text)), g.begin(w, r, c, p.Groups)
}

// refused counts and tells a login that is not good.
func (g *Gate) refused(r *http.Request, from string, err error) error {
	g.told(r.Context(), Act{Do: "login refused", Caller: Caller{Via: ViaOIDC}, From: from, Why: err.Error()})
	if errors.Is(err, idp.ErrUnreachable) {
		return idp.ErrUnreachable
	}
	if err := g.failed(from, g.Now()); err != nil {
		return err
	}
	return ErrRefused
}
