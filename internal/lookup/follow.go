package lookup

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// errLame is of a server that is said to have a zone, and does not.
var errLame = errors.New("it does not have the zone")

// Astray is what an error wraps when CNAMEs were seen to lead nowhere: it is no
// trouble of a server or of the way to it.
var Astray = errors.New("the CNAMEs lead nowhere")

// mostAliases is how many CNAMEs are followed one after another. Unbound, which
// Let's Encrypt asks, follows 11 (max-query-restarts).
const mostAliases = 10

// A Place is where the records of a name are.
type Place struct {
	Path    []string // the name asked for, and what each CNAME leads to; the last is Name
	Name    string
	Zone    string
	Servers []Server // that have the zone
}

// Follow goes where the CNAMEs of a name lead, across zones, and finds who has
// the last name. With an error the place is as far as it came.
//
// It asks each zone's own servers, and the resolvers only where none of those
// answers: a resolver may remember what was there before, and if it is asked for a
// record that is still to be written, it remembers that there was none and tells
// so to a CA that asks it later (RFC 2308 §5).
func (c Client) Follow(ctx context.Context, name string) (Place, error) {
	p := Place{Name: Canonical(name)}
	if !IsName(p.Name) {
		return p, fmt.Errorf("%q is no name of a record", name)
	}
	for {
		p.Path = append(p.Path, p.Name)
		a, err := c.settle(ctx, &p)
		if err != nil {
			return p, p.lost(err)
		}
		next := a.Alias(p.Name)
		switch {
		case next == "":
			return p, nil
		case !IsName(next):
			return p, fmt.Errorf("%w: that of %s leads to %q, which is no name of a record; set it right", Astray, p.Name, next)
		case slices.Contains(p.Path, next):
			return p, fmt.Errorf("%w: those of %s go in a circle (%s → %s); let the last one end at a name that has none", Astray, p.Path[0], p.Trail(), next)
		case len(p.Path) > mostAliases:
			return p, fmt.Errorf("%w: those of %s are more than %d, which a CA need not follow (%s → %s); let the first one lead to the last name", Astray, p.Path[0], mostAliases, p.Trail(), next)
		}
		p.Name = next
	}
}

// settle finds the zone and the servers of the place's name, and brings back what
// they say to whether it has a CNAME.
func (c Client) settle(ctx context.Context, p *Place) (Answer, error) {
	q := Question{Name: p.Name, Type: dns.TypeCNAME}
	zone, err := c.near(ctx, p.Name)
	for err == nil {
		p.Zone = zone
		if p.Servers, err = c.Authorities(ctx, zone); err != nil {
			break
		}
		var a Answer
		if a, err = c.first(ctx, *p, q); err != nil && !c.Recursive {
			a, err = c.Ask(ctx, q)
		}
		if err != nil {
			return a, fmt.Errorf("look for a CNAME at %s: %w", p.Name, err)
		}
		if zone = below(a, p.Name, zone); zone == p.Zone {
			return a, nil
		}
	}
	return Answer{}, err
}

// near is a zone that has a name, or one above it, found without asking the
// resolvers for the name itself, if that can be.
func (c Client) near(ctx context.Context, name string) (string, error) {
	_, above, _ := strings.Cut(name, ".")
	if !c.Recursive && above != "" {
		if zone, err := c.Zone(ctx, above); err == nil {
			return zone, nil
		}
	}
	return c.Zone(ctx, name)
}

// below is the smaller zone that an answer from a zone tells of: by its SOA, or by
// referring to the servers to which a part is delegated (RFC 1034 §4.3.2). It is
// the zone itself where the answer tells of none.
func below(a Answer, name, zone string) string {
	best := zone
	if soa := zoneIn(a, name); len(soa) > len(best) {
		best = soa
	}
	for _, r := range a.Referral {
		if ns, ok := r.(*dns.NS); ok {
			if cut := Canonical(ns.Hdr.Name); len(cut) > len(best) && inside(name, cut) && IsName(cut) {
				best = cut
			}
		}
	}
	return best
}

// inside reports whether a name is a zone's own or below it.
func inside(name, zone string) bool { return name == zone || strings.HasSuffix(name, "."+zone) }

// Trail is the path for people.
func (p Place) Trail() string { return strings.Join(p.Path, " → ") }

// lost says on the way to what it happened.
func (p Place) lost(err error) error {
	if len(p.Path) < 2 {
		return err
	}
	return fmt.Errorf("follow the CNAMEs of %s (%s): %w", p.Path[0], p.Trail(), err)
}

// Alias is where an answer sends a name: by a CNAME of its own, or by a DNAME
// of a name above (RFC 6672 §2.2), which comes with a CNAME made for the name in
// most answers, but not in all. Empty: nowhere.
func (a Answer) Alias(name string) string {
	name = Canonical(name)
	for _, r := range a.Records {
		if r, ok := r.(*dns.CNAME); ok && Canonical(r.Hdr.Name) == name {
			return Canonical(r.Target)
		}
	}
	for _, r := range a.Records {
		if r, ok := r.(*dns.DNAME); ok {
			if before, below := strings.CutSuffix(name, "."+Canonical(r.Hdr.Name)); below {
				return before + "." + Canonical(r.Target)
			}
		}
	}
	return ""
}

// labels are what the names of records that we write, and of name servers, are
// made of. What a foreign zone says ends up in commands and URLs, so that nothing
// else is let in.
var labels = regexp.MustCompile(`^[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*$`)

// IsName reports whether a canonical name is one that a record of ours can have:
// letters, digits, "-" and "_".
func IsName(name string) bool { return len(name) <= 253 && labels.MatchString(name) }

// Texts are the TXT values at a name among records, each put together from its
// strings (RFC 7208 §3.3 says the same of SPF). Quotes, backslashes and what is
// not printable are escaped, as a zone file has them.
func Texts(records []dns.RR, name string) (values []string) {
	for _, r := range records {
		if txt, ok := r.(*dns.TXT); ok && Canonical(txt.Hdr.Name) == Canonical(name) {
			values = append(values, strings.Join(txt.Txt, ""))
		}
	}
	return values
}
