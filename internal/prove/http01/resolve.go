package http01

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// most is how many addresses of one name are asked.
const most = 16

// resolve finds the addresses of a host, IPv4 first, by the servers of its
// zone. It may return both addresses and an error, where one of the two
// families could not be asked for.
func (a Ask) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	servers := a.servers(host)
	if len(servers) == 0 {
		found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		return tidy(found), err
	}
	var found []netip.Addr
	var errs []error
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		some, err := lookup(ctx, servers, host, kind)
		found, errs = append(found, some...), append(errs, err)
	}
	return tidy(found), errors.Join(errs...)
}

// servers are those of the smallest zone that has the host.
func (a Ask) servers(host string) []string {
	best, servers := -1, a.Resolvers["."]
	for zone, of := range a.Resolvers {
		z := dns.Fqdn(zone)
		if z != "." && dns.IsSubDomain(z, dns.Fqdn(host)) && dns.CountLabel(z) > best {
			best, servers = dns.CountLabel(z), of
		}
	}
	return servers
}

// lookup asks the servers in turn, over TCP where the answer does not fit.
func lookup(ctx context.Context, servers []string, host string, kind uint16) ([]netip.Addr, error) {
	q := new(dns.Msg).SetQuestion(dns.Fqdn(host), kind)
	var errs []error
	for _, server := range servers {
		reply, _, err := new(dns.Client).ExchangeContext(ctx, q, server)
		if err == nil && reply.Truncated {
			reply, _, err = (&dns.Client{Net: "tcp"}).ExchangeContext(ctx, q, server)
		}
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("ask %s for %s of %s: %w", server, dns.TypeToString[kind], host, err))
		case reply.Rcode == dns.RcodeSuccess:
			return addresses(reply), nil
		case reply.Rcode == dns.RcodeNameError:
			return nil, fmt.Errorf("%s does not exist (NXDOMAIN from %s)", host, server)
		default:
			errs = append(errs, fmt.Errorf("%s answers %s for %s", server, dns.RcodeToString[reply.Rcode], host))
		}
	}
	return nil, errors.Join(errs...)
}

func addresses(reply *dns.Msg) (all []netip.Addr) {
	for _, r := range reply.Answer {
		var ip net.IP
		switch r := r.(type) {
		case *dns.A:
			ip = r.A
		case *dns.AAAA:
			ip = r.AAAA
		}
		if a, ok := netip.AddrFromSlice(ip); ok {
			all = append(all, a)
		}
	}
	return all
}

func tidy(found []netip.Addr) []netip.Addr {
	for i, a := range found {
		found[i] = a.Unmap()
	}
	slices.SortFunc(found, func(a, b netip.Addr) int {
		if a.Is4() != b.Is4() {
			return strings.Compare(kind(a), kind(b))
		}
		return a.Compare(b)
	})
	found = slices.Compact(found)
	return found[:min(len(found), most)]
}

func kind(a netip.Addr) string {
	if a.Is4() {
		return "4"
	}
	return "6"
}
