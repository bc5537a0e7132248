package outbound_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// rebound is the only name that a resolver of this test knows.
const rebound = "rebound.example.com"

// names is a resolver whose answer changes.
type names struct {
	address string // host:port

	mu      sync.Mutex
	answers []string // addresses of rebound: one for each question, the last for all that follow
}

// newNames starts a resolver, and has this process ask it alone until the test ends.
func newNames(t *testing.T) *names {
	t.Helper()
	n := &names{}
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.address = p.LocalAddr().String()
	ready := make(chan struct{})
	s := &dns.Server{PacketConn: p, Handler: dns.HandlerFunc(n.answer), NotifyStartedFunc: func() { close(ready) }}
	go func() { _ = s.ActivateAndServe() }() // it ends with the test
	<-ready
	was := net.DefaultResolver
	net.DefaultResolver = resolverAt(n.address)
	t.Cleanup(func() {
		net.DefaultResolver = was
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// resolverAt asks a server, whatever the machine's settings say.
func resolverAt(address string) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "udp", address)
	}}
}

// rebind says where the name leads from now on.
func (n *names) rebind(answers ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answers = answers
}

func (n *names) answer(w dns.ResponseWriter, asked *dns.Msg) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := new(dns.Msg).SetReply(asked)
	switch q := asked.Question[0]; {
	case q.Name != dns.Fqdn(rebound):
		m.Rcode = dns.RcodeNameError
	case q.Qtype == dns.TypeA && len(n.answers) > 0:
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET}, A: net.ParseIP(n.answers[0])}}
		n.answers = n.answers[min(1, len(n.answers)-1):]
	}
	_ = w.WriteMsg(m) // who asks asks again
}
