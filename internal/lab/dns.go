package lab

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// DNS is the name server of the lab, over UDP and TCP on one port. It answers
// with authority for what it was given and says NXDOMAIN for the rest, and
// claims recursion, so that a resolver library takes it for a full resolver.
type DNS struct {
	addr    string
	servers []*dns.Server
	wg      sync.WaitGroup

	mu      sync.Mutex
	records map[question][]dns.RR
	asked   map[question]int
}

type question struct {
	name  string // canonical: lower case, with the last dot
	qtype uint16
}

// NewDNS starts a name server on 127.0.0.1 that has no records.
func NewDNS() (*DNS, error) {
	d := &DNS{records: map[question][]dns.RR{}, asked: map[question]int{}}
	tcp, udp, err := listenBoth()
	if err != nil {
		return nil, fmt.Errorf("start the lab's name server: %w", err)
	}
	d.addr = tcp.Addr().String()
	d.servers = []*dns.Server{{Listener: tcp, Handler: d}, {PacketConn: udp, Handler: d}}
	var up sync.WaitGroup
	for _, s := range d.servers {
		up.Add(1)
		s.NotifyStartedFunc = up.Done
		d.wg.Go(func() { _ = s.ActivateAndServe() }) // ends by Shutdown
	}
	up.Wait()
	return d, nil
}

// listenBoth finds a port that is free for both protocols.
func listenBoth() (net.Listener, net.PacketConn, error) {
	var lc net.ListenConfig
	var last error
	for range 20 {
		tcp, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, nil, err
		}
		udp, err := lc.ListenPacket(context.Background(), "udp", tcp.Addr().String())
		if err == nil {
			return tcp, udp, nil
		}
		last = err
		_ = tcp.Close()
	}
	return nil, nil, last
}

// Addr is host:port of the server.
func (d *DNS) Addr() string { return d.addr }

// Set makes addresses the whole answer for a name: A records for IPv4, AAAA
// for IPv6. No address makes it a name without address records (NODATA).
func (d *DNS) Set(name string, addresses ...string) error {
	var records []dns.RR
	for _, a := range addresses {
		kind := "A"
		if strings.Contains(a, ":") {
			kind = "AAAA"
		}
		rr, err := dns.NewRR(fmt.Sprintf("%s 0 IN %s %s", dns.Fqdn(name), kind, a))
		if err != nil {
			return fmt.Errorf("address %q of %s: %w", a, name, err)
		}
		records = append(records, rr)
	}
	d.put(name, dns.TypeA, records)
	d.put(name, dns.TypeAAAA, records)
	return nil
}

// SetRecords makes records, as a zone file writes them ("shop.test. 60 IN TXT
// hello"), the whole answer for a name and a type such as dns.TypeTXT.
func (d *DNS) SetRecords(name string, qtype uint16, records ...string) error {
	var rrs []dns.RR
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			return fmt.Errorf("record %q: %w", text, err)
		}
		if rr == nil || rr.Header().Rrtype != qtype {
			return fmt.Errorf("record %q is not of type %s", text, dns.TypeToString[qtype])
		}
		rrs = append(rrs, rr)
	}
	d.put(name, qtype, rrs)
	return nil
}

// put keeps those of the records that are of the type.
func (d *DNS) put(name string, qtype uint16, records []dns.RR) {
	var of []dns.RR
	for _, rr := range records {
		if rr.Header().Rrtype == qtype {
			of = append(of, rr)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.records[question{dns.CanonicalName(name), qtype}] = of
}

// Forget takes a name away, with all its records.
func (d *DNS) Forget(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for q := range d.records {
		if q.name == dns.CanonicalName(name) {
			delete(d.records, q)
		}
	}
}

// Asked counts the questions for a name and a type, answered or not.
func (d *DNS) Asked(name string, qtype uint16) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked[question{dns.CanonicalName(name), qtype}]
}

// ServeDNS answers one question. It is called by the servers.
func (d *DNS) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	m.Authoritative, m.RecursionAvailable = true, true
	if len(q.Question) != 1 || q.Question[0].Qclass != dns.ClassINET {
		m.Rcode = dns.RcodeNotImplemented
		_ = w.WriteMsg(m)
		return
	}
	d.answer(m, question{dns.CanonicalName(q.Question[0].Name), q.Question[0].Qtype})
	if w.LocalAddr().Network() == "udp" {
		size := dns.MinMsgSize
		if o := q.IsEdns0(); o != nil {
			size = max(size, int(o.UDPSize()))
			m.SetEdns0(o.UDPSize(), false)
		}
		m.Truncate(size)
	}
	_ = w.WriteMsg(m) // whoever asked has gone
}

func (d *DNS) answer(m *dns.Msg, q question) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked[q]++
	for _, rr := range d.records[q] {
		rr = dns.Copy(rr)
		rr.Header().Name = m.Question[0].Name // as it was asked: some resolvers mix the case
		m.Answer = append(m.Answer, rr)
	}
	if len(m.Answer) > 0 {
		return
	}
	if !d.exists(q.name) {
		m.Rcode = dns.RcodeNameError
	}
	m.Ns = []dns.RR{authority(q.name)} // RFC 2308 §2: how long "no" may be kept
}

// exists reports whether there is such a name, or one below it (RFC 8020: then
// it is no NXDOMAIN).
func (d *DNS) exists(name string) bool {
	for q := range d.records {
		if dns.IsSubDomain(name, q.name) {
			return true
		}
	}
	return false
}

// authority is the SOA of the zone: the top label, with nothing to be cached.
func authority(name string) dns.RR {
	zone := "."
	if labels := dns.SplitDomainName(name); len(labels) > 0 {
		zone = labels[len(labels)-1] + "."
	}
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: zone, Rrtype: dns.TypeSOA, Class: dns.ClassINET},
		Ns:  "ns." + strings.TrimPrefix(zone, "."), Mbox: "hostmaster." + strings.TrimPrefix(zone, "."), Serial: 1,
	}
}

// Close ends the server and waits for it.
func (d *DNS) Close() error {
	var first error
	for _, s := range d.servers {
		if err := s.Shutdown(); err != nil && first == nil {
			first = fmt.Errorf("end the lab's name server: %w", err)
		}
	}
	d.wg.Wait()
	return first
}
