package acme_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
	"github.com/certfarm/certfarm/internal/issue/acme"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
)

// A world is a CA, a name server that sends every name below farm.test to one
// HTTP server, and that server.
type world struct {
	ca    *issuetest.CA
	key   farm.Secret
	board sync.Map // token to key authorization

	account string // as the store keeps it
	config  func(*acme.Config)
}

func newWorld(t testing.TB, o issuetest.Options) *world {
	t.Helper()
	w := &world{}
	names, err := issuetest.StartDNS(map[string][]netip.Addr{"*.farm.test": {netip.MustParseAddr("127.0.0.1")}})
	must(t, err)
	t.Cleanup(func() { must(t, names.Close()) })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	server := &http.Server{Handler: http.HandlerFunc(w.answer), ReadHeaderTimeout: time.Second}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	o.DNS, o.HTTPPort = names.Address, listener.Addr().(*net.TCPAddr).Port
	w.ca, err = issuetest.Start(o)
	must(t, err)
	t.Cleanup(func() { must(t, w.ca.Close()) })
	key, err := issue.NewKey(farm.EC256)
	must(t, err)
	w.key, err = issue.EncodeKey(key)
	must(t, err)
	return w
}

func (w *world) answer(out http.ResponseWriter, r *http.Request) {
	if value, ok := w.board.Load(strings.TrimPrefix(r.URL.Path, "/.well-known/acme-challenge/")); ok {
		_, _ = fmt.Fprint(out, value)
		return
	}
	http.NotFound(out, r)
}

// issuer makes a new Issuer that knows what was stored.
func (w *world) issuer(t testing.TB) *acme.Issuer {
	t.Helper()
	c := acme.Config{
		Issuer:     farm.Issuer{Name: "testca", Directory: w.ca.Directory, Roots: w.ca.ListenRoots + w.ca.Roots},
		AccountKey: w.key, AccountURL: w.account, UserAgent: "certfarm-test",
		Save: func(_ context.Context, url string) error { w.account = url; return nil },
	}
	if w.config != nil {
		w.config(&c)
	}
	i, err := acme.New(c)
	must(t, err)
	return i
}

func (w *world) order(t testing.TB, names ...string) farm.Order {
	t.Helper()
	r, err := issue.NewRequest(names, farm.EC256)
	must(t, err)
	return farm.Order{ID: "o1", Names: names, CSR: r.CSR, State: farm.OrderNew, Created: time.Now()}
}

// drive does with an order what the controller does, with the issuer that next
// gives for each step, until it has ended or its error is final. Failures that
// may be tried again are, at most 20.
func (w *world) drive(t testing.TB, o farm.Order, next func() *acme.Issuer) (farm.Order, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	failures := 0
	for !o.State.Ended() {
		if o.State == farm.OrderPending && known(o) {
			w.present(&o)
			continue
		}
		stored := o
		if o.State == farm.OrderReady {
			stored.Finalize = time.Now() // durable before the request
		}
		wait(ctx, o.Again)
		got, err := next().Step(ctx, o, time.Now())
		switch {
		case err == nil:
			o = got
		case errors.Is(err, issue.Refused):
			return o, err
		default:
			if failures++; failures > 20 {
				return o, err
			}
			o = stored // as after a crash
			if later, ok := errors.AsType[*issue.Later](err); ok {
				wait(ctx, later.Until)
			}
		}
	}
	return o, nil
}

// wait waits for the moment that was told, the one thing to wait for here.
func wait(ctx context.Context, until time.Time) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	if time.Until(until) > 0 {
		<-ctx.Done()
	}
}

func known(o farm.Order) bool {
	for _, z := range o.Authz {
		if !z.Valid && z.Challenge.URL == "" {
			return false
		}
	}
	return true
}

func (w *world) present(o *farm.Order) {
	for i := range o.Authz {
		if z := &o.Authz[i]; !z.Valid {
			w.board.Store(z.Challenge.Token, z.Challenge.Value)
			z.Receipt = []byte("{}")
		}
	}
	o.State = farm.OrderPresented
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
