package dnsserve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
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

// BenchmarkBesideKnot asks this server and Knot for the same record of the same
// zone, with the same clients, in one run.
func BenchmarkBesideKnot(b *testing.B) {
	s := listen(b, Config{Source: world(), Rate: 1 << 30})
	b.Run("certfarm", func(b *testing.B) { hammer(b, s.Addresses()[0]) })
	b.Run("knot", func(b *testing.B) { hammer(b, knot(b)) })
}

func hammer(b *testing.B, address string) {
	packet, err := ask("shop.auth.example.net.", dns.TypeTXT).Pack()
	if err != nil {
		b.Fatal(err)
	}
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		conn, err := net.Dial("udp", address)
		if err != nil {
			b.Error(err)
			return
		}
		defer conn.Close()
		answer := make([]byte, 4096)
		for pb.Next() {
			_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err := conn.Write(packet); err != nil {
				b.Error(err)
				return
			}
			if n, err := conn.Read(answer); err != nil || n < 2*headerSize || answer[7] != 2 {
				b.Errorf("%d bytes, %v", n, err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "queries/s")
}

// knot runs Knot DNS with the same zone.
func knot(b *testing.B) (address string) {
	b.Helper()
	path, err := exec.LookPath("knotd")
	if err != nil {
		b.Skip("knotd is not installed")
	}
	folder := b.TempDir()
	free, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	address = free.LocalAddr().String()
	if err := free.Close(); err != nil {
		b.Fatal(err)
	}
	zoneFile := filepath.Join(folder, "zone")
	write(b, zoneFile, "$ORIGIN auth.example.net.\n@ 300 SOA ns1 hostmaster 1 3600 600 604800 5\n@ 300 NS ns1\nns1 300 A 192.0.2.1\nshop 5 TXT \"one\"\nshop 5 TXT \"two\"\n")
	conf := filepath.Join(folder, "knot.conf")
	write(b, conf, fmt.Sprintf("server:\n    rundir: %[1]s\n    listen: %[2]s\ndatabase:\n    storage: %[1]s\nzone:\n  - domain: auth.example.net\n    file: %[3]s\n", folder, strings.Replace(address, ":", "@", 1), zoneFile))
	cmd := exec.CommandContext(b.Context(), path, "-c", conf)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for end := time.Now().Add(10 * time.Second); ; {
		if reply, err := exchange("tcp", address, ask("shop.auth.example.net.", dns.TypeTXT)); err == nil && len(reply.Answer) == 2 {
			return address
		}
		if time.Now().After(end) {
			b.Fatal("knotd does not answer")
		}
		<-time.After(20 * time.Millisecond)
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
