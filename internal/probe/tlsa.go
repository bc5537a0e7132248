package probe

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/miekg/dns"
)

// A Record is a TLSA record (RFC 6698 §2.1): what DNS says a server's
// certificate must be.
type Record struct {
	Usage    uint8  // 0 PKIX-TA, 1 PKIX-EE, 2 DANE-TA, 3 DANE-EE (RFC 7218 §2.1)
	Selector uint8  // 0 the whole certificate, 1 its public key
	Matching uint8  // 0 all of it, 1 SHA-256, 2 SHA-512
	Data     []byte // the association
	Secure   bool   // the resolver says that DNSSEC vouches for it; clients heed no others
}

// TLSA asks the resolvers (host:port, in turn until one answers) for the TLSA
// records of a port and name. No records is no error. An error says that nobody
// answered, or that the answer was SERVFAIL, which DNSSEC gives for a forgery.
func TLSA(ctx context.Context, resolvers []string, port int, name string) ([]Record, error) {
	owner, err := dns.TLSAName(dns.Fqdn(name), strconv.Itoa(port), "tcp")
	if err != nil {
		return nil, fmt.Errorf("TLSA records of %s port %d: %w", name, port, err)
	}
	m := new(dns.Msg).SetQuestion(owner, dns.TypeTLSA)
	m.SetEdns0(1232, true) // fits every path unfragmented (DNS flag day 2020)
	m.AuthenticatedData = true
	failed := errors.New("no resolver is known")
	for _, server := range resolvers {
		answer, err := exchange(ctx, m, server)
		if err == nil {
			return records(answer), nil
		}
		failed = fmt.Errorf("%s: %w", server, err)
	}
	return nil, fmt.Errorf("TLSA records at %s: %w", owner, failed)
}

func exchange(ctx context.Context, m *dns.Msg, server string) (*dns.Msg, error) {
	answer, _, err := (&dns.Client{}).ExchangeContext(ctx, m, server)
	if err == nil && answer.Truncated {
		answer, _, err = (&dns.Client{Net: "tcp"}).ExchangeContext(ctx, m, server)
	}
	if err != nil {
		return nil, err
	}
	if answer.Rcode != dns.RcodeSuccess && answer.Rcode != dns.RcodeNameError {
		return nil, fmt.Errorf("answered %s", dns.RcodeToString[answer.Rcode])
	}
	return answer, nil
}

func records(answer *dns.Msg) (all []Record) {
	for _, rr := range answer.Answer {
		t, ok := rr.(*dns.TLSA)
		if !ok { // an alias on the way, or a signature
			continue
		}
		data, err := hex.DecodeString(t.Certificate)
		if err != nil {
			continue // miekg/dns wrote the hex itself
		}
		all = append(all, Record{t.Usage, t.Selector, t.MatchingType, data, answer.AuthenticatedData})
	}
	return all
}

// Matches reports whether a client that heeds the records accepts the chain
// (PEM, leaf first): one usable record fits (RFC 7671 §4). Records of usage 1
// and 3 are held against the leaf, of 0 and 2 against what stands above it. For
// 0 and 1 the chain must be trusted as well, which a Sight says. Without usable
// records (RFC 6698 §4.1) every chain is accepted. Whether a record is Secure is
// for the caller to ask: one that is not yet signed is no reason to disregard it
// before a rollout.
func Matches(records []Record, chain []byte) (bool, error) {
	certs, err := parseChain(chain)
	if err != nil {
		return false, err
	}
	path := climb(certs)
	usable := false
	for _, r := range records {
		if !r.usable() {
			continue
		}
		usable = true
		switch {
		case r.Usage == 1 || r.Usage == 3:
			if r.is(certs[0]) {
				return true, nil
			}
		case r.above(path):
			return true, nil
		}
	}
	return !usable, nil
}

func parseChain(text []byte) (certs []*x509.Certificate, err error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse certificate %d of the chain: %w", len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("the chain holds no certificate in PEM")
	}
	return certs, nil
}

func (r Record) usable() bool {
	length := map[uint8]int{1: sha256.Size, 2: sha512.Size}[r.Matching]
	return r.Usage <= 3 && r.Selector <= 1 && r.Matching <= 2 &&
		len(r.Data) > 0 && (length == 0 || length == len(r.Data))
}

// is reports that the record describes the certificate.
func (r Record) is(c *x509.Certificate) bool {
	data := c.Raw
	if r.Selector == 1 {
		data = c.RawSubjectPublicKeyInfo
	}
	switch r.Matching {
	case 1:
		sum := sha256.Sum256(data)
		data = sum[:]
	case 2:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return bytes.Equal(data, r.Data)
}

// above reports that the record describes a certificate above the leaf. A root
// that is given whole in DNS need not be served (RFC 7671 §5.2.2).
func (r Record) above(path []*x509.Certificate) bool {
	if slices.ContainsFunc(path[1:], r.is) {
		return true
	}
	if r.Selector != 0 || r.Matching != 0 {
		return false
	}
	anchor, err := x509.ParseCertificate(r.Data)
	return err == nil && path[len(path)-1].CheckSignatureFrom(anchor) == nil
}
