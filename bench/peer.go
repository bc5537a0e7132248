package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/probe"
	"github.com/certfarm/certfarm/internal/store"
)

// A signer is a CA for certificates that are imported.
type signer struct {
	issuer *x509.Certificate
	key    *ecdsa.PrivateKey
}

// A peer deploys by itself what a CA of its own signs.
type peer struct {
	signer
	test   *rolloutTest
	site   farm.Site
	places []farm.Place
}

func newSigner() (s signer, err error) {
	if s.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return s, err
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, s.key.Public(), s.key)
	if err != nil {
		return s, err
	}
	s.issuer, err = x509.ParseCertificate(der)
	return s, err
}

// sign makes a key and a certificate for the names.
func (s signer) sign(names []string) (b farm.Bundle, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return b, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: names, NotBefore: s.issuer.NotBefore, NotAfter: s.issuer.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, s.issuer, key.Public(), s.key)
	if err != nil {
		return b, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	return farm.Bundle{
		Leaf: farm.Fingerprint(der), KeyType: farm.EC256, Names: names,
		Chain: append(certificate(der), certificate(s.issuer.Raw)...),
		Key:   farm.NewSecret(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
	}, err
}

// trustFile names the file with the system's roots to crypto/x509. An imported
// certificate is judged by these.
const trustFile = "SSL_CERT_FILE"

// newPeer makes a CA that this process trusts. Nothing may have been verified
// against the system's roots before.
func newPeer(t *rolloutTest, dir string) (*peer, error) {
	p := &peer{test: t}
	var err error
	if p.signer, err = newSigner(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	roots := filepath.Join(dir, "roots.pem")
	if err := os.WriteFile(roots, certificate(p.issuer.Raw), 0o600); err != nil {
		return nil, err
	}
	return p, os.Setenv(trustFile, roots)
}

// meet learns of the lab's site and its targets.
func (p *peer) meet(ctx context.Context) error {
	t := p.test
	return t.config.Store.View(ctx, func(tx *store.Tx) (err error) {
		if p.site, err = tx.Site(ctx, t.lab.Farm, t.lab.Site); err != nil {
			return err
		}
		p.places, err = tx.Places(ctx, t.lab.Farm, t.lab.Site)
		return err
	})
}

// A delivery is one certificate on its way to the nodes.
type delivery struct {
	*peer
	bundle farm.Bundle
	leaf   farm.Leaf
	epoch  int64
}

// fresh signs a new certificate.
func (p *peer) fresh() (delivery, error) {
	d := delivery{peer: p, epoch: time.Now().UnixMilli()}
	var err error
	if d.bundle, err = p.sign(p.site.Names); err != nil {
		return d, err
	}
	d.leaf, err = encode.Facts(d.bundle.Chain)
	return d, err
}

func certificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// deploy uploads, reloads and sees by handshakes that the node serves it.
func (d delivery) deploy(ctx context.Context, p farm.Place) error {
	line := d.test.hosts.line(p.Target.Node)
	if line == nil {
		return fmt.Errorf("no line to %s", p.Target.Node)
	}
	target, err := d.test.config.Kinds.Open(p.Target.Kind, p.Target.Options, deploy.Setup{Host: line})
	if err != nil {
		return err
	}
	r, err := target.Stage(ctx, deploy.Stage{Site: d.site.Name, Names: d.site.Names, Bundles: []farm.Bundle{d.bundle}, Epoch: d.epoch})
	if err != nil {
		return err
	}
	if err := target.Activate(ctx, []deploy.Receipt{r}); err != nil {
		return err
	}
	for _, e := range p.Target.Endpoints {
		if err := d.served(ctx, e); err != nil {
			return err
		}
	}
	in, err := target.Inspect(ctx)
	if err == nil && (len(in.Leaves) != 1 || in.Leaves[0] != d.leaf.Fingerprint) {
		err = errors.New("another leaf is installed")
	}
	return err
}

// samples is how many handshakes the controller makes with an endpoint.
const samples = 3

// served makes handshakes until they show the new certificate.
func (d delivery) served(ctx context.Context, e farm.Endpoint) error {
	q := probe.Question{Endpoint: e, KeyTypes: []farm.KeyType{farm.EC256}, Names: d.site.Names, Samples: samples}
	for {
		sight, err := d.test.config.Prober.Probe(ctx, q)
		if err != nil {
			return err
		}
		ok, _, why := probe.Judge([]farm.Leaf{d.leaf}, sight, time.Now())
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", why, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
