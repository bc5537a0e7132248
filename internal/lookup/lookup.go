// Package lookup asks DNS: the resolvers that farm.yaml names for a zone, the
// system's where it names none, or one name server alone.
//
// Its invariant: an answer is what one server said, whole; a server that cannot
// answer (SERVFAIL, REFUSED, silence) is an error and never "there is nothing".
package lookup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// A Client asks DNS. The zero value asks the system's resolvers.
type Client struct {
	Resolvers map[string][]string // zone ("." for the rest) to servers, host:port
	Timeout   time.Duration       // of one question to one server, each time it is asked; 0: 5 s
	Tries     int                 // questions to one server that stays silent over UDP; 0: 2
	// Recursive asks the resolvers alone, also where a zone's own name servers would
	// be asked: for a machine that cannot reach those, port 53 being closed.
	Recursive bool
	// Dial opens the connections; nil: directly from this machine.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// An Answer is what a server said to one question.
type Answer struct {
	Server    string // host:port that answered
	Rcode     int    // NOERROR or NXDOMAIN (RFC 1035 §4.1.1)
	Authority bool   // the server has the zone itself (AA)
	Authentic bool   // a validating resolver vouches for it (AD, RFC 4035 §3.2.3)
	Records   []dns.RR
	Referral  []dns.RR // the authority section: where to ask, or the SOA of what is not there
	Extra     []dns.RR // the additional section: glue
}

// Exists reports that the name is there, with or without records of the type.
func (a Answer) Exists() bool { return a.Rcode == dns.RcodeSuccess }

// A Failure is a server that answered, and not the question.
type Failure struct {
	Server, Name, Type string
	Rcode              int
}

// Error says who answered what.
func (f *Failure) Error() string {
	return fmt.Sprintf("%s answers %s for %s %s", f.Server, dns.RcodeToString[f.Rcode], f.Name, f.Type)
}

// A Question is a name, a type, and how to ask.
type Question struct {
	Name      string // with or without the last dot
	Type      uint16 // dns.TypeTXT …
	Unchecked bool   // take it without DNSSEC validation (CD, RFC 4035 §3.2.2)
	Direct    bool   // ask for what the server has itself: no recursion
}

// Ask puts a question to the resolvers of the name's zone in turn, until one
// answers. Where there are none it asks those of the system.
func (c Client) Ask(ctx context.Context, q Question) (Answer, error) {
	servers, err := c.resolvers(q.Name)
	if err != nil {
		return Answer{}, fmt.Errorf("look up %s %s: %w", q.Name, dns.TypeToString[q.Type], err)
	}
	var errs []error
	for _, server := range servers {
		a, err := c.At(ctx, server, q)
		if err == nil {
			return a, nil
		}
		errs = append(errs, err)
	}
	return Answer{}, errors.Join(errs...)
}

// At puts a question to one server, host:port: over UDP, and over TCP where the
// answer does not fit. An error is a *Failure where the server answered, and is
// NoWay where this machine has no route to it.
func (c Client) At(ctx context.Context, server string, q Question) (Answer, error) {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(q.Name), q.Type)
	m.RecursionDesired, m.CheckingDisabled, m.AuthenticatedData = !q.Direct, q.Unchecked, !q.Direct
	m.SetEdns0(1232, false)
	reply, err := c.converse(ctx, server, m)
	if err == nil && reply.Rcode == dns.RcodeFormatError && reply.IsEdns0() == nil {
		m.Extra = nil // it is from before EDNS (RFC 6891 §7)
		reply, err = c.converse(ctx, server, m)
	}
	what := dns.TypeToString[q.Type]
	if err != nil {
		return Answer{}, fmt.Errorf("ask %s for %s %s: %w", server, q.Name, what, err)
	}
	if reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError {
		return Answer{}, &Failure{Server: server, Name: q.Name, Type: what, Rcode: reply.Rcode}
	}
	return Answer{
		Server: server, Rcode: reply.Rcode, Authority: reply.Authoritative, Authentic: reply.AuthenticatedData,
		Records: reply.Answer, Referral: reply.Ns, Extra: reply.Extra,
	}, nil
}

// converse brings back the whole reply to a message.
func (c Client) converse(ctx context.Context, server string, m *dns.Msg) (reply *dns.Msg, err error) {
	for range cmp.Or(c.Tries, 2) {
		if reply, err = c.exchange(ctx, "udp", server, m); err == nil || ctx.Err() != nil || errors.Is(err, NoWay) {
			break
		}
	}
	if err != nil || !reply.Truncated {
		return reply, err
	}
	if reply, err = c.exchange(ctx, "tcp", server, m); err == nil && reply.Truncated {
		err = errors.New("its answer is cut short, over TCP too")
	}
	return reply, err
}

// NoWay is the error of a question that could not even be sent: this machine has
// no route to the server, as to an IPv6 address where there is no IPv6.
var NoWay = errors.New("there is no way to it from this machine")

func (c Client) exchange(parent context.Context, network, server string, m *dns.Msg) (*dns.Msg, error) {
	patience := cmp.Or(c.Timeout, 5*time.Second)
	ctx, cancel := context.WithTimeout(parent, patience)
	defer cancel()
	dial := c.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	raw, err := dial(ctx, network, server)
	switch {
	case err != nil && network == "udp" && ctx.Err() == nil: // UDP connects without sending
		return nil, fmt.Errorf("%w (%w)", NoWay, err)
	case err != nil:
		return nil, err
	}
	conn := &dns.Conn{Conn: raw}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(parent, func() { _ = raw.Close() })() // dns looks at deadlines only
	reply, _, err := (&dns.Client{Timeout: patience}).ExchangeWithConnContext(ctx, m, conn)
	switch {
	case parent.Err() != nil:
		return nil, context.Cause(parent)
	case err != nil:
		return nil, err
	case !answers(reply, m):
		return nil, errors.New("its answer is to another question")
	}
	return reply, nil
}

// answers reports whether a reply is to this message. Only one that cannot be
// answered may leave the question out.
func answers(reply, m *dns.Msg) bool {
	if !reply.Response || reply.Opcode != m.Opcode {
		return false
	}
	if len(reply.Question) == 0 {
		return reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError
	}
	got, want := reply.Question[0], m.Question[0]
	return len(reply.Question) == 1 && got.Qtype == want.Qtype && got.Qclass == want.Qclass &&
		dns.CanonicalName(got.Name) == dns.CanonicalName(want.Name)
}

// most is how many addresses of one name are used.
const most = 16

// Addresses finds the addresses of a host, IPv4 first; an address is its own. It
// may return both addresses and an error, where one of the two families could
// not be asked for. A name that does not exist is an error.
func (c Client) Addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	if len(c.Servers(host)) == 0 && c.Dial == nil {
		found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		return tidy(found), err
	}
	var found []netip.Addr
	var errs []error
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		a, err := c.Ask(ctx, Question{Name: host, Type: kind})
		if err == nil && !a.Exists() {
			return nil, fmt.Errorf("%s does not exist (NXDOMAIN from %s)", host, a.Server)
		}
		found, errs = append(found, addresses(a.Records)...), append(errs, err)
	}
	return tidy(found), errors.Join(errs...)
}

// Servers are those of the smallest zone in Resolvers that has the name; none where
// the system is asked.
func (c Client) Servers(name string) []string {
	best, servers := -1, c.Resolvers["."]
	for zone, of := range c.Resolvers {
		z := dns.Fqdn(zone)
		if z != "." && dns.IsSubDomain(z, dns.Fqdn(name)) && dns.CountLabel(z) > best {
			best, servers = dns.CountLabel(z), of
		}
	}
	return servers
}

// resolvers are the servers, or the system's where none are named.
func (c Client) resolvers(name string) ([]string, error) {
	if servers := c.Servers(name); len(servers) > 0 {
		return servers, nil
	}
	return systemServers()
}

// systemServers are those that the machine itself asks.
func systemServers() ([]string, error) {
	conf, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil {
		return nil, fmt.Errorf("the system's DNS servers are not known (%w); name them in farm.yaml: resolvers", err)
	}
	var all []string
	for _, s := range conf.Servers {
		all = append(all, net.JoinHostPort(s, conf.Port))
	}
	return all, nil
}

func addresses(records []dns.RR) (all []netip.Addr) {
	for _, r := range records {
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
			return map[bool]int{true: -1, false: 1}[a.Is4()]
		}
		return a.Compare(b)
	})
	found = slices.Compact(found)
	return found[:min(len(found), most)]
}
