package dns01

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lookup"
)

// A Place is where the TXT record of a name is.
type Place struct {
	Rule    string   // the pattern of the delegation rule that says so; empty: none does
	Path    []string // from _acme-challenge.NAME over what each CNAME leads to; the last is Name
	Name    string   // of the record
	Zone    string   // that has it
	Servers []lookup.Server
}

// Where finds the place of the record of a name, which stands without "*.". The
// most specific rule of delegate that takes the name, or its wildcard, says where
// to begin; then CNAMEs are followed. With an error the place is as far as it came.
func Where(ctx context.Context, c lookup.Client, delegate map[string]string, name string) (Place, error) {
	name = lookup.Canonical(name)
	if _, err := netip.ParseAddr(name); err == nil {
		return Place{}, fmt.Errorf("%s is an address, which no DNS record proves; prove it over HTTP", name)
	}
	own := Prefix + name
	from, rule := own, ""
	if pattern, ok := ruleFor(delegate, name); ok {
		from, rule = delegate[pattern], pattern
	}
	at, err := c.Follow(ctx, from)
	p := Place{Rule: rule, Path: at.Path, Name: at.Name, Zone: at.Zone, Servers: at.Servers}
	if rule != "" && at.Name != own && !slices.Contains(at.Path, own) {
		p.Path = append([]string{own}, at.Path...)
	}
	return p, err
}

// ruleFor is the pattern of the most specific rule for a name: the name itself,
// or else the longest. A rule for the name's wildcard counts too, since both are
// proven by one record.
func ruleFor(delegate map[string]string, name string) (pattern string, ok bool) {
	for p := range delegate {
		takes := farm.Matches(p, name) || farm.Matches(p, "*."+name)
		if takes && (!ok || moreSpecific(p, pattern, name)) {
			pattern, ok = p, true
		}
	}
	return pattern, ok
}

func moreSpecific(p, than, name string) bool {
	if p == name || than == name {
		return p == name
	}
	return len(p) > len(than) // two of one length that take one name are the same
}

// errNoChallenge is of what a CA should not have sent.
var errNoChallenge = errors.New("it is no dns-01 challenge with a token and the TXT value made from it")
