package probe

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// distrust says why a client would not accept the chain, or nothing if it would.
// Only what was served counts (RFC 8446 §4.4.2: the server sends all but the
// root): a browser may know a missing intermediate from elsewhere, most clients
// do not. With the system's roots Windows and macOS judge by themselves, and may
// fetch one; private roots are judged alike everywhere.
func (a *asker) distrust(served []*x509.Certificate, names []string) string {
	leaf, now := served[0], a.now
	switch {
	case now.Before(leaf.NotBefore):
		return "not valid before " + leaf.NotBefore.UTC().Format(time.RFC3339)
	case now.After(leaf.NotAfter):
		return "expired at " + leaf.NotAfter.UTC().Format(time.RFC3339)
	}
	if err := a.memory.leads(served, a.q.Roots, now, func() error { return a.verify(served) }); err != nil {
		return brokenChain(served, err, now)
	}
	var uncovered []string
	for _, name := range names {
		if leaf.VerifyHostname(name) != nil {
			uncovered = append(uncovered, name)
		}
	}
	if len(uncovered) > 0 {
		return "wrong name: it does not cover " + strings.Join(uncovered, ", ")
	}
	return ""
}

// verify follows the chain to the roots.
func (a *asker) verify(served []*x509.Certificate) error {
	between := x509.NewCertPool()
	for _, c := range served[1:] {
		between.AddCert(c)
	}
	_, err := served[0].Verify(x509.VerifyOptions{
		Roots:         a.roots,
		Intermediates: between,
		CurrentTime:   a.now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return err
}

// brokenChain says where the way from the leaf to a root ends.
func brokenChain(served []*x509.Certificate, err error, now time.Time) string {
	path := climb(served)
	top := path[len(path)-1]
	for _, c := range path[1:] {
		if now.After(c.NotAfter) {
			return fmt.Sprintf("wrong chain: %q expired at %s", c.Subject, c.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); !unknown {
		return "wrong chain: " + err.Error()
	}
	switch {
	case selfIssued(top) && len(path) == 1:
		return "self-signed"
	case selfIssued(top):
		return fmt.Sprintf("unknown authority: the chain ends at the root %q, which is not trusted", top.Subject)
	case len(path) == 1:
		return fmt.Sprintf("missing intermediate: %q, which signed the leaf, was not served and is no trusted root", top.Issuer)
	}
	return fmt.Sprintf("missing intermediate or unknown authority: %q, which signed the last certificate served, is no trusted root", top.Issuer)
}

// climb follows the signatures from the leaf upwards through what was served, in
// whatever order that came.
func climb(served []*x509.Certificate) []*x509.Certificate {
	path := []*x509.Certificate{served[0]}
	for !selfIssued(path[len(path)-1]) {
		at := path[len(path)-1]
		next := slices.IndexFunc(served, func(c *x509.Certificate) bool {
			return !slices.Contains(path, c) && bytes.Equal(c.RawSubject, at.RawIssuer) && at.CheckSignatureFrom(c) == nil
		})
		if next < 0 {
			break
		}
		path = append(path, served[next])
	}
	return path
}

// selfIssued goes by the names alone: a placeholder's key usage would make its
// own signature fail to verify.
func selfIssued(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, c.RawIssuer) }
