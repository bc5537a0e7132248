package dnsserve

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// memory is a Source.
type memory struct {
	mu     sync.Mutex
	zones  []Zone
	values map[string][]string
	err    error
	asked  int // for zones
}

func (m *memory) Zones(context.Context) ([]Zone, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	return m.zones, m.err
}

func (m *memory) Values(_ context.Context, name string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.values[name], m.err
}

func (m *memory) Below(_ context.Context, name string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for n := range m.values {
		if strings.HasSuffix(n, "."+name) {
			return true, m.err
		}
	}
	return false, m.err
}

func world() *memory {
	return &memory{
		zones: []Zone{{
			Name: "auth.example.net",
			Servers: []NameServer{
				{Host: "ns1.auth.example.net", Addresses: addrs("192.0.2.1", "2001:db8::1")},
				{Host: "ns2.auth.example.net", Addresses: addrs("192.0.2.2")},
				{Host: "ns.elsewhere.example", Addresses: addrs("192.0.2.3")},
			},
			Contact: "dns.admin@example.net",
			CAA:     []CAA{{Tag: "issue", Value: "ca.example"}, {Flag: 128, Tag: "issuewild", Value: ";"}},
		}, {
			Name:    "deep.down.auth.example.net",
			Servers: []NameServer{{Host: "ns.elsewhere.example"}},
			TTL:     time.Minute,
		}},
		values: map[string][]string{
			"shop.auth.example.net":          {"two", "one", "two"},
			"_acme.a.b.auth.example.net":     {"x"},
			"auth.example.net":               {"apex"},
			"odd.auth.example.net":           {`a\b"c` + "\x00\xff"},
			"long.auth.example.net":          {strings.Repeat("l", 600)},
			"many.auth.example.net":          many(200),
			"deep.down.auth.example.net":     {"deep"},
			"shop.elsewhere.example":         {"not ours"},
			"ns1.auth.example.net":           {"beside an address"},
			"www.deep.down.auth.example.net": {"w"},
		},
	}
}

func many(n int) (all []string) {
	for i := range n {
		all = append(all, strings.Repeat(string(rune('a'+i%26)), 43)+string(rune('a'+i/26)))
	}
	return all
}

func addrs(all ...string) (out []netip.Addr) {
	for _, a := range all {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

var (
	testTime = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	somebody = netip.MustParseAddr("198.51.100.7")
)

func ask(name string, kind uint16, change ...func(*dns.Msg)) *dns.Msg {
	m := new(dns.Msg).SetQuestion(name, kind)
	m.SetEdns0(4096, false)
	for _, c := range change {
		c(m)
	}
	return m
}

// get asks over TCP, or UDP, without a network.
func get(t *testing.T, r *responder, m *dns.Msg, udp bool) *dns.Msg {
	t.Helper()
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	raw := r.reply(t.Context(), query{packet: packet, from: somebody, udp: udp, at: testTime})
	if raw == nil {
		return nil
	}
	reply := new(dns.Msg)
	if err := reply.Unpack(raw); err != nil {
		t.Fatalf("the answer cannot be read: %v", err)
	}
	reply.Compress = true // as it came, for its length
	if reply.Id != m.Id || !reply.Response || reply.RecursionAvailable {
		t.Errorf("header %+v", reply.MsgHdr)
	}
	return reply
}

// told is an answer in words.
func told(m *dns.Msg) string {
	var b strings.Builder
	b.WriteString(dns.RcodeToString[m.Rcode])
	if m.Authoritative {
		b.WriteString(" aa")
	}
	if m.Truncated {
		b.WriteString(" tc")
	}
	for _, s := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		b.WriteString(" |")
		for _, rr := range s {
			if rr.Header().Rrtype != dns.TypeOPT {
				b.WriteString(" " + strings.Join(strings.Fields(rr.String()), " ") + ";")
			}
		}
	}
	return strings.TrimRight(b.String(), " |")
}

const (
	soa     = "auth.example.net. 5 IN SOA ns1.auth.example.net. dns\\.admin.example.net. 1 3600 600 604800 5;"
	deepSOA = "deep.down.auth.example.net. 60 IN SOA ns.elsewhere.example. hostmaster.deep.down.auth.example.net. 1 3600 600 604800 60;"
)

func TestAnswers(t *testing.T) {
	r := newResponder(Config{Source: world()})
	for _, c := range []struct {
		name string
		kind uint16
		want string
	}{
		{"shop.auth.example.net.", dns.TypeTXT, `NOERROR aa | shop.auth.example.net. 5 IN TXT "one"; shop.auth.example.net. 5 IN TXT "two";`},
		{"sHoP.auTH.exAMPle.net.", dns.TypeTXT, `NOERROR aa | sHoP.auTH.exAMPle.net. 5 IN TXT "one"; sHoP.auTH.exAMPle.net. 5 IN TXT "two";`},
		{"shop.auth.example.net.", dns.TypeA, "NOERROR aa | | " + soa},
		{"none.auth.example.net.", dns.TypeTXT, "NXDOMAIN aa | | " + soa},
		{"none.auth.example.net.", dns.TypeANY, "NXDOMAIN aa | | " + soa},
		{"below.shop.auth.example.net.", dns.TypeTXT, "NXDOMAIN aa | | " + soa},
		{"b.auth.example.net.", dns.TypeTXT, "NOERROR aa | | " + soa},    // empty, and yet there
		{"a.b.auth.example.net.", dns.TypeNS, "NOERROR aa | | " + soa},   // as minimizing resolvers ask
		{"down.auth.example.net.", dns.TypeTXT, "NOERROR aa | | " + soa}, // between two zones
		{"xb.auth.example.net.", dns.TypeTXT, "NXDOMAIN aa | | " + soa},  // its letters end a name that is there
		{"auth.example.net.", dns.TypeTXT, `NOERROR aa | auth.example.net. 5 IN TXT "apex";`},
		{"auth.example.net.", dns.TypeSOA, "NOERROR aa | " + soa},
		{"auth.example.net.", dns.TypeMX, "NOERROR aa | | " + soa},
		{"auth.example.net.", dns.TypeCAA, `NOERROR aa | auth.example.net. 300 IN CAA 0 issue "ca.example"; auth.example.net. 300 IN CAA 128 issuewild ";";`},
		{"shop.auth.example.net.", dns.TypeCAA, "NOERROR aa | | " + soa},
		{"auth.example.net.", dns.TypeNS, "NOERROR aa | auth.example.net. 300 IN NS ns1.auth.example.net.; auth.example.net. 300 IN NS ns2.auth.example.net.; auth.example.net. 300 IN NS ns.elsewhere.example.; | | " +
			"ns1.auth.example.net. 300 IN A 192.0.2.1; ns1.auth.example.net. 300 IN AAAA 2001:db8::1; ns2.auth.example.net. 300 IN A 192.0.2.2;"},
		{"ns1.auth.example.net.", dns.TypeA, "NOERROR aa | ns1.auth.example.net. 300 IN A 192.0.2.1;"},
		{"ns1.auth.example.net.", dns.TypeAAAA, "NOERROR aa | ns1.auth.example.net. 300 IN AAAA 2001:db8::1;"},
		{"ns2.auth.example.net.", dns.TypeAAAA, "NOERROR aa | | " + soa},
		{"ns1.auth.example.net.", dns.TypeTXT, `NOERROR aa | ns1.auth.example.net. 5 IN TXT "beside an address";`},
		{"odd.auth.example.net.", dns.TypeTXT, `NOERROR aa | odd.auth.example.net. 5 IN TXT "a\\b\"c\000\255";`},
		{"auth.example.net.", dns.TypeANY, `NOERROR aa | auth.example.net. 300 IN HINFO "RFC8482" "";`},
		{"deep.down.auth.example.net.", dns.TypeTXT, `NOERROR aa | deep.down.auth.example.net. 60 IN TXT "deep";`},
		{"deep.down.auth.example.net.", dns.TypeDS, "NOERROR aa | | " + soa}, // of the parent
		{"no.deep.down.auth.example.net.", dns.TypeDS, "NXDOMAIN aa | | " + deepSOA},
		{"auth.example.net.", dns.TypeDS, "NOERROR aa | | " + soa}, // its parent is not ours
		{"shop.elsewhere.example.", dns.TypeTXT, "REFUSED"},
		{"example.net.", dns.TypeNS, "REFUSED"},
		{"xauth.example.net.", dns.TypeTXT, "REFUSED"},
		{".", dns.TypeNS, "REFUSED"},
		{"auth.example.net.", dns.TypeAXFR, "REFUSED"},
		{"auth.example.net.", dns.TypeIXFR, "REFUSED"},
		{"auth.example.net.", dns.TypeMAILB, "REFUSED"},
	} {
		if got := told(get(t, r, ask(c.name, c.kind), false)); got != c.want {
			t.Errorf("%s %s:\n got %s\nwant %s", c.name, dns.TypeToString[c.kind], got, c.want)
		}
	}
}

func TestLongValue(t *testing.T) {
	reply := get(t, newResponder(Config{Source: world()}), ask("long.auth.example.net.", dns.TypeTXT), false)
	if got := reply.Answer[0].(*dns.TXT).Txt; len(got) != 3 || strings.Join(got, "") != strings.Repeat("l", 600) {
		t.Errorf("%q", got)
	}
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*dns.Msg)
		want   string
	}{
		"chaos":          {func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, "REFUSED"},
		"any class":      {func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }, "REFUSED"},
		"update":         {func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }, "REFUSED"},
		"notify":         {func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }, "REFUSED"},
		"status":         {func(m *dns.Msg) { m.Opcode = dns.OpcodeStatus }, "NOTIMP"},
		"no question":    {func(m *dns.Msg) { m.Question = nil }, "FORMERR"},
		"two questions":  {func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, "FORMERR"},
		"two OPT":        {func(m *dns.Msg) { m.Extra = append(m.Extra, m.Extra[0]) }, "FORMERR"},
		"OPT with name":  {func(m *dns.Msg) { m.Extra[0].Header().Name = "x." }, "FORMERR"},
		"EDNS version 1": {func(m *dns.Msg) { m.IsEdns0().SetVersion(1) }, "BADVERS"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newResponder(Config{Source: world()})
			if got := told(get(t, r, ask("shop.auth.example.net.", dns.TypeTXT, c.change), false)); got != c.want && (c.want != "BADVERS" || got != "BADSIG") {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestAnswersAreNotAnswered(t *testing.T) {
	r := newResponder(Config{Source: world()})
	if got := get(t, r, ask("shop.auth.example.net.", dns.TypeTXT, func(m *dns.Msg) { m.Response = true }), true); got != nil {
		t.Errorf("it answers an answer: %v", got)
	}
	if got := r.reply(t.Context(), query{packet: []byte("short"), from: somebody, at: testTime}); got != nil {
		t.Errorf("it answers what has no header: %v", got)
	}
}

func TestEDNS(t *testing.T) {
	r := newResponder(Config{Source: world()})
	with := get(t, r, ask("shop.auth.example.net.", dns.TypeTXT, func(m *dns.Msg) { m.IsEdns0().SetDo() }), true)
	if opt := with.IsEdns0(); opt == nil || opt.UDPSize() != maxUDP || !opt.Do() {
		t.Errorf("OPT %v", with.IsEdns0())
	}
	without := get(t, r, new(dns.Msg).SetQuestion("shop.auth.example.net.", dns.TypeTXT), true)
	if without.IsEdns0() != nil {
		t.Error("OPT for who did not send one")
	}
}

// No answer over UDP is larger than the asker takes, than what paths carry, or
// than a small multiple of the query; over TCP all of it comes.
func TestTruncation(t *testing.T) {
	r := newResponder(Config{Source: world()})
	for _, size := range []uint16{0, 512, 1000, 4096} {
		m := ask("many.auth.example.net.", dns.TypeTXT, func(m *dns.Msg) { m.IsEdns0().SetUDPSize(size) })
		reply := get(t, r, m, true)
		if !reply.Truncated || len(reply.Answer) != 0 || reply.Len() > m.Len() {
			t.Errorf("at %d: %d bytes, truncated %v", size, reply.Len(), reply.Truncated)
		}
		if whole := get(t, r, m, false); whole.Truncated || len(whole.Answer) != 200 {
			t.Errorf("over TCP there are %d of 200", len(whole.Answer))
		}
	}
	for _, name := range []string{"shop.auth.example.net.", "auth.example.net.", "ns1.auth.example.net.", "no.auth.example.net."} {
		for _, kind := range []uint16{dns.TypeTXT, dns.TypeNS, dns.TypeSOA, dns.TypeANY, dns.TypeCAA, dns.TypeA} {
			m := new(dns.Msg).SetQuestion(name, kind)
			if reply := get(t, r, m, true); reply.Truncated || reply.Len() > maxTimes*m.Len() {
				t.Errorf("%s %s: %d bytes for %d, truncated %v", name, dns.TypeToString[kind], reply.Len(), m.Len(), reply.Truncated)
			}
		}
	}
}

func TestTooManyForTCP(t *testing.T) {
	w := world()
	w.values["many.auth.example.net"] = many(600)
	for i := range 600 {
		w.values["many.auth.example.net"][i] += strings.Repeat("y", 150)
	}
	if got := told(get(t, newResponder(Config{Source: w}), ask("many.auth.example.net.", dns.TypeTXT), false)); got != "SERVFAIL" {
		t.Errorf("got %.200s", got)
	}
}

func TestStoreFailure(t *testing.T) {
	w := world()
	r := newResponder(Config{Source: w})
	w.err = errors.New("the database is away")
	for _, kind := range []uint16{dns.TypeTXT, dns.TypeA, dns.TypeNS} {
		if got := told(get(t, r, ask("shop.auth.example.net.", kind), false)); got != "SERVFAIL" {
			t.Errorf("without zones: %s", got)
		}
	}
	if w.asked != 1 {
		t.Errorf("zones are asked for %d times in a second", w.asked)
	}
	w.err = nil
	r = newResponder(Config{Source: w})
	get(t, r, ask("shop.auth.example.net.", dns.TypeTXT), false)
	w.err = errors.New("the database is away")
	for name, kind := range map[string]uint16{"shop.auth.example.net.": dns.TypeTXT, "none.auth.example.net.": dns.TypeTXT, "auth.example.net.": dns.TypeTXT, "b.auth.example.net.": dns.TypeA} {
		if got := told(get(t, r, ask(name, kind), false)); got != "SERVFAIL" {
			t.Errorf("%s without values: %s", name, got)
		}
	}
	if got := told(get(t, r, ask("auth.example.net.", dns.TypeSOA), false)); got != "NOERROR aa | "+soa {
		t.Errorf("what needs no store: %s", got)
	}
	if n := r.count.failed.Load(); n != 4 {
		t.Errorf("%d failures are counted", n)
	}
}

func TestZonesAreKeptAShortTime(t *testing.T) {
	w := world()
	c := &zones{source: w}
	steps := []struct {
		after time.Duration
		err   error
		asked int
		ok    bool
	}{
		{0, nil, 1, true},
		{fresh - 1, nil, 1, true},
		{fresh, errors.New("away"), 2, true},
		{fresh + again - 1, errors.New("away"), 2, true},
		{fresh + again, errors.New("away"), 3, true},
		{stale + again, errors.New("away"), 4, false},
		{stale + 2*again, nil, 5, true},
	}
	for _, s := range steps {
		w.err = s.err
		_, err := c.get(t.Context(), testTime.Add(s.after))
		if w.asked != s.asked || (err == nil) != s.ok {
			t.Errorf("after %s: asked %d times (want %d), %v", s.after, w.asked, s.asked, err)
		}
	}
}

func TestABrokenZoneIsItsOwn(t *testing.T) {
	w := world()
	w.zones = append(w.zones, Zone{Name: "broken.example"})
	r := newResponder(Config{Source: w})
	if got := told(get(t, r, ask("x.broken.example.", dns.TypeTXT), false)); got != "SERVFAIL" {
		t.Errorf("broken: %s", got)
	}
	if got := get(t, r, ask("shop.auth.example.net.", dns.TypeTXT), false); len(got.Answer) != 2 {
		t.Errorf("another: %v", got)
	}
}

func TestCheck(t *testing.T) {
	good := func() Zone { return world().zones[0] }
	if err := good().Check(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Zone){
		`name: "" is no name`:              func(z *Zone) { z.Name = "" },
		`name: "a b" is no name`:           func(z *Zone) { z.Name = "a b" },
		`name: "a.example." is no name`:    func(z *Zone) { z.Name = "a.example." },
		`name: "é.example"`:                func(z *Zone) { z.Name = "é.example" },
		"servers: there is none":           func(z *Zone) { z.Servers = nil },
		"servers[0].host: ":                func(z *Zone) { z.Servers[0].Host = "" },
		"servers[1].addresses: ns2":        func(z *Zone) { z.Servers[1].Addresses = nil },
		"servers[0].addresses: 0.0.0.0 is": func(z *Zone) { z.Servers[0].Addresses = addrs("0.0.0.0") },
		`contact: "somebody" is no mail`:   func(z *Zone) { z.Contact = "somebody" },
		`contact: "a b@example.net"`:       func(z *Zone) { z.Contact = "a b@example.net" },
		"ttl: 1ms":                         func(z *Zone) { z.TTL = time.Millisecond },
		"ttl: 2h0m0s":                      func(z *Zone) { z.TTL = 2 * time.Hour },
		"caa[0]: ":                         func(z *Zone) { z.CAA[0].Tag = "is sue" },
	} {
		z := good()
		change(&z)
		if err := z.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestLimit(t *testing.T) {
	l := newLimiter(10)
	count := func(from string, n int, at time.Time) (got [3]int) {
		for range n {
			got[l.take(netip.MustParseAddr(from), at)]++
		}
		return got
	}
	for _, s := range []struct {
		from  string
		n     int
		after time.Duration
		want  [3]int
	}{
		{"198.51.100.1", 20, 0, [3]int{20, 0, 0}},
		{"198.51.100.200", 10, 0, [3]int{0, 10, 0}}, // the same network
		{"::ffff:198.51.100.9", 200, 0, [3]int{0, 190, 10}},
		{"203.0.113.1", 20, 0, [3]int{20, 0, 0}},
		{"2001:db8::1", 20, 0, [3]int{20, 0, 0}},
		{"2001:db8:0:ff::1", 2, 0, [3]int{0, 2, 0}},
		{"2001:db8:0:100::1", 1, 0, [3]int{1, 0, 0}},
		{"198.51.100.1", 120, time.Second, [3]int{10, 100, 10}},
		{"198.51.100.1", 300, time.Minute, [3]int{20, 200, 80}},
	} {
		if got := count(s.from, s.n, testTime.Add(s.after)); got != s.want {
			t.Errorf("%s after %s: %v, want %v", s.from, s.after, got, s.want)
		}
	}
}

// Who is limited is sent to TCP, with an answer no larger than its query, and
// answered there.
func TestLimitedGoToTCP(t *testing.T) {
	r := newResponder(Config{Source: world(), Rate: 1})
	m := ask("shop.auth.example.net.", dns.TypeTXT)
	var cut int
	for range 10 {
		if reply := get(t, r, m, true); reply != nil && reply.Truncated {
			cut++
			if len(reply.Answer) > 0 || reply.Len() > m.Len() || reply.Rcode != dns.RcodeSuccess {
				t.Errorf("%v", reply)
			}
		}
	}
	if cut != 8 || r.count.limited.Load() != 8 {
		t.Errorf("%d sent to TCP, %d limited", cut, r.count.limited.Load())
	}
	if reply := get(t, r, m, false); len(reply.Answer) != 2 {
		t.Errorf("over TCP: %v", reply)
	}
}

func TestStrings(t *testing.T) {
	for value, want := range map[string][]string{"": {""}, "a": {"a"}, `\`: {`\\`}, strings.Repeat("a", 256): {strings.Repeat("a", 255), "a"}} {
		if d := cmp.Diff(want, Strings(value)); d != "" {
			t.Error(d)
		}
	}
}

func FuzzReply(f *testing.F) {
	for name, kind := range map[string]uint16{"shop.auth.example.net.": dns.TypeTXT, "AUTH.example.net.": dns.TypeNS, "many.auth.example.net.": dns.TypeANY, ".": dns.TypeAXFR} {
		packet, err := ask(name, kind).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packet, true)
		f.Add(packet[:len(packet)-3], false)
	}
	f.Add([]byte("\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x10\x00\x01"), true) // a name that points to itself
	r := newResponder(Config{Source: world(), Rate: 1 << 30})
	f.Fuzz(func(t *testing.T, packet []byte, udp bool) {
		before := slices.Clone(packet)
		raw := r.reply(t.Context(), query{packet: packet, from: somebody, udp: udp, at: testTime})
		if !slices.Equal(before, packet) {
			t.Error("the query is changed")
		}
		if raw == nil {
			return
		}
		reply := new(dns.Msg)
		if err := reply.Unpack(raw); err != nil {
			t.Fatalf("the answer cannot be read: %v\n%x", err, raw)
		}
		if !reply.Response || reply.RecursionAvailable || raw[0] != packet[0] || raw[1] != packet[1] {
			t.Errorf("header %+v", reply.MsgHdr)
		}
		if udp && len(raw) > min(maxUDP, maxTimes*len(packet)) {
			t.Errorf("%d bytes for %d", len(raw), len(packet))
		}
	})
}
