package issuetest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// DNS is a name server with the few names of a test or a lab: A and AAAA, over
// UDP and TCP on one loopback port. A name below "*.x" is answered as "*.x".
type DNS struct {
	Address string // host:port

	mu      sync.RWMutex
	records map[string][]netip.Addr
	servers []*dns.Server
	done    sync.WaitGroup
}

// StartDNS answers with the records until Close. Every name that is not among
// them does not exist (NXDOMAIN).
func StartDNS(records map[string][]netip.Addr) (*DNS, error) {
	d := &DNS{records: map[string][]netip.Addr{}}
	for name, addresses := range records {
		d.Set(name, addresses...)
	}
	tcp, udp, err := listenBoth()
	if err != nil {
		return nil, err
	}
	d.Address = tcp.Addr().String()
	d.servers = []*dns.Server{{Listener: tcp, Handler: d}, {PacketConn: udp, Handler: d}}
	for _, s := range d.servers {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		d.done.Go(func() { _ = s.ActivateAndServe() }) // an error only after Close
		<-started
	}
	return d, nil
}

// listenBoth finds a port that is free for TCP and for UDP.
func listenBoth() (net.Listener, net.PacketConn, error) {
	var errs []error
	for range 10 {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, nil, fmt.Errorf("listen for DNS over TCP: %w", err)
		}
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		if err == nil {
			return tcp, udp, nil
		}
		errs = append(errs, err, tcp.Close())
	}
	return nil, nil, fmt.Errorf("listen for DNS over UDP: %w", errors.Join(errs...))
}

// Set gives a name its addresses; none takes it away.
func (d *DNS) Set(name string, addresses ...netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := dns.CanonicalName(name)
	if len(addresses) == 0 {
		delete(d.records, key)
		return
	}
	d.records[key] = addresses
}

// Close stops the server.
func (d *DNS) Close() error {
	var errs []error
	for _, s := range d.servers {
		errs = append(errs, s.Shutdown())
	}
	d.done.Wait()
	return errors.Join(errs...)
}

// ServeDNS answers one question.
func (d *DNS) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	reply := new(dns.Msg).SetReply(q)
	reply.Authoritative = true
	for _, question := range q.Question {
		addresses, known := d.lookup(question.Name)
		if !known {
			reply.Rcode = dns.RcodeNameError
		}
		for _, a := range addresses {
			if r := record(question, a); r != nil {
				reply.Answer = append(reply.Answer, r)
			}
		}
	}
	_ = w.WriteMsg(reply) // whoever asked has gone: nobody to tell
}

func (d *DNS) lookup(name string) ([]netip.Addr, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	key := dns.CanonicalName(name)
	if a, ok := d.records[key]; ok {
		return a, true
	}
	_, parent, _ := strings.Cut(key, ".")
	a, ok := d.records["*."+parent]
	return a, ok
}

func record(q dns.Question, a netip.Addr) dns.RR {
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 1}
	switch {
	case q.Qtype == dns.TypeA && a.Is4():
		return &dns.A{Hdr: header, A: a.AsSlice()}
	case q.Qtype == dns.TypeAAAA && a.Is6():
		return &dns.AAAA{Hdr: header, AAAA: a.AsSlice()}
	}
	return nil
}
