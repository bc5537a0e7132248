package provider

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
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/certfarm/certfarm/internal/dnsserve"
	"github.com/certfarm/certfarm/internal/prove/dns01"
	"github.com/certfarm/certfarm/internal/prove/dns01/writertest"
)

// noteBoard is a Board in memory, and a dnsserve.Source of one zone.
type noteBoard struct {
	mu     sync.Mutex
	values map[string][]string
	err    error
	zone   dnsserve.Zone
}

func (b *noteBoard) Put(_ context.Context, name, value string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Contains(b.values[name], value) {
		b.values[name] = append(b.values[name], value)
	}
	return b.err
}

func (b *noteBoard) Remove(_ context.Context, name, value string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.values[name] = slices.DeleteFunc(b.values[name], func(v string) bool { return v == value })
	return b.err
}

func (b *noteBoard) Values(_ context.Context, name string) ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.values[name]), b.err
}

func (b *noteBoard) Zones(context.Context) ([]dnsserve.Zone, error) {
	return []dnsserve.Zone{b.zone}, nil
}

func (b *noteBoard) Below(_ context.Context, name string) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for n, v := range b.values {
		if strings.HasSuffix(n, "."+name) && len(v) > 0 {
			return true, nil
		}
	}
	return false, nil
}

const builtinTestOptions = `{"zone":"Acme.Example.Net.","servers":[{"host":"ns1.acme.example.net","addresses":["192.0.2.1","2001:db8::1"]},{"host":"ns.example.org."}],` +
	`"contact":"dns@example.net","caa":["0 issue \"ca.example; accounturi=https://ca.example/1\""],"ttl":7}`

// Values that are written are those that two name servers answer with.
func TestBuiltin(t *testing.T) {
	p := Builtin()
	options, err := p.Check([]byte(builtinTestOptions), nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &noteBoard{values: map[string][]string{}}
	if b.zone, err = BuiltinZone(options); err != nil {
		t.Fatal(err)
	}
	s, err := dnsserve.Listen(t.Context(), dnsserve.Config{Source: b, Addresses: []string{"127.0.0.1:0", "127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	writertest.Run(t, writertest.Suite{
		Zone: "acme.example.net",
		New: func(t *testing.T) dns01.Writer {
			w, err := p.New(t.Context(), dns01.Setup{Options: options, Board: b})
			if err != nil {
				t.Fatal(err)
			}
			return w
		},
		Values: func(t *testing.T, name string) []string {
			one, two := askTXT(t, s.Addresses()[0], name), askTXT(t, s.Addresses()[1], name)
			if !slices.Equal(one, two) {
				t.Errorf("one server says %q, the other %q", one, two)
			}
			return one
		},
	})
}

func TestBuiltinZone(t *testing.T) {
	got, err := BuiltinZone([]byte(builtinTestOptions))
	want := dnsserve.Zone{
		Name: "acme.example.net",
		Servers: []dnsserve.NameServer{
			{Host: "ns1.acme.example.net", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}},
			{Host: "ns.example.org"},
		},
		Contact: "dns@example.net",
		CAA:     []dnsserve.CAA{{Tag: "issue", Value: "ca.example; accounturi=https://ca.example/1"}},
		TTL:     7 * time.Second,
	}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" || err != nil {
		t.Error(err, d)
	}
}

func TestBuiltinOptions(t *testing.T) {
	p := Builtin()
	const one = `"servers":[{"host":"ns.example.org"}]`
	for want, options := range map[string]string{
		`zone | "" is no name | name the zone`:                                 `{}`,
		`servers | there is none | list the`:                                   `{"zone":"a.example"}`,
		`servers[0].host | "" is no name`:                                      `{"zone":"a.example","servers":[{}]}`,
		`servers[0].addresses | ns.a.example lies in its own`:                  `{"zone":"a.example","servers":[{"host":"ns.a.example"}]}`,
		`servers[0].addresses[1] | "x" is no IP address`:                       `{"zone":"a.example","servers":[{"host":"ns.a.example","addresses":["192.0.2.1","x"]}]}`,
		`contact | "me" is no mail`:                                            `{"zone":"a.example","contact":"me",` + one + `}`,
		`caa[0] | "issue" is no CAA record`:                                    `{"zone":"a.example","caa":["issue"],` + one + `}`,
		`caa[0] | it has more than one`:                                        `{"zone":"a.example","caa":["0 issue x\n$INCLUDE /etc/passwd"],` + one + `}`,
		`ttl | it is not one second`:                                           `{"zone":"a.example","ttl":0,` + one + `}`,
		`ttl | 2h0m0s is not between`:                                          `{"zone":"a.example","ttl":7200,` + one + `}`,
		`adresses | there is no option "adresses" | did you mean "addresses"?`: `{"zone":"a.example","servers":[{"adresses":[]}]}`,
	} {
		_, err := p.Check([]byte(options), nil)
		wantOption(t, options, err, want)
	}
	_, err := p.Check([]byte(`{"zone":"a.example",`+one+`}`), []string{"token"})
	wantOption(t, "a secret", err, `token | there is no secret "token" | it needs none`)
	if _, err := p.New(t.Context(), dns01.Setup{Options: []byte(`{"zone":"a.example",` + one + `}`)}); err == nil {
		t.Error("it takes no board")
	}
}

func TestBuiltinFailures(t *testing.T) {
	b := &noteBoard{values: map[string][]string{}, err: errors.New("the database is away")}
	w, err := Builtin().New(t.Context(), dns01.Setup{Options: []byte(builtinTestOptions), Board: b})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"shop.acme.example.net": "the database is away", "example.net": "does not lie in the zone acme.example.net"} {
		r := dns01.Record{Zone: "acme.example.net", Name: name, Value: "v"}
		wantSaid(t, w.Put(t.Context(), r), want)
		wantSaid(t, w.Remove(t.Context(), r), want)
	}
}

// What a farm.yaml may say makes a zone that can be served, or is refused.
func FuzzBuiltinZone(f *testing.F) {
	f.Add([]byte(builtinTestOptions))
	f.Add([]byte(`{"zone":"a.example","caa":["128 iodef \"mailto:x@example.org\" ; y"],"servers":[{"host":"a.example","addresses":["::ffff:192.0.2.1"]}]}`))
	f.Add([]byte(`{"zone":"a.example","servers":[{"host":"ns.example.."}]}`))
	f.Fuzz(func(t *testing.T, options []byte) {
		canonical, err := Builtin().Check(options, nil)
		if err != nil {
			return
		}
		z, err := BuiltinZone(canonical)
		if err != nil {
			t.Fatalf("what Check gave is refused: %v\n%s", err, canonical)
		}
		if err := z.Check(); err != nil {
			t.Error(err)
		}
		if again, err := Builtin().Check(canonical, nil); err != nil || string(again) != string(canonical) {
			t.Errorf("checked again: %s, %v", again, err)
		}
	})
}
