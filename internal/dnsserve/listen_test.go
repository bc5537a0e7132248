package dnsserve

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
)

func listen(t testing.TB, c Config) *Server {
	t.Helper()
	if c.Addresses == nil {
		c.Addresses = []string{"127.0.0.1:0"}
	}
	s, err := Listen(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func exchange(network, address string, m *dns.Msg) (*dns.Msg, error) {
	c := &dns.Client{Net: network, Timeout: 5 * time.Second}
	reply, _, err := c.Exchange(m, address)
	return reply, err
}

func TestListen(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	addresses := []string{"127.0.0.1:0", "127.0.0.2:0", "0.0.0.0:0"}
	if l, err := net.Listen("tcp", "[::1]:0"); err == nil {
		_ = l.Close()
		addresses = append(addresses, "[::1]:0")
	}
	s, err := Listen(t.Context(), Config{Source: world(), Addresses: addresses})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Addresses()) != len(addresses) {
		t.Errorf("addresses %v", s.Addresses())
	}
	for i, address := range s.Addresses() {
		if i == 2 { // any of this machine's: the answer must come from the one that was asked
			_, port, _ := net.SplitHostPort(address)
			address = net.JoinHostPort("127.0.0.3", port)
		}
		for _, network := range []string{"udp", "tcp"} {
			reply, err := exchange(network, address, ask("shop.auth.example.net.", dns.TypeTXT))
			if err != nil || len(reply.Answer) != 2 {
				t.Errorf("%s %s: %v, %v", network, address, reply, err)
			}
		}
	}
	if n, want := s.Stats(), uint64(2*len(addresses)); n.Queries != want || n.Answered != want {
		t.Errorf("%+v", n)
	}
	s.Close()
	s.Close() // may be repeated
	if _, err := exchange("tcp", s.Addresses()[0], ask("shop.auth.example.net.", dns.TypeTXT)); err == nil {
		t.Error("it answers after its end")
	}
}

func TestEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Listen(ctx, Config{Source: world(), Addresses: []string{"127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", s.Addresses()[0]) // an idle guest keeps nothing up
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cancel()
	s.Wait()
}

func TestAddressInUse(t *testing.T) {
	s := listen(t, Config{Source: world()})
	_, err := Listen(t.Context(), Config{Source: world(), Addresses: []string{"127.0.0.1:0", s.Addresses()[0]}})
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "another program") {
		t.Errorf("got %v", err)
	}
	for _, c := range []Config{{}, {Source: world()}, {Source: world(), Addresses: []string{"nonsense"}}} {
		if _, err := Listen(t.Context(), c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}

// slow answers when it is let.
type slow struct {
	*memory
	asked, let chan struct{}
}

func (s slow) Values(ctx context.Context, name string) ([]string, error) {
	s.asked <- struct{}{}
	<-s.let
	return s.memory.Values(ctx, name)
}

// A query that was taken before the end is answered.
func TestGracefulEnd(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		src := slow{world(), make(chan struct{}), make(chan struct{})}
		s := listen(t, Config{Source: src})
		var wg sync.WaitGroup
		wg.Go(func() {
			if reply, err := exchange(network, s.Addresses()[0], ask("shop.auth.example.net.", dns.TypeTXT)); err != nil || len(reply.Answer) != 2 {
				t.Errorf("%s: %v, %v", network, reply, err)
			}
		})
		<-src.asked
		wg.Go(s.Close)
		close(src.let)
		wg.Wait()
	}
}

// explodes panics, as a mistake would.
type explodes struct{ *memory }

func (explodes) Values(context.Context, string) ([]string, error) { panic("a mistake") }

func TestAPanicCostsTheQueryOnly(t *testing.T) {
	s := listen(t, Config{Source: explodes{world()}})
	if _, err := exchange("tcp", s.Addresses()[0], ask("shop.auth.example.net.", dns.TypeTXT)); err == nil {
		t.Error("there is an answer")
	}
	if _, err := exchange("udp", s.Addresses()[0], ask("auth.example.net.", dns.TypeSOA)); err != nil {
		t.Error(err)
	}
	if s.Stats().Failed != 1 {
		t.Errorf("%+v", s.Stats())
	}
}

func TestSeveralQueriesOnOneConnection(t *testing.T) {
	s := listen(t, Config{Source: world()})
	raw, err := net.Dial("tcp", s.Addresses()[0])
	if err != nil {
		t.Fatal(err)
	}
	conn := &dns.Conn{Conn: raw}
	defer conn.Close()
	for range 3 { // all at once (RFC 7766 §6.2.1.1)
		if err := conn.WriteMsg(ask("shop.auth.example.net.", dns.TypeTXT)); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		if reply, err := conn.ReadMsg(); err != nil || len(reply.Answer) != 2 {
			t.Fatalf("%v, %v", reply, err)
		}
	}
}

// One network cannot take all connections.
func TestConnectionsOfOneNetwork(t *testing.T) {
	s := listen(t, Config{Source: world()})
	for range maxOfNetwork {
		conn, err := net.Dial("tcp", s.Addresses()[0])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		// An answer shows that it was let in.
		if err := (&dns.Conn{Conn: conn}).WriteMsg(ask("auth.example.net.", dns.TypeSOA)); err != nil {
			t.Fatal(err)
		}
		if _, err := (&dns.Conn{Conn: conn}).ReadMsg(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := exchange("tcp", s.Addresses()[0], ask("auth.example.net.", dns.TypeSOA)); err == nil {
		t.Error("one more is let in")
	}
	if s.Stats().Turned != 1 {
		t.Errorf("%+v", s.Stats())
	}
}

// fakeConn comes from an address.
type fakeConn struct {
	net.Conn
	from   net.Addr
	closed bool
}

func (c *fakeConn) RemoteAddr() net.Addr { return c.from }
func (c *fakeConn) Close() error         { c.closed = true; return nil }

func TestTheIdleMakeRoom(t *testing.T) {
	all := newGuests(new(counters))
	var conns []*fakeConn
	var entered []*guest
	for i := range maxGuests {
		c := &fakeConn{from: &net.TCPAddr{IP: net.IPv4(198, byte(i/256), byte(i%256), 1), Port: 1}}
		conns, entered = append(conns, c), append(entered, all.enter(c))
	}
	all.silence(entered[0], time.Time{}) // it is being answered
	late := &fakeConn{from: &net.TCPAddr{IP: net.IPv4(203, 0, 113, 1), Port: 1}}
	if all.enter(late) == nil || conns[0].closed || !conns[1].closed {
		t.Errorf("who is silent longest did not make room (busy closed: %v)", conns[0].closed)
	}
	all.leave(entered[1])
	if len(all.open) != maxGuests {
		t.Errorf("%d are counted", len(all.open))
	}
	for _, g := range entered {
		all.silence(g, time.Time{})
	}
	for g := range all.open {
		all.silence(g, time.Time{})
	}
	if all.enter(&fakeConn{from: &net.TCPAddr{IP: net.IPv4(203, 0, 114, 1), Port: 1}}) != nil {
		t.Error("somebody busy had to go")
	}
}

func TestReadMessage(t *testing.T) {
	for in, want := range map[string]string{"\x00\x03abcd": "abc", "\x00\x00": "", "\xff\xffabc": "EOF", "\x00": "unexpected EOF"} {
		got, err := readMessage(strings.NewReader(in))
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			got = []byte(err.Error())
		}
		if string(got) != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
