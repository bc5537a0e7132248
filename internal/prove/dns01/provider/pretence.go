package provider

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"

	legodns "github.com/go-acme/lego/v5/challenge/dns01"
	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/prove/dns01"
)

// A pretence is all that lego sees of DNS in a helper: a resolver that knows one
// record, its zone, and the CNAME that leads there. lego follows CNAMEs and looks
// for the zone by itself; what the record is has been decided already, by rules
// that lego does not know.
type pretence struct {
	mu     sync.Mutex
	record dns01.Record
}

// pretend starts the resolver, on a port of 127.0.0.1, and makes it lego's only
// one. It ends with the process.
func pretend(ctx context.Context) (*pretence, error) {
	var l net.ListenConfig
	conn, err := l.ListenPacket(ctx, "udp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("tell lego of the zone: %w", err)
	}
	p := &pretence{}
	ready := make(chan struct{})
	server := &dns.Server{PacketConn: conn, Handler: p, NotifyStartedFunc: func() { close(ready) }}
	failed := make(chan error, 1)
	go func() { failed <- server.ActivateAndServe() }() // until the process ends
	select {
	case <-ready:
	case err := <-failed:
		return nil, fmt.Errorf("tell lego of the zone: %w", err)
	}
	legodns.SetDefaultClient(legodns.NewClient(&legodns.Options{RecursiveNameservers: []string{conn.LocalAddr().String()}}))
	return p, nil
}

func (p *pretence) set(r dns01.Record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.record = r
}

// ServeDNS answers as far as the record goes, and otherwise that there is nothing.
func (p *pretence) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	if len(q.Question) == 1 {
		if rr := p.find(strings.ToLower(q.Question[0].Name), q.Question[0].Qtype); rr != nil {
			m.Answer = []dns.RR{rr}
		}
	}
	_ = w.WriteMsg(m) // lego asks again
}

func (p *pretence) find(name string, kind uint16) dns.RR {
	p.mu.Lock()
	defer p.mu.Unlock()
	head := dns.RR_Header{Name: name, Class: dns.ClassINET}
	target, zone := dns.Fqdn(p.record.Name), dns.Fqdn(p.record.Zone)
	switch {
	case name == dns01.Prefix+target && !strings.HasPrefix(target, dns01.Prefix):
		head.Rrtype = dns.TypeCNAME
		return &dns.CNAME{Hdr: head, Target: target}
	case name == zone && kind == dns.TypeSOA:
		head.Rrtype = dns.TypeSOA
		return &dns.SOA{Hdr: head, Ns: zone, Mbox: zone} // Refresh 0: lego must not keep it
	}
	return nil
}
