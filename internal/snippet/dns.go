package snippet

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// The labels before a name that a CA asks for TXT records.
const (
	challengeLabel = "_acme-challenge."     // RFC 8555 §8.4
	persistLabel   = "_validation-persist." // draft-ietf-acme-dns-persist
)

// A DNSAsk says which records are wanted. What is empty is left out.
type DNSAsk struct {
	Names    []string          // proven by DNS, wildcards too
	Pinned   []string          // with Pin: the names that get CAA records, however they are proven; empty: Names
	Zone     string            // what the controllers' own responder is authoritative for
	Servers  []NameServer      // the zone's: the controllers
	Delegate map[string]string // farm.yaml's rules: name or pattern to the record's full name
	Pin      Pin               // whose CAA and persistent records are printed
	Methods  []string          // with Pin: how the names are proven; for CAA (RFC 8657 §4)
	Persist  bool              // with Pin: the records of dns-persist-01
	Until    time.Time         // Persist: when such a record ends; zero: never
}

// A NameServer is a controller that answers for the zone.
type NameServer struct {
	Name      string
	Addresses []string // without them, no glue
}

// A Pin is who may issue.
type Pin struct {
	Issuer  string // the CA's name in CAA records, "letsencrypt.org" (the directory's caaIdentities)
	Account string // URL of the account (RFC 8657 §3); empty: any
}

// DNS writes the records that an operator sets, as lines of zone files: the
// CNAMEs that lead each name's challenge to the controllers' zone, the NS records
// and glue of that zone, the TXT records of dns-persist-01, and the CAA records
// that pin the CA, the account and the method.
func DNS(a DNSAsk) (Snippet, error) {
	if len(a.Names) == 0 && len(a.Pinned) == 0 {
		return Snippet{}, errors.New("records: there is no name")
	}
	var s Snippet
	for _, write := range []func(*Snippet) error{a.delegation, a.zone, a.persist, a.caa} {
		if err := write(&s); err != nil {
			return Snippet{}, fmt.Errorf("records: %w", err)
		}
	}
	if len(s.Parts) == 0 {
		return Snippet{}, errors.New("records: nothing to set: the names are neither delegated to the controllers' own responder nor pinned")
	}
	s.Notes = append(s.Notes, "Names end with a dot: they are full. Then ask for them as the world does: certfarm preflight.")
	return s, nil
}

// bases are names without "*.", each once: a wildcard and its base have one record
// (RFC 8555 §8.4).
func bases(names []string) (bases []string, err error) {
	for _, n := range names {
		base := strings.TrimPrefix(strings.ToLower(n), "*.")
		if _, isIP, err := checkHost(base); err != nil || isIP {
			return nil, fmt.Errorf("name %q is no host name in A-labels; addresses are proven over HTTP", n)
		}
		if !slices.Contains(bases, base) {
			bases = append(bases, base)
		}
	}
	return bases, nil
}

// labels also takes the underscores of service names.
var labels = regexp.MustCompile(`^([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)

func fullName(s string) (string, error) {
	s = strings.TrimSuffix(strings.ToLower(s), ".")
	if len(s) > 253 || !labels.MatchString(s) {
		return "", fmt.Errorf("%q is no name of at most 253 characters in A-labels", s)
	}
	return s, nil
}

// within reports that a name is a zone, or in it.
func within(name, zone string) bool { return name == zone || strings.HasSuffix(name, "."+zone) }

// delegation writes the CNAMEs.
func (a DNSAsk) delegation(s *Snippet) error {
	if a.Zone == "" && len(a.Delegate) == 0 {
		return nil
	}
	bases, err := bases(a.Names)
	if err != nil {
		return err
	}
	zone := ""
	if a.Zone != "" {
		if zone, err = fullName(a.Zone); err != nil {
			return fmt.Errorf("zone: %w", err)
		}
	}
	var t table
	for _, base := range bases {
		own := challengeLabel + base
		if a.Zone != "" && within(own, zone) {
			continue // its NS records lead there
		}
		to, err := a.target(base, zone)
		if err != nil {
			return fmt.Errorf("where the challenge of %s leads: %w; give a shorter one in `delegate`", base, err)
		}
		if to != "" {
			t.add(own, "CNAME", to+".")
		}
	}
	s.put("the zone of each name", t)
	return nil
}

// target is where the challenge of a name leads: as a rule says, else below the
// zone. Without either it stays where it is, and target is empty.
func (a DNSAsk) target(base, zone string) (string, error) {
	to, ok := a.rule(base)
	switch {
	case ok:
		return fullName(to)
	case zone == "":
		return "", nil
	}
	return fullName(base + "." + zone)
}

// rule is what farm.yaml says of a name: of the name itself, else of the longest
// pattern that takes it or its wildcard, since both have one record.
func (a DNSAsk) rule(base string) (to string, ok bool) {
	best := ""
	for pattern := range a.Delegate {
		if pattern == base {
			return a.Delegate[pattern], true
		}
		if takes := farm.Matches(pattern, base) || farm.Matches(pattern, "*."+base); takes && len(pattern) > len(best) {
			best = pattern
		}
	}
	return a.Delegate[best], best != ""
}

// zone writes what the parent of the responder's zone must have.
func (a DNSAsk) zone(s *Snippet) error {
	if a.Zone == "" {
		return nil
	}
	zone, err := fullName(a.Zone)
	if err != nil {
		return fmt.Errorf("zone: %w", err)
	}
	if len(a.Servers) == 0 {
		return errors.New("zone " + zone + " has no name servers; name the controllers that answer for it")
	}
	var parent, glue, elsewhere table
	for _, ns := range a.Servers {
		name, err := fullName(ns.Name)
		if err != nil {
			return fmt.Errorf("name server: %w", err)
		}
		parent.add(zone, "NS", name+".")
		to := &elsewhere
		if within(name, zone) {
			to = &glue
		}
		if to == &glue && len(ns.Addresses) == 0 {
			return fmt.Errorf("name server %s is in the zone %s itself and has no address: nobody could find it", name, zone)
		}
		if err := to.addresses(name, ns.Addresses); err != nil {
			return err
		}
	}
	parent.rows = append(parent.rows, glue.rows...)
	s.put("the zone above "+zone+" (addresses are glue, RFC 9471)", parent)
	s.put("the zone of the name servers, unless they are there", elsewhere)
	s.Notes = append(s.Notes, "Port 53 of the controllers must be open to the world, over UDP and TCP.")
	return nil
}

// addresses adds the A and AAAA records of a name server.
func (t *table) addresses(name string, all []string) error {
	for _, text := range all {
		ip, err := netip.ParseAddr(text)
		if err != nil || ip.Zone() != "" || ip.IsUnspecified() {
			return fmt.Errorf("address %q of name server %s is none", text, name)
		}
		kind := "A"
		if ip = ip.Unmap(); ip.Is6() {
			kind = "AAAA"
		}
		t.add(name, kind, ip.String())
	}
	return nil
}

// The alphabets of what stands in a quoted string of TXT and CAA.
var (
	accounts  = regexp.MustCompile(`^https?://[A-Za-z0-9._~:/?=&%+-]+$`)
	acmeWords = regexp.MustCompile(`^[a-z0-9-]+$`)
)

// check holds the pin to its alphabets.
func (p Pin) check() (issuer string, err error) {
	issuer, isIP, err := checkHost(strings.ToLower(p.Issuer))
	if err != nil || isIP {
		return "", fmt.Errorf("the CA's name in CAA, %q, is no host name; its directory says it (caaIdentities)", p.Issuer)
	}
	if p.Account != "" && !accounts.MatchString(p.Account) {
		return "", fmt.Errorf("account %q is no URL as a record can hold it", p.Account)
	}
	return issuer, nil
}

func (a DNSAsk) persist(s *Snippet) error {
	if !a.Persist {
		return nil
	}
	issuer, err := a.Pin.check()
	if err != nil {
		return err
	}
	if a.Pin.Account == "" {
		return errors.New("dns-persist-01 names the account, and there is none yet; it is known once the controller has opened it")
	}
	bases, err := bases(a.Names)
	if err != nil {
		return err
	}
	var t table
	for _, base := range bases {
		value := issuer + "; accounturi=" + a.Pin.Account
		if slices.ContainsFunc(a.Names, func(n string) bool { return strings.EqualFold(n, "*."+base) }) {
			value += "; policy=wildcard"
		}
		if !a.Until.IsZero() {
			value += "; persistUntil=" + strconv.FormatInt(a.Until.Unix(), 10)
		}
		t.add(persistLabel+base, "TXT", quoted(value))
	}
	s.put("the zone of each name, to stay (dns-persist-01)", t)
	s.Notes = append(s.Notes, "As long as a persistent record stands, whoever has the account's key can get certificates for its name.")
	return nil
}

// caa pins by the issue property, which holds for wildcards too where there is no
// issuewild (RFC 8659 §4.3). A name below another one of the list inherits it.
func (a DNSAsk) caa(s *Snippet) error {
	if a.Pin.Issuer == "" {
		return nil
	}
	issuer, err := a.Pin.check()
	if err != nil {
		return err
	}
	value := issuer
	if a.Pin.Account != "" {
		value += "; accounturi=" + a.Pin.Account
	}
	for _, m := range a.Methods {
		if !acmeWords.MatchString(m) {
			return fmt.Errorf("method %q is none", m)
		}
	}
	if len(a.Methods) > 0 {
		value += "; validationmethods=" + strings.Join(a.Methods, ",")
	}
	pinned := a.Pinned
	if len(pinned) == 0 {
		pinned = a.Names
	}
	pinned = slices.DeleteFunc(slices.Clone(pinned), func(n string) bool { // addresses have no CAA
		_, err := netip.ParseAddr(n)
		return err == nil
	})
	bases, err := bases(pinned)
	if err != nil {
		return err
	}
	var t table
	for _, base := range bases {
		if !slices.ContainsFunc(bases, func(above string) bool { return above != base && within(base, above) }) {
			t.add(base, "CAA", "0 issue "+quoted(value))
		}
	}
	s.put("the zone of each name, if only this CA, account and method shall issue (RFC 8659, RFC 8657)", t)
	s.Notes = append(s.Notes,
		"CAA forbids every other CA: first add a line for each one that issues for these names or below them. A name that is a CNAME can have no CAA record: set it where the CNAME leads, or above.",
		"With a new account the CAA record changes first, else nothing is issued.")
	return nil
}

// quoted is a string of a zone file, in pieces of at most 255 characters
// (RFC 1035 §3.3.14). Its alphabet has no quote and no backslash.
func quoted(value string) string {
	var pieces []string
	for piece := range slices.Chunk([]byte(value), 255) {
		pieces = append(pieces, `"`+string(piece)+`"`)
	}
	return strings.Join(pieces, " ")
}

// A table is records, shown in columns.
type table struct{ rows []row }

type row struct{ name, kind, data string }

func (t *table) add(name, kind, data string) {
	if r := (row{name, kind, data}); !slices.Contains(t.rows, r) {
		t.rows = append(t.rows, r)
	}
}

// ttl is how long the records may be kept, in seconds: an hour, so that a mistake
// is not there for a day.
const ttl = 3600

// put adds the table as a part, if there is anything in it.
func (s *Snippet) put(where string, t table) {
	if len(t.rows) == 0 {
		return
	}
	names, kinds := 0, 0
	for _, r := range t.rows {
		names, kinds = max(names, len(r.name)+1), max(kinds, len(r.kind))
	}
	var b strings.Builder
	for _, r := range t.rows {
		fmt.Fprintf(&b, "%-*s %d IN %-*s %s\n", names, r.name+".", ttl, kinds, r.kind, r.data)
	}
	s.Parts = append(s.Parts, Part{Where: where, Text: b.String()})
}
