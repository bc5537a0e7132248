package boulder

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// How long a CAA answer holds. Proofs are older when they are used again.
const caaLife = 7 * time.Hour

// finalize takes the signing request, once (RFC 8555 §7.4): its answer is always
// "processing", and every later request is refused, whatever became of the first.
func (c *CA) finalize(q *call) error {
	o, err := c.ownOrder(q)
	if err != nil {
		return err
	}
	if s := o.status(q.now); s != "ready" {
		return refuse(http.StatusForbidden, "orderNotReady", "Order's status (%q) is not acceptable for finalization", s)
	}
	var ask struct{ CSR string }
	if err := q.read(&ask); err != nil {
		return err
	}
	csr, err := readRequest(ask.CSR, o)
	if err != nil {
		return err
	}
	o.began, o.polls = true, c.o.SignPolls
	c.stats.Finalized[set(o.names)]++
	var recheck []look
	for _, z := range o.authzs {
		if q.now.Sub(z.proven) > caaLife {
			recheck = append(recheck, c.lookAt(z))
		}
	}
	err = c.showOrder(q, o)
	c.start(func() {
		failure := stillPermitted(c.ctx, recheck)
		c.mu.Lock()
		defer c.mu.Unlock()
		if o.err = failure; failure != nil {
			return
		}
		if err := c.issue(o, csr); err != nil {
			o.err = refuse(http.StatusInternalServerError, "serverInternal", "Error finalizing order :: %s", err)
		}
	})
	return err
}

func stillPermitted(ctx context.Context, all []look) *problem {
	for _, l := range all {
		ctx, cancel := context.WithTimeout(ctx, lookTime)
		p := l.caa(ctx)
		cancel()
		if p != nil {
			return p
		}
	}
	return nil
}

// readRequest refuses what is not a request for exactly the order's names. The
// order stays ready, as Boulder's does.
func readRequest(text string, o *order) (*x509.CertificateRequest, error) {
	der, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "malformed", "Error unmarshaling finalize order request")
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "malformed", "Error parsing certificate request: %s", err)
	}
	var asked []identifier
	for _, n := range csr.DNSNames {
		asked = append(asked, identifier{"dns", n})
	}
	for _, ip := range csr.IPAddresses {
		asked = append(asked, identifier{"ip", ip.String()})
	}
	if n := csr.Subject.CommonName; n != "" {
		kind := "dns"
		if net.ParseIP(n) != nil {
			kind = "ip"
		}
		asked = append(asked, identifier{kind, n})
	}
	names, err := normal(asked)
	if err != nil || set(names) != set(o.names) || csr.CheckSignature() != nil {
		return nil, refuse(http.StatusBadRequest, "badCSR", "Error finalizing order :: CSR does not specify same identifiers as Order, or is not signed by its key")
	}
	return csr, nil
}

// A cert is one that was issued.
type cert struct {
	serial    string // in hex
	leaf      *x509.Certificate
	chains    []string // PEM: the default, and the alternates
	by        *account
	names     []identifier
	issued    time.Time
	revoked   time.Time // zero: it is not
	reason    int       // of that
	window    *window   // suggested instead of the usual
	successor *order    // the last one that replaces it
}

// replaced reports that another order replaces it, or still may.
func (t *cert) replaced(now time.Time) bool {
	s := t.successor
	return s != nil && (s.cert != nil || (s.expires.After(now) && s.status(now) != "invalid"))
}

// issue signs. The caller holds the lock.
func (c *CA) issue(o *order, csr *x509.CertificateRequest) error {
	now := c.o.Now()
	profile := c.o.Profiles[cmp.Or(o.profile, c.o.Default)]
	from := now.Add(-time.Hour)
	template := &x509.Certificate{
		SerialNumber: serial(), NotBefore: from, NotAfter: from.Add(profile.Life - time.Second), BasicConstraintsValid: true,
		DNSNames: csr.DNSNames, IPAddresses: csr.IPAddresses,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if profile.CommonName {
		template.Subject = pkix.Name{CommonName: csr.Subject.CommonName}
	}
	with := c.keys[mrand.IntN(len(c.keys))]
	der, err := x509.CreateCertificate(rand.Reader, template, with.certs[0], csr.PublicKey, with.key)
	if err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	t := &cert{serial: leaf.SerialNumber.Text(16), leaf: leaf, by: o.by, names: o.names, issued: now}
	for _, above := range with.certs {
		t.chains = append(t.chains, encode(leaf, above))
	}
	o.cert = t
	c.certs[t.serial], c.issued[set(o.names)] = t, now
	c.stats.Certificates[set(o.names)]++
	c.spend(o, now)
	return nil
}

// issuedLately reports that the same names were issued in the last 120 days, by
// whomever.
func (c *CA) issuedLately(names []identifier, now time.Time) bool {
	last, ever := c.issued[set(names)]
	return ever && now.Sub(last) < 120*24*time.Hour
}

// certificate sends a chain, and says where the others are (RFC 8555 §7.4.2).
func (c *CA) certificate(q *call) error {
	id, other, _ := strings.Cut(q.id, "/")
	which := slices.Index([]string{"", "1"}, other)
	t := c.certs[id]
	if t == nil || which < 0 {
		return refuse(http.StatusNotFound, "malformed", "Certificate not found")
	}
	if t.by != q.by {
		return refuse(http.StatusForbidden, "unauthorized", "Account in use did not issue specified certificate")
	}
	for i, path := range []string{"", "/1"} {
		if i != which {
			q.w.Header().Add("Link", "<"+c.base+"/certZ/"+t.serial+path+`>;rel="alternate"`)
		}
	}
	q.w.Header().Set("Content-Type", "application/pem-certificate-chain")
	_, _ = q.w.Write([]byte(t.chains[which])) // whoever asked has gone: nobody to tell
	return nil
}
