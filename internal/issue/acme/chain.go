package acme

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
)

// chain fetches the default chain, or the first other one that leads to the
// preferred root. Where none does the default is taken: a chain that works is
// better than none.
func (s *step) chain(ctx context.Context) ([]byte, error) {
	first, alternates, err := s.fetch(ctx, s.o.CertURL)
	if err != nil {
		return nil, err
	}
	preferred := s.a.c.Issuer.PreferredChain
	if preferred == "" || leadsTo(first, preferred) {
		return first, nil
	}
	for _, u := range alternates {
		chain, _, err := s.fetch(ctx, u)
		if err != nil {
			return nil, err
		}
		if leadsTo(chain, preferred) {
			return chain, nil
		}
	}
	return first, nil
}

func (s *step) fetch(ctx context.Context, u string) (chain []byte, alternates []string, err error) {
	ctx, x := watch(ctx, "certificate")
	got, err := s.core.Certificates.Get(ctx, u, true)
	if err != nil {
		return nil, nil, s.again("download the certificate", err, x)
	}
	return got.Cert, x.alternates, nil
}

// leadsTo reports that the top of a chain is, or was issued by, a CA of that
// common name.
func leadsTo(chain []byte, name string) bool {
	var top *x509.Certificate
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return false
		}
		top = cert
	}
	return top != nil && (top.Issuer.CommonName == name || top.Subject.CommonName == name)
}

// parseLeaf reads a certificate, PEM or DER; of a chain the first.
func parseLeaf(leaf []byte) (*x509.Certificate, error) {
	if block, _ := pem.Decode(leaf); block != nil {
		leaf = block.Bytes
	}
	cert, err := x509.ParseCertificate(leaf)
	if err != nil {
		return nil, errors.New("the certificate cannot be read")
	}
	return cert, nil
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
