package lookup

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// Limits of a zone's servers: real zones have up to 13, with two addresses each.
const (
	mostHosts   = 16
	mostServers = 48
)

// A Server is one address of a name server of a zone.
type Server struct {
	Host    string // as the NS record names it; empty: a resolver
	Address string // host:port; empty: none was found
	Err     error  // why none was found
}

// String names the server for people.
func (s Server) String() string {
	switch {
	case s.Host == "":
		return s.Address
	case s.Address == "":
		return s.Host
	}
	return s.Host + " (" + strings.TrimSuffix(s.Address, ":53") + ")"
}

// A Reply is what one server made of a question.
type Reply struct {
	Server Server
	Answer Answer
	Err    error
}

// Canonical is a name in lower case without its last dot; the root is empty.
func Canonical(name string) string {
	return strings.TrimSuffix(dns.CanonicalName(name), ".")
}

// Zone finds the zone that has a name: the smallest, so that a part that is
// delegated to other servers (NS) is a zone of its own. The name itself need not
// exist, but the zone must.
func (c Client) Zone(ctx context.Context, name string) (string, error) {
	for at := Canonical(name); at != ""; {
		// A resolver does not follow the answer to this question, so that what is
		// at the end of a CNAME is not taken for where it begins.
		a, err := c.Ask(ctx, Question{Name: at, Type: dns.TypeCNAME})
		if err != nil {
			return "", fmt.Errorf("find the zone of %s: %w", name, err)
		}
		zone := zoneIn(a, at)
		if zone == "" && a.Alias(at) == "" { // some resolvers leave out the authority section
			if a, err = c.Ask(ctx, Question{Name: at, Type: dns.TypeSOA}); err != nil {
				return "", fmt.Errorf("find the zone of %s: %w", name, err)
			}
			zone = zoneIn(a, at)
		}
		if zone != "" {
			return zone, nil
		}
		_, at, _ = strings.Cut(at, ".")
	}
	return "", fmt.Errorf("find the zone of %s: there is none in the DNS; register the domain, or name the servers that know it in farm.yaml: resolvers", name)
}

// zoneIn is the zone that an answer about a name tells of; empty: it does not.
func zoneIn(a Answer, at string) (zone string) {
	for _, r := range slices.Concat(a.Records, a.Referral) {
		soa, ok := r.(*dns.SOA)
		if !ok {
			continue
		}
		owner := Canonical(soa.Hdr.Name)
		if len(owner) <= len(zone) || !dns.IsSubDomain(dns.Fqdn(owner), dns.Fqdn(at)) || !IsName(owner) {
			continue
		}
		zone = owner
	}
	return zone
}

// Authorities are the name servers of a zone, each of their addresses by itself,
// in order. One whose address is not found is among them, with the reason. Where
// only resolvers are asked (Recursive), it is those.
func (c Client) Authorities(ctx context.Context, zone string) ([]Server, error) {
	if c.Recursive {
		return c.recursors(zone)
	}
	a, err := c.Ask(ctx, Question{Name: zone, Type: dns.TypeNS})
	if err != nil {
		return nil, fmt.Errorf("find the name servers of %s: %w", zone, err)
	}
	var hosts []string
	for _, r := range a.Records {
		if ns, ok := r.(*dns.NS); ok && Canonical(ns.Hdr.Name) == Canonical(zone) && IsName(Canonical(ns.Ns)) {
			hosts = append(hosts, Canonical(ns.Ns))
		}
	}
	slices.Sort(hosts)
	hosts = slices.Compact(hosts)
	if len(hosts) == 0 {
		return nil, fmt.Errorf("find the name servers of %s: %s knows of none; give the zone its NS records", zone, a.Server)
	}
	found := make([][]Server, min(len(hosts), mostHosts))
	var wg sync.WaitGroup
	for i := range found {
		wg.Go(func() { found[i] = c.addressesOf(ctx, hosts[i]) })
	}
	wg.Wait()
	return distinct(slices.Concat(found...)), nil
}

func (c Client) recursors(zone string) (all []Server, err error) {
	addresses, err := c.resolvers(zone)
	if err != nil {
		return nil, fmt.Errorf("find the resolvers of %s: %w", zone, err)
	}
	for _, a := range addresses {
		all = append(all, Server{Address: a})
	}
	return all, nil
}

func (c Client) addressesOf(ctx context.Context, host string) (all []Server) {
	addresses, err := c.Addresses(ctx, host)
	for _, a := range addresses {
		all = append(all, Server{Host: host, Address: net.JoinHostPort(a.String(), "53")})
	}
	if len(all) > 0 {
		return all
	}
	if err == nil {
		err = fmt.Errorf("%s has no address", host)
	}
	return []Server{{Host: host, Err: err}}
}

// distinct leaves out an address that is there under another name already.
func distinct(all []Server) []Server {
	seen := map[string]bool{}
	all = slices.DeleteFunc(all, func(s Server) bool {
		again := s.Address != "" && seen[s.Address]
		seen[s.Address] = true
		return again
	})
	return all[:min(len(all), mostServers)]
}

// Each puts a question to every server, at once, for what the server has itself
// (of a resolver: for what it finds). The replies are in the order of the servers.
func (c Client) Each(ctx context.Context, servers []Server, q Question) []Reply {
	replies := make([]Reply, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() { replies[i] = c.one(ctx, s, q) })
	}
	wg.Wait()
	return replies
}

func (c Client) one(ctx context.Context, s Server, q Question) Reply {
	if s.Address == "" {
		return Reply{Server: s, Err: s.Err}
	}
	q.Direct = s.Host != ""
	a, err := c.At(ctx, s.Address, q)
	return Reply{Server: s, Answer: a, Err: err}
}

// first is the first answer that one of the place's servers gives with authority,
// or that refers to a smaller zone: one that does not have the zone refers
// upwards, if at all.
func (c Client) first(ctx context.Context, p Place, q Question) (Answer, error) {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	replies := make(chan Reply, len(p.Servers))
	for _, s := range p.Servers {
		wg.Go(func() { replies <- c.one(ctx, s, q) })
	}
	var last error
	for range p.Servers {
		r := <-replies
		if r.Err == nil && (r.Answer.Authority || r.Server.Host == "" || below(r.Answer, q.Name, p.Zone) != p.Zone) {
			return r.Answer, nil
		}
		last = cmp.Or(r.Err, last)
	}
	return Answer{}, fmt.Errorf("no name server answers with authority: %w", cmp.Or(last, errLame))
}
