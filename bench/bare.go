package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-acme/lego/v5/acme"
	"github.com/go-acme/lego/v5/acme/api"
	"golang.org/x/sync/errgroup"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
	"github.com/certfarm/certfarm/internal/prove/http01"
)

// When an order is looked at that the CA names no time for.
const barePoll = 300 * time.Millisecond

// A bare client calls lego's low level in a row for each certificate and keeps
// everything in memory: nothing is stored, checked or resumed.
type bareClient struct {
	core  *api.Core
	board sync.Map // token to key authorization
}

// newBare makes a client with an account at the world's CA.
func newBare(ctx context.Context, w *world) (*bareClient, error) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(w.ca.ListenRoots))
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, MaxIdleConnsPerHost: inFlight, ForceAttemptHTTP2: true,
	}
	key, err := issue.NewKey(farm.EC256)
	if err != nil {
		return nil, err
	}
	b := &bareClient{}
	if b.core, err = api.New(&http.Client{Transport: transport}, "bare", w.ca.Directory, "", key); err != nil {
		return nil, err
	}
	if _, err := b.core.Accounts.New(ctx, acme.Account{TermsOfServiceAgreed: true}); err != nil {
		return nil, err
	}
	w.answers(http.HandlerFunc(b.serve))
	return b, nil
}

// serve answers the CA.
func (b *bareClient) serve(w http.ResponseWriter, r *http.Request) {
	if value, ok := b.board.Load(strings.TrimPrefix(r.URL.Path, http01.Path)); ok {
		_, _ = fmt.Fprint(w, value)
		return
	}
	http.NotFound(w, r)
}

// all gets a certificate for each name, 64 at a time.
func (b *bareClient) all(ctx context.Context, names []string) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(inFlight)
	for _, name := range names {
		g.Go(func() error {
			if err := b.get(ctx, name); err != nil {
				return fmt.Errorf("bare order for %s: %w", name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// get makes a key and a request, orders, proves, polls, finalizes, polls and
// downloads, and asks once for renewal information, as RFC 9773 §4.3 has every
// client do.
func (b *bareClient) get(ctx context.Context, name string) error {
	request, err := issue.NewRequest([]string{name}, farm.EC256)
	if err != nil {
		return err
	}
	order, err := b.core.Orders.New(ctx, []string{name}, &api.OrderOptions{Profile: caProfile})
	if err != nil {
		return err
	}
	for _, u := range order.Authorizations {
		if err := b.prove(ctx, u); err != nil {
			return err
		}
	}
	at := order.Location
	if _, err = b.poll(ctx, at, acme.StatusReady, barePoll); err != nil {
		return err
	}
	if _, err = b.core.Orders.UpdateForCSR(ctx, order.Finalize, request.CSR); err != nil {
		return err
	}
	if order, err = b.poll(ctx, at, acme.StatusValid, retryAfter); err != nil {
		return err
	}
	got, err := b.core.Certificates.Get(ctx, order.Certificate, true)
	if err != nil {
		return err
	}
	return b.suggest(ctx, got.Cert)
}

func (b *bareClient) prove(ctx context.Context, u string) error {
	z, err := b.core.Authorizations.Get(ctx, u)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(z.Challenges, func(c acme.Challenge) bool { return c.Type == http01.Method })
	if i < 0 {
		return errors.New("no http-01 challenge")
	}
	value, err := b.core.GetKeyAuthorization(z.Challenges[i].Token)
	if err != nil {
		return err
	}
	b.board.Store(z.Challenges[i].Token, value)
	_, err = b.core.Challenges.New(ctx, z.Challenges[i].URL)
	return err
}

// poll waits, then asks, until the order has the status.
func (b *bareClient) poll(ctx context.Context, u, want string, every time.Duration) (acme.ExtendedOrder, error) {
	for range 30 {
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return acme.ExtendedOrder{}, ctx.Err()
		}
		order, err := b.core.Orders.Get(ctx, u)
		if err != nil || order.Status == want {
			return order, err
		}
	}
	return acme.ExtendedOrder{}, errors.New("the order is never " + want)
}

func (b *bareClient) suggest(ctx context.Context, chain []byte) error {
	block, _ := pem.Decode(chain)
	if block == nil {
		return errors.New("the certificate is not PEM")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	id, err := api.MakeARICertID(leaf)
	if err != nil {
		return err
	}
	_, err = b.core.Certificates.GetRenewalInfo(ctx, id)
	return err
}
