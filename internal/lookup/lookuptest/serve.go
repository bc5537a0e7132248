package lookuptest

import (
	"context"
	"net"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// serve starts a server at an IP, if there is none.
func (w *World) serve(ip string) {
	w.t.Helper()
	w.mu.Lock()
	_, there := w.servers[ip]
	w.mu.Unlock()
	if there {
		return
	}
	tcp, udp := w.listen()
	w.mu.Lock()
	w.servers[ip] = &server{zones: map[string]bool{}, at: tcp.Addr().String()}
	w.mu.Unlock()
	answer := dns.HandlerFunc(func(out dns.ResponseWriter, q *dns.Msg) {
		if reply := w.reply(ip, q); reply != nil {
			if out.LocalAddr().Network() == "udp" {
				reply.Truncate(size(q))
			}
			_ = out.WriteMsg(reply) // whoever asked has gone
		}
	})
	var wg sync.WaitGroup
	for _, s := range []*dns.Server{{Listener: tcp, Handler: answer}, {PacketConn: udp, Handler: answer}} {
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		wg.Go(func() { _ = s.ActivateAndServe() }) // ends by Shutdown
		<-up
		w.t.Cleanup(func() { _ = s.Shutdown() })
	}
	w.t.Cleanup(func() {
		_, _ = tcp.Close(), udp.Close()
		wg.Wait()
	})
}

func size(q *dns.Msg) int {
	if o := q.IsEdns0(); o != nil {
		return max(dns.MinMsgSize, int(o.UDPSize()))
	}
	return dns.MinMsgSize
}

func (w *World) listen() (net.Listener, net.PacketConn) {
	w.t.Helper()
	var lc net.ListenConfig
	for range 20 {
		tcp, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			w.t.Fatal(err)
		}
		udp, err := lc.ListenPacket(context.Background(), "udp", tcp.Addr().String())
		if err == nil {
			return tcp, udp
		}
		_ = tcp.Close()
	}
	w.t.Fatal("no port is free for both TCP and UDP")
	return nil, nil
}

func (w *World) reply(ip string, q *dns.Msg) *dns.Msg {
	w.mu.Lock()
	s := w.servers[ip]
	s.asked = append(s.asked, q.Question[0].Name+" "+dns.TypeToString[q.Question[0].Qtype])
	if own := s.answer; own != nil {
		w.mu.Unlock()
		return own(q) // not under the lock: it may ask the world
	}
	defer w.mu.Unlock()
	m := new(dns.Msg).SetReply(q)
	zones := w.zones
	if s.then != nil {
		zones = s.then
	}
	recursive := ip == "192.0.2.53"
	switch s.fault {
	case Silent:
		return nil
	case Failing:
		m.Rcode = dns.RcodeServerFailure
	case Refusing:
		m.Rcode = dns.RcodeRefused
	case Lame:
		m.Ns = []dns.RR{&dns.NS{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeNS, Class: dns.ClassINET}, Ns: "a.root-servers.net."}}
	case Hijacked:
		recursive = true
		fallthrough
	default:
		if recursive {
			m.RecursionAvailable = true
			resolve(m, zones)
		} else {
			authoritative(m, zones, s.zones)
		}
	}
	return m
}

// resolve answers from all zones and follows CNAMEs.
func resolve(m *dns.Msg, zones map[string]records) {
	q := m.Question[0]
	for range 12 {
		zone := smallest(q.Name, func(z string) bool { return zones[z] != nil })
		if zone == "" {
			m.Rcode = dns.RcodeNameError
			return
		}
		at := len(m.Answer)
		find(m, zones[zone], zone, q)
		next := ""
		for _, r := range m.Answer[at:] {
			if c, ok := r.(*dns.CNAME); ok && q.Qtype != dns.TypeCNAME {
				next = c.Target
			}
		}
		if next == "" {
			return
		}
		m.Rcode, m.Ns, q.Name = dns.RcodeSuccess, nil, next
	}
	m.Rcode = dns.RcodeServerFailure // a circle
}

// authoritative answers from the zones that the server has.
func authoritative(m *dns.Msg, zones map[string]records, own map[string]bool) {
	q := m.Question[0]
	zone := smallest(q.Name, func(z string) bool { return own[z] && zones[z] != nil })
	if zone == "" {
		m.Rcode = dns.RcodeRefused
		return
	}
	if cut := smallest(q.Name, func(z string) bool { return zones[z] != nil }); cut != zone {
		m.Ns = of(zones[cut], cut, dns.TypeNS) // delegated to others
		return
	}
	m.Authoritative = true
	find(m, zones[zone], zone, q)
}

// find puts what a zone has of a question into the answer.
func find(m *dns.Msg, zone records, apex string, q dns.Question) {
	name := dns.CanonicalName(q.Name)
	if found := of(zone, name, q.Qtype); len(found) > 0 {
		m.Answer = append(m.Answer, found...)
		return
	}
	if c := of(zone, name, dns.TypeCNAME); len(c) > 0 {
		m.Answer = append(m.Answer, c...)
		return
	}
	for above := name; above != ""; _, above, _ = strings.Cut(above, ".") {
		if d := of(zone, above, dns.TypeDNAME); len(d) > 0 && above != name {
			m.Answer = append(m.Answer, d[0]) // without the CNAME made from it, which old servers leave out
			return
		}
	}
	m.Rcode = dns.RcodeNameError
	for n := range zone {
		if dns.IsSubDomain(name, n) {
			m.Rcode = dns.RcodeSuccess
		}
	}
	m.Ns = append(m.Ns, of(zone, apex, dns.TypeSOA)...)
}

func of(zone records, name string, kind uint16) (found []dns.RR) {
	for _, r := range zone[name] {
		if r.Header().Rrtype == kind {
			found = append(found, r)
		}
	}
	return found
}

// smallest is the zone that has a name, among those that count; empty: none.
func smallest(name string, counts func(zone string) bool) string {
	for z := dns.CanonicalName(name); z != ""; _, z, _ = strings.Cut(z, ".") {
		if counts(z) {
			return z
		}
	}
	return ""
}
