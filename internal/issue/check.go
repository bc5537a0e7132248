package issue

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// What a chain may measure at most: far above any CA's, far below what hurts.
const (
	maxChainBytes = 256 << 10
	maxChainCerts = 16
)

// maxSkew is how far a CA's clock may be ahead of ours.
const maxSkew = 10 * time.Minute

// A Chain is what a CA returned, and what it must match before it is stored.
type Chain struct {
	PEM   []byte // leaf first
	CSR   []byte // DER of the request
	Names []string
	Roots string // PEM of the roots it must lead to; empty: the system's
	Now   time.Time
}

// Check says what is wrong with a chain: its leaf must have the request's key,
// exactly its names, valid dates and the right use; each certificate must be
// signed by the next; and the whole must lead to a root. A CA's answer is not
// trusted more than any other input (cert-manager #8414 looped on a wrong key).
func (c Chain) Check() error {
	certs, err := parseChain(c.PEM)
	if err != nil {
		return err
	}
	leaf := certs[0]
	for _, check := range []func(*x509.Certificate) error{c.key, c.names, c.dates, use} {
		if err := check(leaf); err != nil {
			return err
		}
	}
	if err := links(certs); err != nil {
		return err
	}
	return c.builds(certs)
}

func parseChain(text []byte) ([]*x509.Certificate, error) {
	if len(text) > maxChainBytes {
		return nil, fmt.Errorf("the chain has %d bytes, more than %d", len(text), maxChainBytes)
	}
	var certs []*x509.Certificate
	for rest := bytes.TrimSpace(text); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		// No text may stand between the certificates (RFC 8555 §9.1): a server
		// that reads the file may take it for something else.
		if !bytes.HasPrefix(rest, []byte("-----BEGIN CERTIFICATE-----")) {
			return nil, errors.New("the chain holds something else than PEM certificates")
		}
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			return nil, errors.New("the chain is broken or cut off")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of the chain cannot be read: %w", len(certs)+1, err)
		}
		if certs = append(certs, cert); len(certs) > maxChainCerts {
			return nil, fmt.Errorf("the chain has more than %d certificates", maxChainCerts)
		}
	}
	if len(certs) == 0 {
		return nil, errors.New("the chain is empty")
	}
	return certs, nil
}

func (c Chain) key(leaf *x509.Certificate) error {
	csr, err := x509.ParseCertificateRequest(c.CSR)
	if err != nil {
		return fmt.Errorf("read our own signing request: %w", err)
	}
	if !bytes.Equal(csr.RawSubjectPublicKeyInfo, leaf.RawSubjectPublicKeyInfo) {
		return errors.New("the certificate is for another key than the one we asked with")
	}
	return nil
}

func (c Chain) names(leaf *x509.Certificate) error {
	want, got := nameSet(c.Names), nameSet(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		got = append(got, ip.String())
	}
	slices.Sort(got)
	if !slices.Equal(want, got) {
		return fmt.Errorf("the certificate is for %s; we asked for %s", strings.Join(got, ", "), strings.Join(want, ", "))
	}
	return nil
}

func nameSet(names []string) []string {
	set := make([]string, 0, len(names))
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			n = ip.String()
		}
		set = append(set, strings.ToLower(n))
	}
	slices.Sort(set)
	return slices.Compact(set)
}

func (c Chain) dates(leaf *x509.Certificate) error {
	if leaf.NotBefore.After(c.Now.Add(maxSkew)) {
		return fmt.Errorf("the certificate is only valid from %s on; is this machine's clock right?", leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	if !leaf.NotAfter.After(c.Now) {
		return fmt.Errorf("the certificate expired at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// use admits what CAs put into certificates for servers: serverAuth, and
// clientAuth beside it as was usual until 2026.
func use(leaf *x509.Certificate) error {
	if leaf.IsCA {
		return errors.New("the certificate is one of a CA")
	}
	if !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) {
		return errors.New("the certificate is not for servers (no serverAuth in its extended key usage)")
	}
	for _, u := range leaf.ExtKeyUsage {
		if u != x509.ExtKeyUsageServerAuth && u != x509.ExtKeyUsageClientAuth {
			return fmt.Errorf("the certificate may be used for more than servers and clients (extended key usage %d)", u)
		}
	}
	if len(leaf.UnknownExtKeyUsage) > 0 {
		return fmt.Errorf("the certificate has the unknown extended key usage %s", leaf.UnknownExtKeyUsage[0])
	}
	return nil
}

// links demands the order in which TLS servers send a chain: each certificate
// is signed by the one after it, and none stands twice.
func links(certs []*x509.Certificate) error {
	for i, c := range certs {
		if slices.ContainsFunc(certs[:i], c.Equal) {
			return fmt.Errorf("certificate %d (%s) stands twice in the chain", i+1, c.Subject)
		}
		if i == 0 {
			continue
		}
		if err := certs[i-1].CheckSignatureFrom(c); err != nil {
			return fmt.Errorf("certificate %d of the chain (%s) did not sign the one before it: %w", i+1, c.Subject, err)
		}
	}
	return nil
}

func (c Chain) builds(certs []*x509.Certificate) error {
	options := x509.VerifyOptions{Intermediates: x509.NewCertPool(), CurrentTime: c.Now}
	// A leaf whose NotBefore lies a little ahead of our clock is no fault of the chain.
	if certs[0].NotBefore.After(c.Now) {
		options.CurrentTime = certs[0].NotBefore
	}
	if c.Roots != "" {
		options.Roots = x509.NewCertPool()
		if !options.Roots.AppendCertsFromPEM([]byte(c.Roots)) {
			return errors.New("the issuer's roots hold no PEM certificate")
		}
	}
	for _, cert := range certs[1:] {
		options.Intermediates.AddCert(cert)
	}
	if _, err := certs[0].Verify(options); err != nil {
		return fmt.Errorf("the chain leads to no trusted root: %w; if this is a private CA, put its root into the issuer's roots", err)
	}
	return nil
}

// CheckRequest says what is wrong with a signing request for an order of the
// names: a broken signature, or other names. CAs count the refusal of such a
// request, so it is found before it is sent.
func CheckRequest(csr []byte, names []string) error {
	r, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return fmt.Errorf("read the signing request: %w", err)
	}
	if err := r.CheckSignature(); err != nil {
		return fmt.Errorf("signature of the signing request: %w", err)
	}
	got := slices.Clone(r.DNSNames)
	for _, ip := range r.IPAddresses {
		got = append(got, ip.String())
	}
	if !slices.Equal(nameSet(got), nameSet(names)) {
		return fmt.Errorf("the signing request is for %s, the order for %s", strings.Join(got, ", "), strings.Join(names, ", "))
	}
	return nil
}
