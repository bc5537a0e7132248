package lookup_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/lookup"
)

// wire is a connection whose other end answers each question, in memory. It
// frames messages as TCP does, which package dns takes from what is no
// net.PacketConn.
type wire struct {
	net.Conn // none of its other methods is called
	in, out  bytes.Buffer
	answer   func(q []byte) []byte
}

func (w *wire) Write(b []byte) (int, error) {
	w.in.Write(b)
	if q := w.in.Bytes(); len(q) > 2 && len(q) >= 2+int(binary.BigEndian.Uint16(q)) {
		reply := w.answer(q[2:])
		reply = reply[:min(len(reply), 65535)]
		_ = binary.Write(&w.out, binary.BigEndian, uint16(len(reply)))
		w.out.Write(reply)
		w.in.Reset()
	}
	return len(b), nil
}

func (w *wire) Read(b []byte) (int, error)       { return w.out.Read(b) }
func (w *wire) Close() error                     { return nil }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

func wired(answer func(q []byte) []byte) lookup.Client {
	return lookup.Client{
		Resolvers: map[string][]string{".": {"192.0.2.53:53"}}, Tries: 1, Timeout: time.Minute,
		Dial: func(context.Context, string, string) (net.Conn, error) { return &wire{answer: answer}, nil },
	}
}

// FuzzAnswer: whatever bytes come back, it is an answer or an error.
func FuzzAnswer(f *testing.F) {
	seed := func(m *dns.Msg) {
		if text, err := m.Pack(); err == nil {
			f.Add(text[2:], true)
		}
	}
	q := new(dns.Msg).SetQuestion("_acme-challenge.farm.test.", dns.TypeCNAME)
	for _, line := range []string{"_acme-challenge.farm.test. 1 IN CNAME x.test.", "farm.test. 1 IN DNAME test.", "farm.test. 1 IN SOA a. b. 1 1 1 1 1", "farm.test. 1 IN NS ns.test.", `_acme-challenge.farm.test. 1 IN TXT "a" "b"`, "farm.test. 1 IN AAAA ::1"} {
		rr, err := dns.NewRR(line)
		if err != nil {
			f.Fatal(err)
		}
		m := new(dns.Msg).SetReply(q)
		m.Answer, m.Ns = []dns.RR{rr}, []dns.RR{rr}
		seed(m)
	}
	loop := []byte{0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0, 0xc0, 0x0c, 0, 5, 0, 1, 0xc0, 0x0c} // a name that points at itself
	f.Add(loop, true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, raw []byte, echo bool) {
		c := wired(func(q []byte) []byte {
			if !echo || len(raw) < 10 {
				return append(slices.Clone(q[:2]), raw...)
			}
			// The id and the question are right, so that more of it is read.
			head := append(slices.Clone(q[:2]), raw[:10]...)
			head[2] |= 0x80
			end := bytes.IndexByte(q[12:], 0) + 12 + 5
			return slices.Concat(head, q[12:end], raw[10:])
		})
		p, err := c.Follow(t.Context(), "_acme-challenge.farm.test")
		check(t, p, err)
		a, err := c.Ask(t.Context(), lookup.Question{Name: "farm.test", Type: dns.TypeTXT})
		if err == nil {
			_ = lookup.Texts(a.Records, "farm.test")
		}
	})
}

// FuzzFollow: servers that answer well-formed lies, which the input chooses,
// cannot make it go on for ever, ask without end, or bring back an odd name.
func FuzzFollow(f *testing.F) {
	f.Add([]byte{0})
	f.Add([]byte{0x11, 0x52, 0x93, 0x24, 0x65, 0x06, 0xc7, 0x38})
	f.Add(bytes.Repeat([]byte{0x21, 0x03}, 64))
	f.Fuzz(func(t *testing.T, program []byte) {
		var mu sync.Mutex
		asked := 0
		c := wired(func(raw []byte) []byte {
			q := new(dns.Msg)
			if err := q.Unpack(raw); err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			m := lie(q, program, asked)
			asked++
			mu.Unlock()
			out, err := m.Pack()
			if err != nil {
				out = raw[:2]
			}
			return out
		})
		p, err := c.Follow(t.Context(), "_acme-challenge.shop.farm.test")
		check(t, p, err)
		if asked > 20000 {
			t.Errorf("%d questions", asked)
		}
	})
}

// lie is an answer that the program's bytes choose.
func lie(q *dns.Msg, program []byte, at int) *dns.Msg {
	next := func() byte {
		if len(program) == 0 {
			return 0
		}
		b := program[at%len(program)]
		at++
		return b
	}
	name := q.Question[0].Name
	names := []string{name, "farm.test.", "test.", ".", "a.evil.test.", "b." + name, "x\\000y.evil.test.", strings.Repeat("long.", 48) + "test.", "_acme-challenge.shop.farm.test.", "a\\.b.test.", fmt.Sprintf("n%d.evil.test.", at)}
	pick := func() string { return names[int(next())%len(names)] }
	m := new(dns.Msg).SetReply(q)
	m.Authoritative = next()&1 == 0
	m.Rcode = []int{0, 0, 0, 3, 2, 5}[int(next())%6]
	for range next() % 5 {
		h := dns.RR_Header{Name: pick(), Class: dns.ClassINET}
		var rr dns.RR
		switch next() % 6 {
		case 0:
			h.Rrtype, rr = dns.TypeCNAME, &dns.CNAME{Hdr: h, Target: pick()}
		case 1:
			h.Rrtype, rr = dns.TypeDNAME, &dns.DNAME{Hdr: h, Target: pick()}
		case 2:
			h.Rrtype, rr = dns.TypeSOA, &dns.SOA{Hdr: h, Ns: pick(), Mbox: pick()}
		case 3:
			h.Rrtype, rr = dns.TypeNS, &dns.NS{Hdr: h, Ns: pick()}
		case 4:
			h.Rrtype, rr = dns.TypeA, &dns.A{Hdr: h, A: net.IPv4(192, 0, 2, next())}
		default:
			h.Rrtype, rr = dns.TypeTXT, &dns.TXT{Hdr: h, Txt: []string{pick()}}
		}
		rr.Header().Rrtype = h.Rrtype
		if next()&1 == 0 {
			m.Answer = append(m.Answer, rr)
		} else {
			m.Ns = append(m.Ns, rr)
		}
	}
	return m
}

// check is what holds of every place.
func check(t *testing.T, p lookup.Place, err error) {
	t.Helper()
	seen := map[string]bool{}
	for _, n := range p.Path {
		if seen[n] || len(n) > 253 || n != lookup.Canonical(n) || strings.ContainsAny(n, " /\\;'\"$\x00") {
			t.Errorf("a path with %q: %q", n, p.Path)
		}
		seen[n] = true
	}
	if len(p.Path) > 11 || len(p.Servers) > 48 {
		t.Errorf("%d names, %d servers", len(p.Path), len(p.Servers))
	}
	if err == nil && (!dns.IsSubDomain(dns.Fqdn(p.Zone), dns.Fqdn(p.Name)) || len(p.Servers) == 0 || p.Zone == "") {
		t.Errorf("%s is said to be in %q at %v", p.Name, p.Zone, p.Servers)
	}
}
