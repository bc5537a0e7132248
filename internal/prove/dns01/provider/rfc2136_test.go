package provider

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/config"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lookup"
	"github.com/certfarm/certfarm/internal/prove/dns01"
	"github.com/certfarm/certfarm/internal/prove/dns01/writertest"
)

const (
	updateZone   = "farm.test"
	updateKey    = "ctl-key"
	updateSecret = "c2VjcmV0IG9mIHRoaXMgdGVzdCwgMzIgYnl0ZXMgbG9uZw=="
)

// updateServer is a name server that takes signed updates.
type updateServer struct {
	address string
	mu      sync.Mutex
	values  map[string][]string
	answer  func(w dns.ResponseWriter, asked, m *dns.Msg) // changes an answer before it is sent
}

func newUpdateServer(t *testing.T) *updateServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &updateServer{address: l.Addr().String(), values: map[string][]string{}}
	server := &dns.Server{
		Listener: l, Handler: s, TsigSecret: map[string]string{updateKey + ".": updateSecret},
		MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept },
	}
	done := make(chan error, 1)
	go func() { done <- server.ActivateAndServe() }()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return s
}

func (s *updateServer) ServeDNS(w dns.ResponseWriter, asked *dns.Msg) {
	m := new(dns.Msg).SetReply(asked)
	sig := asked.IsTsig()
	switch {
	case sig == nil:
		m.Rcode = dns.RcodeRefused
	case w.TsigStatus() != nil:
		m.Rcode = dns.RcodeNotAuth
	default:
		m.SetTsig(sig.Hdr.Name, sig.Algorithm, fudge, time.Now().Unix())
		s.mu.Lock()
		for _, rr := range asked.Ns {
			s.apply(rr)
		}
		s.mu.Unlock()
	}
	if s.answer != nil {
		s.answer(w, asked, m)
	}
	_ = w.WriteMsg(m)
}

func (s *updateServer) apply(rr dns.RR) {
	txt, ok := rr.(*dns.TXT)
	if !ok {
		return
	}
	name, value := plainName(txt.Hdr.Name), strings.ReplaceAll(strings.Join(txt.Txt, ""), `\\`, `\`)
	value = strings.ReplaceAll(value, `\"`, `"`)
	kept := []string{}
	for _, v := range s.values[name] {
		if v != value {
			kept = append(kept, v)
		}
	}
	if txt.Hdr.Class == dns.ClassINET {
		kept = append(kept, value)
	}
	s.values[name] = kept
}

func plainName(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

func (s *updateServer) have(_ *testing.T, name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.values[name]
}

// updateWriter makes a writer for a server with the key of these tests.
func updateWriter(t *testing.T, options, secret string) dns01.Writer {
	t.Helper()
	p := RFC2136()
	canonical, err := p.Check([]byte(options), []string{"key"})
	if err != nil {
		t.Fatal(err)
	}
	w, err := p.New(t.Context(), dns01.Setup{Options: canonical, Secrets: map[string]farm.Secret{"key": farm.NewSecret([]byte(secret))}})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func updateOptionsFor(address string) string {
	return `{"server":"` + address + `","key":"` + updateKey + `"}`
}

func TestRFC2136(t *testing.T) {
	s := newUpdateServer(t)
	writertest.Run(t, writertest.Suite{
		Zone: updateZone,
		New: func(t *testing.T) dns01.Writer {
			return updateWriter(t, updateOptionsFor(s.address), updateSecret+"\n")
		},
		Values: s.have,
	})
}

func TestRFC2136Refusals(t *testing.T) {
	record := dns01.Record{Zone: updateZone, Name: "_acme-challenge." + updateZone, Value: "v"}
	signed := func(m *dns.Msg, asked *dns.Msg, code uint16, other string) {
		sig := asked.IsTsig()
		m.Rcode = dns.RcodeNotAuth
		m.SetTsig(sig.Hdr.Name, sig.Algorithm, fudge, int64(sig.TimeSigned))
		m.IsTsig().Error, m.IsTsig().OtherData, m.IsTsig().OtherLen = code, other, uint16(len(other)/2)
	}
	for want, answer := range map[string]func(w dns.ResponseWriter, asked, m *dns.Msg){
		"update-policy { grant ctl-key name _acme-challenge.farm.test. TXT; }": func(_ dns.ResponseWriter, _, m *dns.Msg) { m.Rcode = dns.RcodeRefused },
		"not the primary server of farm.test.":                                 func(_ dns.ResponseWriter, _, m *dns.Msg) { m.Rcode = dns.RcodeNotAuth },
		"does not lie in its zone":                                             func(_ dns.ResponseWriter, _, m *dns.Msg) { m.Rcode = dns.RcodeNotZone },
		"no dynamic updates":                                                   func(_ dns.ResponseWriter, _, m *dns.Msg) { m.Rcode = dns.RcodeNotImplemented },
		"SERVFAIL: its log":                                                    func(_ dns.ResponseWriter, _, m *dns.Msg) { m.Rcode = dns.RcodeServerFailure },
		"YXRRSET":                                                              func(_ dns.ResponseWriter, _, m *dns.Msg) { m.Rcode = dns.RcodeYXRrset },
		"BADTIME): it has 2001-09-09 01:46:40, here it is 20":                  func(_ dns.ResponseWriter, asked, m *dns.Msg) { signed(m, asked, dns.RcodeBadTime, "00003b9aca00") },
		"(BADKEY)":            func(_ dns.ResponseWriter, asked, m *dns.Msg) { signed(m, asked, dns.RcodeBadKey, "") },
		"(BADSIG)":            func(_ dns.ResponseWriter, asked, m *dns.Msg) { signed(m, asked, dns.RcodeBadSig, "") },
		"(BADTRUNC)":          func(_ dns.ResponseWriter, asked, m *dns.Msg) { signed(m, asked, dns.RcodeBadTrunc, "") },
		"without a signature": func(_ dns.ResponseWriter, _, m *dns.Msg) { m.Extra = nil },
		"id mismatch":         func(_ dns.ResponseWriter, _, m *dns.Msg) { m.Id, m.Extra = m.Id+1, nil },
		"did not answer":      func(_ dns.ResponseWriter, _, m *dns.Msg) { m.Response = false },
	} {
		s := newUpdateServer(t)
		s.answer = answer
		w := updateWriter(t, updateOptionsFor(s.address), updateSecret)
		for _, call := range []func() error{func() error { return w.Put(t.Context(), record) }, func() error { return w.Remove(t.Context(), record) }} {
			if err := call(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), updateSecret) {
				t.Errorf("want %q, got %v", want, err)
			}
		}
	}
}

func TestRFC2136WrongAnswerSignature(t *testing.T) {
	s := newUpdateServer(t)
	w := updateWriter(t, updateOptionsFor(s.address), base64.StdEncoding.EncodeToString([]byte("another secret")))
	s.answer = func(_ dns.ResponseWriter, asked, m *dns.Msg) { // says yes to whatever comes
		m.Rcode = dns.RcodeSuccess
		m.SetTsig(updateKey+".", dns.HmacSHA256, fudge, time.Now().Unix())
	}
	err := w.Put(t.Context(), dns01.Record{Zone: updateZone, Name: "a." + updateZone, Value: "v"})
	if err == nil || !strings.Contains(err.Error(), "not signed as it should be") {
		t.Errorf("got %v", err)
	}
}

func TestRFC2136OtherZones(t *testing.T) {
	s := newUpdateServer(t)
	w := updateWriter(t, updateOptionsFor(s.address), updateSecret)
	for _, name := range []string{"_acme-challenge.example.org", "xfarm.test", "a..farm.test"} {
		if err := w.Put(t.Context(), dns01.Record{Zone: updateZone, Name: name, Value: "v"}); err == nil || !strings.Contains(err.Error(), "does not lie in the zone") {
			t.Errorf("%s: %v", name, err)
		}
	}
	inView := updateWriter(t, `{"server":"`+s.address+`","key":"ctl-key","zone":"Inner.Farm.Test."}`, updateSecret)
	if err := inView.Put(t.Context(), dns01.Record{Zone: updateZone, Name: "a." + updateZone, Value: "v"}); err == nil {
		t.Error("the zone of the options is passed over")
	}
	if err := inView.Put(t.Context(), dns01.Record{Zone: updateZone, Name: "a.inner." + updateZone, Value: "v"}); err != nil {
		t.Error(err)
	}
}

// The server's addresses are tried in turn: at the first nobody listens.
func TestRFC2136Addresses(t *testing.T) {
	s := newUpdateServer(t)
	_, port, _ := net.SplitHostPort(s.address)
	names := newNames(t, "127.0.0.9", "127.0.0.1")
	u := updateWriter(t, `{"server":"ns1.farm.test:`+port+`","key":"ctl-key"}`, updateSecret).(*updater)
	u.lookup = lookup.Client{Resolvers: map[string][]string{".": {names}}}
	r := dns01.Record{Zone: updateZone, Name: "a." + updateZone, Value: "v"}
	if err := u.Put(t.Context(), r); err != nil {
		t.Error(err)
	}
	if got := s.have(t, r.Name); len(got) != 1 {
		t.Errorf("values %q", got)
	}
}

// newNames is a resolver that gives these addresses for every name.
func newNames(t *testing.T, addresses ...string) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, asked *dns.Msg) {
		m := new(dns.Msg).SetReply(asked)
		for _, a := range addresses {
			if asked.Question[0].Qtype == dns.TypeA {
				m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: asked.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.ParseIP(a)})
			}
		}
		_ = w.WriteMsg(m)
	})}
	done := make(chan error, 1)
	go func() { done <- server.ActivateAndServe() }()
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	return conn.LocalAddr().String()
}

// said is a connection to a server that has said all that it will.
type said struct {
	net.Conn
	left *bytes.Reader
}

func (c said) Read(p []byte) (int, error)     { return c.left.Read(p) }
func (said) Write(p []byte) (int, error)      { return len(p), nil }
func (said) Close() error                     { return nil }
func (said) SetReadDeadline(time.Time) error  { return nil }
func (said) SetWriteDeadline(time.Time) error { return nil }

// Nothing that is not signed with the key counts as done, whatever it is.
func FuzzRFC2136Answer(f *testing.F) {
	for _, rcode := range []int{dns.RcodeSuccess, dns.RcodeRefused, dns.RcodeNotAuth} {
		m := new(dns.Msg).SetUpdate(updateZone + ".")
		m.Response, m.Rcode = true, rcode
		for _, signed := range []bool{false, true} {
			if signed {
				m.SetTsig(updateKey+".", dns.HmacSHA256, fudge, 1)
				m.IsTsig().Error, m.IsTsig().OtherData, m.IsTsig().OtherLen = dns.RcodeBadTime, "00003b9aca00", 6
			}
			packet, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(packet)
		}
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		u := updateWriter(t, updateOptionsFor("192.0.2.1"), updateSecret).(*updater)
		u.lookup.Dial = func(_ context.Context, network, _ string) (net.Conn, error) {
			framed := binary.BigEndian.AppendUint16(nil, uint16(len(packet)))
			return said{left: bytes.NewReader(append(framed, packet...))}, nil
		}
		err := u.Put(t.Context(), dns01.Record{Zone: updateZone, Name: "a." + updateZone, Value: "v"})
		if err == nil || strings.Contains(err.Error(), updateSecret) {
			t.Errorf("got %v", err)
		}
	})
}

func TestRFC2136Options(t *testing.T) {
	p := RFC2136()
	got, err := p.Check([]byte(`{"server":"ns1.example.com","key":"Ctl-Key.","algorithm":"HMAC-SHA512"}`), []string{"key"})
	if want := `{"server":"ns1.example.com","key":"ctl-key","algorithm":"hmac-sha512","ttl":60}`; string(got) != want || err != nil {
		t.Errorf("got %s, %v", got, err)
	}
	for want, options := range map[string]string{
		`server | "" is no name of a server`:           `{"key":"k"}`,
		`server | "0" is no port`:                      `{"server":"a:0","key":"k"}`,
		`server | address a:b:c: too many colons`:      `{"server":"a:b:c","key":"k"}`,
		`servr | there is no option "servr" | did you`: `{"servr":"a"}`,
		`key | "a+b=" is no name of a key | the name`:  `{"server":"a","key":"a+b="}`,
		`algorithm | there is no algorithm "hmac-md5"`: `{"server":"a","key":"k","algorithm":"hmac-md5"}`,
		`ttl | it is not between`:                      `{"server":"a","key":"k","ttl":-1}`,
		`zone | "a b" is no name`:                      `{"server":"a","key":"k","zone":"a b"}`,
	} {
		_, err := p.Check([]byte(options), []string{"key"})
		wantOption(t, options, err, want)
	}
	_, err = p.Check([]byte(`{"server":"a","key":"k"}`), nil)
	wantOption(t, "no secret", err, ` | the secret "key" is missing`)
	_, err = p.Check([]byte(`{"server":"a","key":"k"}`), []string{"key", "kee"})
	wantOption(t, "another secret", err, `kee | there is no secret "kee"`)
	_, err = p.New(t.Context(), dns01.Setup{Options: []byte(`{"server":"a","key":"k"}`), Secrets: map[string]farm.Secret{"key": farm.NewSecret([]byte("no base64!"))}})
	if err == nil || strings.Contains(err.Error(), "no base64!") || !strings.Contains(err.Error(), "base64") {
		t.Errorf("got %v", err)
	}
}

func wantOption(t *testing.T, what string, err error, want string) {
	t.Helper()
	own, ok := errors.AsType[config.OptionError](err)
	if !ok {
		t.Errorf("%s: %v is no OptionError", what, err)
		return
	}
	field, problem, hint := own.Option()
	if got := field + " | " + problem + " | " + hint; !strings.HasPrefix(got, want) {
		t.Errorf("%s: got %s, want %s", what, got, want)
	}
}
