package acme_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/go-acme/lego/v5/acme"
	"github.com/go-acme/lego/v5/acme/api"
	"golang.org/x/sync/errgroup"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
	certacme "github.com/certfarm/certfarm/internal/issue/acme"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
)

const inFlight = 64

// The two benchmarks do the same work with 64 orders in flight, with real
// HTTP-01 and Retry-After of one second: ours through Step, and a client that
// does nothing but call lego's low level in a row.
func BenchmarkIssue(b *testing.B) {
	w := newWorld(b, issuetest.Options{RetryAfter: time.Second})
	one := w.issuer(b)
	benchmark(b, w, func(_ context.Context, o farm.Order) error {
		_, err := w.drive(b, o, func() *certacme.Issuer { return one })
		return err
	})
}

func BenchmarkBare(b *testing.B) {
	w := newWorld(b, issuetest.Options{RetryAfter: time.Second})
	core, err := w.bare()
	must(b, err)
	benchmark(b, w, func(ctx context.Context, o farm.Order) error { return w.get(ctx, core, o) })
}

func benchmark(b *testing.B, w *world, get func(context.Context, farm.Order) error) {
	var orders []farm.Order
	for i := range b.N {
		orders = append(orders, w.order(b, fmt.Sprintf("n%d.farm.test", i)))
	}
	b.ResetTimer()
	start := time.Now()
	g, ctx := errgroup.WithContext(b.Context())
	g.SetLimit(inFlight)
	for _, o := range orders {
		g.Go(func() error { return get(ctx, o) })
	}
	must(b, g.Wait())
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "certificates/s")
	b.ReportMetric(float64(w.ca.Stats().Total())/float64(b.N), "requests/certificate")
}

// bare makes a client with an account.
func (w *world) bare() (*api.Core, error) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(w.ca.ListenRoots))
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, MaxIdleConnsPerHost: inFlight, ForceAttemptHTTP2: true,
	}
	key, err := issue.DecodeKey(w.key)
	if err != nil {
		return nil, err
	}
	core, err := api.New(&http.Client{Transport: transport}, "bare", w.ca.Directory, "", key)
	if err != nil {
		return nil, err
	}
	_, err = core.Accounts.New(context.Background(), acme.Account{TermsOfServiceAgreed: true})
	return core, err
}

// get does newOrder, authorizations, challenges, poll, finalize, poll, download.
func (w *world) get(ctx context.Context, core *api.Core, o farm.Order) error {
	order, err := core.Orders.New(ctx, o.Names, &api.OrderOptions{Profile: "default"})
	if err != nil {
		return err
	}
	for _, u := range order.Authorizations {
		if err := w.prove(ctx, core, u); err != nil {
			return err
		}
	}
	at := order.Location
	if _, err = poll(ctx, core, at, acme.StatusReady, 300*time.Millisecond); err != nil {
		return err
	}
	if _, err = core.Orders.UpdateForCSR(ctx, order.Finalize, o.CSR); err != nil {
		return err
	}
	if order, err = poll(ctx, core, at, acme.StatusValid, time.Second); err != nil {
		return err
	}
	_, err = core.Certificates.Get(ctx, order.Certificate, true)
	return err
}

func (w *world) prove(ctx context.Context, core *api.Core, u string) error {
	z, err := core.Authorizations.Get(ctx, u)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(z.Challenges, func(c acme.Challenge) bool { return c.Type == "http-01" })
	value, err := core.GetKeyAuthorization(z.Challenges[i].Token)
	if err != nil {
		return err
	}
	w.board.Store(z.Challenges[i].Token, value)
	_, err = core.Challenges.New(ctx, z.Challenges[i].URL)
	return err
}

func poll(ctx context.Context, core *api.Core, u, want string, every time.Duration) (acme.ExtendedOrder, error) {
	for range 30 {
		wait(ctx, time.Now().Add(every))
		order, err := core.Orders.Get(ctx, u)
		if err != nil || order.Status == want {
			return order, err
		}
	}
	return acme.ExtendedOrder{}, errors.New("the order is never " + want)
}
