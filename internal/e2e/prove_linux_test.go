package e2e

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/prove/http01"
	"github.com/certfarm/certfarm/internal/snippet"
)

// TestSnippets proves the rules of `certfarm snippet` by real orders through a
// balancer that takes the real web servers in turn, on port 80. The answers are
// put up by hand, so that nothing but the rules is tried.
func TestSnippets(t *testing.T) {
	if !inWorld(t) {
		return
	}
	w := newWorld(t)
	c := w.client(t)
	for _, at := range []string{"nodes", "balancer"} {
		for _, via := range snippet.Vias() {
			if at == "balancer" && via == farm.Distribute {
				continue // it serves no files
			}
			t.Run(at+" "+via, func(t *testing.T) {
				w.serveAll(t, at == "balancer", via, c.thumbprint)
				leaf := c.order(t, via)
				if !slices.Equal(leaf.DNSNames, siteNames) {
					t.Errorf("the certificate is for %v", leaf.DNSNames)
				}
			})
		}
	}
}

// TestWrongRule: with a rule that is wrong on one node alone the order fails. So
// the orders of TestSnippets do ask every node.
func TestWrongRule(t *testing.T) {
	if !inWorld(t) {
		return
	}
	w := newWorld(t)
	c := w.client(t)
	for i, wrong := range w.webs {
		t.Run(wrong.name+" "+wrong.kind, func(t *testing.T) {
			via := []string{farm.Gateway, farm.Redirect, farm.Stateless, farm.Distribute}[i]
			w.serveAll(t, false, via, c.thumbprint)
			wrong.run(t, snippet.Snippet{})
			var problem *acme.AuthorizationError
			if _, err := c.try(t, via); !errors.As(err, &problem) {
				t.Fatalf("%s has no rule, and the order ended so: %v", wrong.name, err)
			}
		})
	}
}

// A client is an ACME client as small as can be.
type acmeClient struct {
	*acme.Client
	world      *world
	thumbprint string
}

func (w *world) client(t *testing.T) *acmeClient {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	thumbprint, err := acme.JWKThumbprint(key.Public())
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(w.ca.ListenRoots))
	c := &acmeClient{world: w, thumbprint: thumbprint, Client: &acme.Client{
		Key: key, DirectoryURL: w.ca.Directory,
		HTTPClient: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}},
	}}
	_, err = c.Register(t.Context(), &acme.Account{}, acme.AcceptTOS)
	must(t, err)
	return c
}

// order gets a certificate.
func (c *acmeClient) order(t *testing.T, via string) *x509.Certificate {
	t.Helper()
	leaf, err := c.try(t, via)
	must(t, err)
	return leaf
}

func (c *acmeClient) try(t *testing.T, via string) (*x509.Certificate, error) {
	t.Helper()
	ctx, cancel := timeout(t, 30*time.Second)
	defer cancel()
	order, err := c.AuthorizeOrder(ctx, acme.DomainIDs(siteNames...))
	if err != nil {
		return nil, err
	}
	if err := c.authorize(ctx, t, via, order.AuthzURLs); err != nil {
		return nil, err
	}
	uri := order.URI
	order, err = c.WaitOrder(ctx, uri)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: siteNames}, crypto.Signer(key))
	must(t, err)
	// The library goes by the Location of the answer to finalize, which RFC 8555
	// §7.4 does not ask for: so the order is asked for by its own URL.
	_, _, finalized := c.CreateOrderCert(ctx, order.FinalizeURL, csr, false)
	order, err = c.WaitOrder(ctx, uri)
	if err != nil || order.CertURL == "" {
		return nil, errors.Join(err, finalized)
	}
	chain, err := c.FetchCert(ctx, order.CertURL, false)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(chain[0])
}

// authorize proves the names: it puts the answers up, and lets the CA ask.
func (c *acmeClient) authorize(ctx context.Context, t *testing.T, via string, urls []string) error {
	answers := map[string]string{} // by token
	var challenges []*acme.Challenge
	for _, url := range urls {
		authz, err := c.GetAuthorization(ctx, url)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(authz.Challenges, func(ch *acme.Challenge) bool { return ch.Type == http01.Method })
		if i < 0 {
			return fmt.Errorf("no %s challenge for %s", http01.Method, authz.Identifier.Value)
		}
		challenges = append(challenges, authz.Challenges[i])
		answers[authz.Challenges[i].Token] = authz.Challenges[i].Token + "." + c.thumbprint
	}
	c.world.publish(t, via, answers)
	defer c.world.hooks.set(nil)
	for i, challenge := range challenges {
		if _, err := c.Accept(ctx, challenge); err != nil {
			// A request that was sent again finds that the CA has looked already.
			if z, lookErr := c.GetAuthorization(ctx, urls[i]); lookErr != nil || z.Status != acme.StatusValid {
				return err
			}
		}
	}
	for _, url := range urls {
		if _, err := c.WaitAuthorization(ctx, url); err != nil {
			return err
		}
	}
	return nil
}
