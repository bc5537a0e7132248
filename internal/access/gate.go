package access

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/certfarm/certfarm/internal/access/idp"
	"github.com/certfarm/certfarm/internal/store"
)

// What may be sent: logins from one address and in all (what failed counts only, and
// a token has 128 bits of chance or more: this is for the journal's sake and the
// machine's), and requests of one caller.
const (
	loginBurst    = 10
	loginEvery    = rate.Limit(1.0 / 6) // ten a minute
	loginBurstAll = 100
	loginEveryAll = rate.Limit(5)
	callerBurst   = 500
	callerEvery   = rate.Limit(100)
)

// How long a session lasts: without a request, and at most.
const (
	sessionIdle    = 4 * time.Hour
	sessionLongest = 24 * time.Hour
)

// noteEvery is how often the last use of a token or a session is written.
const noteEvery = time.Minute

// Config is what a Gate takes.
type Config struct {
	Store *store.Store
	File  File          // of the token file; nil: none
	OIDC  *idp.Provider // nil: none
	// Grants are what the groups of people at the identity provider may do.
	Grants []GroupGrant
	URL    *url.URL      // by which people reach the controllers, if there is a proxy in front; nil: as they come
	Idle   time.Duration // of a session without a request; 0: 4 hours
	Long   time.Duration // of a session at most; 0: 24 hours
	Log    *slog.Logger
	// Now is the clock of sessions, tokens and limits; nil is the system's.
	Now func() time.Time
	// Tell hears of logins and logouts; nil: nobody does. They are logged anyway.
	Tell func(context.Context, Act)
}

// An Act is what somebody did at the gate.
type Act struct {
	Do     string // "login", "login refused" or "logout"
	Caller Caller // the zero Caller, where nobody is known
	From   string // address
	Why    string // it was refused
}

// A Gate finds out who sends a request: it is the door of the TCP address. It is
// safe for use by many goroutines at once.
type Gate struct {
	Config
	logins  *limits
	all     *rate.Limiter
	callers *limits
	cross   *http.CrossOriginProtection
}

// NewGate makes a gate. It fails where the URL is none.
func NewGate(c Config) (*Gate, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Idle == 0 {
		c.Idle = sessionIdle
	}
	if c.Long == 0 {
		c.Long = sessionLongest
	}
	cross := http.NewCrossOriginProtection()
	if c.URL != nil { // old browsers name where they are, and a proxy may name us otherwise
		if err := cross.AddTrustedOrigin(c.URL.Scheme + "://" + c.URL.Host); err != nil {
			return nil, fmt.Errorf("url %s: %w", c.URL, err)
		}
	}
	return &Gate{
		Config: c, logins: newLimits(loginEvery, loginBurst), all: rate.NewLimiter(loginEveryAll, loginBurstAll),
		callers: newLimits(callerEvery, callerBurst), cross: cross,
	}, nil
}

// ErrForged says that a browser sent what its person may not have meant: another
// site made it, or the page is older than the login.
var ErrForged = errors.New("this request did not come from a page of this controller, or the page is from before the login: load it again")

// ErrWrongToken says that a token opens nothing: it is unknown, expired or revoked.
var ErrWrongToken = errors.New("this token is not known, or no longer good")

type visitKey struct{}

// A visit is what the Gate keeps of a request that came with a session.
type visit struct{ cookie string }

// Protect finds out who asks, by the header Authorization or else by the session's
// cookie, and puts the Caller into the context (see CallerOf). It lets unknown ones
// through, for whom the Guard decides, and refuses what a browser was made to send
// by others (ErrForged), and too many requests (*TooMany).
func (g *Gate) Protect(h http.Handler, refuse Refuse) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, err := g.identify(w, r)
		if err != nil {
			refuse(w, r, err)
			return
		}
		h.ServeHTTP(w, r.WithContext(ctx))
	})
}

// identify is the context of a request with who sent it.
func (g *Gate) identify(w http.ResponseWriter, r *http.Request) (context.Context, error) {
	ctx := r.Context()
	var c Caller
	var err error
	if r.Header.Get("Authorization") != "" {
		c, err = g.bearer(ctx, r)
	} else if err = g.cross.Check(r); err != nil {
		return ctx, ErrForged
	} else if cookie := g.cookie(r, ""); cookie != "" {
		c, err = g.session(ctx, cookie)
		if err == nil && c.Known() {
			ctx = context.WithValue(ctx, visitKey{}, visit{cookie})
			err = meant(w, r, cookie)
		}
	}
	if err != nil || !c.Known() {
		return ctx, err
	}
	if err := g.callers.take(c.Via+" "+c.Key, g.Now()); err != nil {
		return ctx, err
	}
	again := func(ctx context.Context) (Caller, error) { return g.again(ctx, r) }
	return context.WithValue(WithCaller(ctx, c), againKey{}, again), nil
}

type againKey struct{}

// Still reports that whoever sent a request may still be let in: a stream asks now and
// then, so that it ends with the token or session that opened it. An error of the
// store ends nothing.
func Still(ctx context.Context) bool {
	again, ok := ctx.Value(againKey{}).(func(context.Context) (Caller, error))
	if !ok {
		return true // of the socket
	}
	c, err := again(ctx)
	return err != nil || c.Known()
}

// again finds out once more who sent a request.
func (g *Gate) again(ctx context.Context, r *http.Request) (Caller, error) {
	if token, ok := shown(r); ok {
		return g.holding(ctx, token)
	}
	return g.session(ctx, g.cookie(r, ""))
}

// shown is the token in a request's header: a bearer's (RFC 6750), or the password of
// HTTP Basic (RFC 7617) from programs that can send nothing else, such as Caddy's
// get_certificate. The latter only reads: a browser that remembers it cannot be made
// to change anything.
func shown(r *http.Request) (token string, ok bool) {
	if token, ok = strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return token, true
	}
	_, token, ok = r.BasicAuth()
	return token, ok && r.Method == http.MethodGet
}

// bearer finds who holds the token of a header. One that is not known opens nothing,
// not even what a cookie beside it would.
func (g *Gate) bearer(ctx context.Context, r *http.Request) (Caller, error) {
	token, ok := shown(r)
	if !ok {
		return Caller{}, nil
	}
	c, err := g.try(ctx, token, r.RemoteAddr)
	if errors.Is(err, ErrWrongToken) {
		return Caller{}, nil
	}
	return c, err
}

// try finds who holds a token. What fails costs the address one of its tries, and
// when they are used up, not even a good one is looked at.
func (g *Gate) try(ctx context.Context, token, remote string) (Caller, error) {
	now, from := g.Now(), addressOf(remote)
	if err := g.logins.spent(from, now); err != nil {
		return Caller{}, err
	}
	c, err := g.holding(ctx, token)
	if err != nil || c.Known() {
		return c, err
	}
	if err := g.failed(from, now); err != nil {
		return Caller{}, err
	}
	return Caller{}, ErrWrongToken
}

// failed counts a login that failed, of its address and of all.
func (g *Gate) failed(from string, now time.Time) error {
	if err := g.logins.take(from, now); err != nil {
		return err
	}
	return g.logins.spend(g.all, now)
}

// holding finds who holds a token, in the token file and in the store. The file is
// searched whole; the store by the digest, which tells nobody how to come closer to
// a token.
func (g *Gate) holding(ctx context.Context, token string) (Caller, error) {
	if c, ok := g.File.holding(token); ok {
		return c, nil
	}
	if !strings.HasPrefix(token, Prefix) {
		return Caller{}, nil
	}
	var c Caller
	var k store.APIToken
	err := g.Store.View(ctx, func(tx *store.Tx) error {
		var err error
		k, err = tx.APIToken(ctx, digest(token))
		c = tokenCaller(k, err, g.Now())
		return unlessMissing(err)
	})
	if err == nil && c.Known() {
		g.note(ctx, k.ID, k.Used, store.Session{})
	}
	return c, err
}

// tokenCaller is who holds a token that was found; nobody, if it is not good.
func tokenCaller(k store.APIToken, err error, now time.Time) Caller {
	if err != nil || !now.Before(k.Expires) {
		return Caller{}
	}
	return Caller{Name: k.Name, Via: ViaToken, Key: k.ID, Grants: Granted(k.Grants)}
}

func unlessMissing(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// note writes that a token, or a session, was used. When it cannot be written, the
// request goes on: the journal of requests is not here.
func (g *Gate) note(ctx context.Context, token string, used time.Time, n store.Session) {
	now := g.Now()
	if now.Sub(used) < noteEvery {
		return
	}
	if err := g.Store.NoteUse(ctx, token, n.Digest, now); err != nil && ctx.Err() == nil {
		g.Log.Warn("the last use of a login was not written", "error", err)
	}
}

func (g *Gate) told(ctx context.Context, a Act) {
	g.Log.Info(a.Do, "by", a.Caller.Name, "via", a.Caller.Via, "from", a.From, "why", a.Why)
	if g.Tell != nil {
		g.Tell(ctx, a)
	}
}
