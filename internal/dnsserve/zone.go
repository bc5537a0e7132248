package dnsserve

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// stable is the TTL of what changes only with the farm: NS, addresses, CAA.
const stable = 300

// maxTTL is the longest that a zone may have its values kept.
const maxTTL = time.Hour

// A zone is a Zone in records. Its names are canonical: in lower case, with the
// last dot.
type zone struct {
	name    string
	broken  bool // it cannot be served
	ttl     uint32
	soa     *dns.SOA
	records map[string][]dns.RR // all but TXT
	inner   map[string]bool     // names that exist whatever the source has
	glue    []dns.RR            // addresses of the servers that lie in it
}

// A tree is all zones by their name.
type tree map[string]*zone

// plant makes the tree. A zone that is wrong is broken: it is ours, so it is not
// refused, but nothing can be said about it.
func plant(zones []Zone) tree {
	t := tree{}
	for _, z := range zones {
		name := dns.CanonicalName(z.Name)
		if err := z.Check(); err != nil {
			t[name] = &zone{name: name, broken: true}
			continue
		}
		t[name] = newZone(z)
	}
	for name := range t { // a zone exists in the one that it lies in
		if outer := t.above(name); outer != nil && !outer.broken {
			outer.mark(name)
		}
	}
	return t
}

// find is the smallest zone that a canonical name lies in; nil: none of ours. The
// DS records of a zone belong to the one above (RFC 4035 §3.1.4.1).
func (t tree) find(name string, kind uint16) *zone {
	if kind == dns.TypeDS && t[name] != nil {
		if outer := t.above(name); outer != nil {
			return outer
		}
	}
	if z := t[name]; z != nil {
		return z
	}
	return t.above(name)
}

// above is the smallest zone that a name lies in without being its apex.
func (t tree) above(name string) *zone {
	for at, end := dns.NextLabel(name, 0); !end; at, end = dns.NextLabel(name, at) {
		if z := t[name[at:]]; z != nil {
			return z
		}
	}
	return nil
}

func newZone(z Zone) *zone {
	out := &zone{name: dns.CanonicalName(z.Name), ttl: uint32(z.ttl() / time.Second), records: map[string][]dns.RR{}, inner: map[string]bool{}}
	out.soa = &dns.SOA{
		Hdr: out.header(out.name, dns.TypeSOA, out.ttl), Ns: dns.CanonicalName(z.Servers[0].Host), Mbox: mailbox(z),
		// There are no transfers, and all servers read one store: a serial that
		// changed would say nothing, and might differ between them.
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 7 * 86400, Minttl: out.ttl,
	}
	out.add(out.soa)
	for _, c := range z.CAA {
		out.add(&dns.CAA{Hdr: out.header(out.name, dns.TypeCAA, stable), Flag: c.Flag, Tag: c.Tag, Value: c.Value})
	}
	for _, s := range z.Servers {
		host := dns.CanonicalName(s.Host)
		out.add(&dns.NS{Hdr: out.header(out.name, dns.TypeNS, stable), Ns: host})
		if !dns.IsSubDomain(out.name, host) {
			continue // its addresses are for another zone to say
		}
		for _, a := range s.Addresses {
			rr := out.address(host, a.Unmap())
			out.add(rr)
			out.glue = append(out.glue, rr)
		}
	}
	return out
}

func (z *zone) header(name string, kind uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
}

func (z *zone) address(host string, a netip.Addr) dns.RR {
	if a.Is4() {
		return &dns.A{Hdr: z.header(host, dns.TypeA, stable), A: a.AsSlice()}
	}
	return &dns.AAAA{Hdr: z.header(host, dns.TypeAAAA, stable), AAAA: a.AsSlice()}
}

func (z *zone) add(rr dns.RR) {
	name := rr.Header().Name
	z.records[name] = append(z.records[name], rr)
	z.mark(name)
}

// mark notes that a name exists, and so all between it and the apex: they are
// empty, but not nothing (RFC 8020 §2).
func (z *zone) mark(name string) {
	for at, end := 0, false; !end && dns.IsSubDomain(z.name, name[at:]); at, end = dns.NextLabel(name, at) {
		z.inner[name[at:]] = true
	}
}

// of are the zone's own records of a type at a name.
func (z *zone) of(name string, kind uint16) (found []dns.RR) {
	for _, rr := range z.records[name] {
		if rr.Header().Rrtype == kind {
			found = append(found, rr)
		}
	}
	return found
}

func (z Zone) ttl() time.Duration {
	if z.TTL == 0 {
		return DefaultTTL
	}
	return z.TTL
}

// mailbox is the contact as a name: what is before the @ is one label (RFC 1035
// §8).
func mailbox(z Zone) string {
	local, domain, isMail := strings.Cut(z.Contact, "@")
	if !isMail {
		local, domain = "hostmaster", z.Name
	}
	return strings.ReplaceAll(local, ".", `\.`) + "." + dns.CanonicalName(domain)
}

// A ZoneError is what keeps a zone from being served.
type ZoneError struct {
	Field   string // name, servers, servers[0].host, servers[0].addresses, contact, caa[0] or ttl
	Problem string
}

// Error says where the mistake is, and which.
func (e *ZoneError) Error() string { return "zone: " + e.Field + ": " + e.Problem }

// Check says what keeps the zone from being served; such an error is a *ZoneError.
func (z Zone) Check() error {
	if problem := wrongName(z.Name); problem != "" {
		return &ZoneError{"name", problem}
	}
	if len(z.Servers) == 0 {
		return &ZoneError{"servers", "there is none"}
	}
	for i, s := range z.Servers {
		if err := z.checkServer(fmt.Sprintf("servers[%d].", i), s); err != nil {
			return err
		}
	}
	if err := z.checkContact(); err != nil {
		return err
	}
	if t := z.ttl(); t < time.Second || t > maxTTL || t%time.Second != 0 {
		return &ZoneError{"ttl", fmt.Sprintf("%s is not between 1 s and %s, in whole seconds", t, maxTTL)}
	}
	for i, c := range z.CAA {
		if err := c.check(fmt.Sprintf("caa[%d]", i)); err != nil {
			return err
		}
	}
	return nil
}

// check holds RFC 8659 §4.1.
func (c CAA) check(field string) error {
	if c.Tag == "" || len(c.Tag) > 255 || strings.ContainsFunc(c.Tag, notAlphanumeric) {
		return &ZoneError{field, fmt.Sprintf("%q is no tag of a CAA record", c.Tag)}
	}
	if len(c.Value) > 1024 {
		return &ZoneError{field, "the value is longer than 1024 bytes"}
	}
	return nil
}

func (z Zone) checkServer(field string, s NameServer) error {
	if problem := wrongName(s.Host); problem != "" {
		return &ZoneError{field + "host", problem}
	}
	if len(s.Addresses) == 0 && dns.IsSubDomain(dns.CanonicalName(z.Name), dns.CanonicalName(s.Host)) {
		return &ZoneError{field + "addresses", s.Host + " lies in its own zone, so nobody else can tell its address: it is needed here"}
	}
	for _, a := range s.Addresses {
		if !a.IsValid() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
			return &ZoneError{field + "addresses", a.String() + " is no address of a server"}
		}
	}
	return nil
}

func (z Zone) checkContact() error {
	if z.Contact == "" {
		return nil
	}
	local, domain, isMail := strings.Cut(z.Contact, "@")
	odd := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`\"()@;$`, r) }
	_, fits := dns.IsDomainName(mailbox(z))
	if !isMail || local == "" || len(local) > 63 || strings.ContainsFunc(local, odd) || wrongName(domain) != "" || !fits {
		return &ZoneError{"contact", fmt.Sprintf("%q is no mail address that fits a zone", z.Contact)}
	}
	return nil
}

// wrongName takes names of letters, digits, hyphens and underscores only: no more
// is needed, and nothing of it has to be escaped.
func wrongName(name string) (problem string) {
	odd := func(r rune) bool { return r != '-' && r != '_' && r != '.' && notAlphanumeric(r) }
	if _, ok := dns.IsDomainName(name); !ok || name == "" || strings.HasSuffix(name, ".") || strings.ContainsFunc(name, odd) {
		return fmt.Sprintf("%q is no name", name)
	}
	return ""
}

func notAlphanumeric(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
}

// Strings are the character-strings of a TXT record with this value, 255 bytes at
// most each (RFC 1035 §3.3.14), escaped as package dns wants them.
func Strings(value string) []string {
	const most = 255
	parts := []string{}
	for len(value) > most {
		parts, value = append(parts, escape(value[:most])), value[most:]
	}
	return append(parts, escape(value))
}

func escape(s string) string { return strings.ReplaceAll(s, `\`, `\\`) }
