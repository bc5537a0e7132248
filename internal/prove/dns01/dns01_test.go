package dns01_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lookup"
	"github.com/certfarm/certfarm/internal/lookup/lookuptest"
	"github.com/certfarm/certfarm/internal/prove"
	"github.com/certfarm/certfarm/internal/prove/dns01"
	"github.com/certfarm/certfarm/internal/prove/provetest"
)

// writer writes into a world.
type writer struct{ *lookuptest.World }

func (w writer) Put(_ context.Context, r dns01.Record) error {
	return w.PutText(r.Zone, r.Name, r.Value)
}

func (w writer) Remove(_ context.Context, r dns01.Record) error {
	w.RemoveText(r.Zone, r.Name, r.Value)
	return nil
}

// twoZones are a farm's, and another one for records that a CNAME leads to.
func twoZones(t testing.TB) *lookuptest.World {
	w := lookuptest.New(t)
	w.Zone("farm.test", "192.0.2.1", "192.0.2.2", "192.0.2.3")
	w.Zone("dcv.test", "192.0.2.4", "192.0.2.5", "192.0.2.6")
	w.Add("farm.test", "_acme-challenge.shop.farm.test. 0 IN CNAME _acme-challenge.hop.farm.test.", "_acme-challenge.hop.farm.test. 0 IN CNAME shop.dcv.test.")
	return w
}

func challenge(name string, n int) farm.Challenge {
	sum := sha256.Sum256([]byte(fmt.Sprint(n)))
	return farm.Challenge{Type: "dns-01", Name: name, Token: fmt.Sprintf("token-%037d", n), Value: base64.RawURLEncoding.EncodeToString(sum[:])}
}

// seen asks the resolver, as a CA does.
func seen(t *testing.T, w *lookuptest.World, c farm.Challenge) bool {
	t.Helper()
	a, err := w.Client().Ask(t.Context(), lookup.Question{Name: dns01.Prefix + c.Name, Type: dns.TypeTXT})
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(a.Records, func(r dns.RR) bool {
		return slices.Contains(lookup.Texts([]dns.RR{r}, r.Header().Name), c.Value)
	})
}

func TestContract(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(*dns01.Solver){
		"each server":    func(*dns01.Solver) {},
		"resolvers only": func(s *dns01.Solver) { s.Lookup.Recursive = true },
	} {
		for _, name := range []string{"www.farm.test", "shop.farm.test"} {
			t.Run(what+", "+name, func(t *testing.T) {
				t.Parallel()
				w := twoZones(t)
				const theirs = "v=spf1 -all"
				for zone, record := range map[string]string{"farm.test": "_acme-challenge.www.farm.test", "dcv.test": "shop.dcv.test"} {
					w.Add(zone, fmt.Sprintf("%s. 0 IN TXT %q", record, theirs))
					defer func() {
						if got := w.Texts(zone, record); !slices.Equal(got, []string{theirs}) {
							t.Errorf("left at %s: %q", record, got)
						}
					}()
				}
				provetest.Run(t, provetest.Suite{
					New: func(*testing.T) prove.Solver {
						s := dns01.Solver{Writer: writer{w}, Lookup: w.Client()}
						change(&s)
						return s
					},
					Challenge: func(n int) farm.Challenge { return challenge(name, n) },
					Seen:      func(t *testing.T, c farm.Challenge) bool { return seen(t, w, c) },
				})
			})
		}
	}
}

// What a resolver was asked for before it was there it denies for a while: also to
// a CA that asks the same one.
func TestResolversAreNotAskedForTheRecord(t *testing.T) {
	t.Parallel()
	w := twoZones(t)
	w.Add("farm.test", "www.farm.test. 0 IN A 192.0.2.80", "shop.farm.test. 0 IN A 192.0.2.80")
	for _, name := range []string{"www.farm.test", "shop.farm.test"} {
		s, c := dns01.Solver{Writer: writer{w}, Lookup: w.Client()}, challenge(name, 1)
		r, err := s.Present(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		wantReady(t, s, c, r, true)
	}
	for _, q := range w.Asked("192.0.2.53") {
		if strings.HasPrefix(q, "_acme") || strings.HasPrefix(q, "shop.dcv.test. ") {
			t.Errorf("the resolver was asked for %s", q)
		}
	}
}

func TestNonsenseTouchesNothing(t *testing.T) {
	t.Parallel()
	w := twoZones(t)
	s := dns01.Solver{Writer: writer{w}, Lookup: w.Client()}
	for what, change := range map[string]func(*farm.Challenge){
		"another method": func(c *farm.Challenge) { c.Type = "http-01" },
		"a short value":  func(c *farm.Challenge) { c.Value = c.Value[1:] },
		"an odd value":   func(c *farm.Challenge) { c.Value = strings.Repeat(`"`, 43) },
		"no name":        func(c *farm.Challenge) { c.Name = "" },
		"an odd name":    func(c *farm.Challenge) { c.Name = "a b.farm.test" },
		"a long name":    func(c *farm.Challenge) { c.Name = strings.Repeat("a.", 120) + "farm.test" },
		"an address":     func(c *farm.Challenge) { c.Name = "192.0.2.1" },
		"an IPv6 one":    func(c *farm.Challenge) { c.Name = "2001:db8::1" },
	} {
		c := challenge("www.farm.test", 1)
		change(&c)
		if r, err := s.Present(t.Context(), c); err == nil || r != nil {
			t.Errorf("%s is accepted: %s", what, r)
		}
		if err := s.CleanUp(t.Context(), c, nil); err == nil {
			t.Errorf("%s is cleaned up", what)
		}
	}
}

// present puts a challenge up in a world whose clock the test has.
func present(t *testing.T, w *lookuptest.World, c farm.Challenge) (dns01.Solver, prove.Receipt, *time.Time) {
	t.Helper()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := dns01.Solver{Writer: writer{w}, Lookup: w.Client(), Silent: time.Minute, Now: func() time.Time { return now }}
	r, err := s.Present(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return s, r, &now
}

func wantReady(t *testing.T, s dns01.Solver, c farm.Challenge, r prove.Receipt, want bool) {
	t.Helper()
	if got, err := s.Ready(t.Context(), c, r); err != nil || got != want {
		t.Errorf("ready: %v, want %v; %v", got, want, err)
	}
}

func TestALaggingServerIsAlwaysWaitedFor(t *testing.T) {
	t.Parallel()
	w, c := twoZones(t), challenge("shop.farm.test", 1)
	w.Break("192.0.2.5", lookuptest.Lagging)
	s, r, now := present(t, w, c)
	for range 3 {
		wantReady(t, s, c, r, false)
		*now = now.Add(time.Hour)
	}
	sights, err := s.Spread(t.Context(), r)
	if err != nil || len(sights) != 3 || sights[0].State != dns01.Has || sights[1].State != dns01.Lacks || sights[2].State != dns01.Has {
		t.Fatalf("%+v, %v", sights, err)
	}
	want := "2 of 3 name servers have the TXT value: ns2.dcv.test (192.0.2.5) does not have it yet (shop.dcv.test does not exist)"
	if got := dns01.Tell(sights); got != want {
		t.Errorf("told: %s", got)
	}
	before := len(w.Asked("192.0.2.5"))
	w.Break("192.0.2.5", lookuptest.None)
	wantReady(t, s, c, r, true)
	if asked := len(w.Asked("192.0.2.5")) - before; asked != 2 {
		t.Errorf("asked %d times when all agree, want twice", asked)
	}
}

func TestAServerThatForgetsAtTheSecondQuestion(t *testing.T) {
	t.Parallel()
	w, c := twoZones(t), challenge("www.farm.test", 1)
	s, r, _ := present(t, w, c)
	var asked atomic.Int32 // one address, two servers behind it
	w.Answer("192.0.2.2", func(q *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		m.Authoritative = true
		if q.Question[0].Qtype == dns.TypeTXT && asked.Add(1) == 1 {
			m.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{c.Value}}}
		}
		return m
	})
	wantReady(t, s, c, r, false)
}

func TestADeadServerIsLeftOutAfterAWhile(t *testing.T) {
	t.Parallel()
	for _, fault := range []lookuptest.Fault{lookuptest.Silent, lookuptest.Failing, lookuptest.Refusing, lookuptest.Lame} {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			w, c := twoZones(t), challenge("shop.farm.test", 1)
			w.Break("192.0.2.5", fault)
			s, r, now := present(t, w, c)
			s.Lookup.Timeout = 200 * time.Millisecond
			wantReady(t, s, c, r, false)
			if sights, err := s.Spread(t.Context(), r); err != nil || sights[1].State != dns01.Silent || sights[1].Why == "" {
				t.Errorf("%+v, %v", sights, err)
			}
			*now = now.Add(time.Minute - time.Second)
			wantReady(t, s, c, r, false)
			*now = now.Add(time.Second)
			wantReady(t, s, c, r, true)
			wantReady(t, s, c, nil, false) // nobody knows since when
			w.Break("192.0.2.4", fault)
			w.Break("192.0.2.6", fault) // now none answers
			*now = now.Add(time.Hour)
			wantReady(t, s, c, r, false)
		})
	}
}

func TestAServerOutOfReachDoesNotCount(t *testing.T) {
	t.Parallel()
	w, c := twoZones(t), challenge("shop.farm.test", 1)
	w.Add("dcv.test", "ns2.dcv.test. 0 IN AAAA 2001:db8::5") // there is no IPv6 here
	s, r, _ := present(t, w, c)
	wantReady(t, s, c, r, true)
	for _, ip := range []string{"192.0.2.4", "192.0.2.5", "192.0.2.6"} {
		w.Break(ip, lookuptest.NoRoute)
	}
	wantReady(t, s, c, r, false)
	sights, err := s.Spread(t.Context(), r)
	if got := dns01.Tell(sights); err != nil || !strings.HasPrefix(got, "0 of 4 ") || !strings.Contains(got, "open port 53") {
		t.Errorf("%s, %v", got, err)
	}
}

func TestACNAMESetMeanwhileIsTold(t *testing.T) {
	t.Parallel()
	w, c := twoZones(t), challenge("www.farm.test", 1)
	s, r, _ := present(t, w, c)
	w.Delete("farm.test", "_acme-challenge.www.farm.test")
	w.Add("farm.test", "_acme-challenge.www.farm.test. 0 IN CNAME www.dcv.test.")
	wantReady(t, s, c, r, false)
	sights, err := s.Spread(t.Context(), r)
	if got := dns01.Tell(sights); err != nil || !strings.Contains(got, "has a CNAME now, to www.dcv.test") {
		t.Errorf("%s, %v", got, err)
	}
}

func TestCleanUpGoesByTheReceipt(t *testing.T) {
	t.Parallel()
	w, c := twoZones(t), challenge("shop.farm.test", 1)
	s, r, _ := present(t, w, c)
	w.Delete("farm.test", "_acme-challenge.shop.farm.test") // the CNAME is gone
	if err := s.CleanUp(t.Context(), c, r); err != nil || len(w.Texts("dcv.test", "shop.dcv.test")) != 0 {
		t.Errorf("%v; left: %q", err, w.Texts("dcv.test", "shop.dcv.test"))
	}
}

func TestABrokenReceiptTakesNothingOfOthers(t *testing.T) {
	t.Parallel()
	w, c := twoZones(t), challenge("www.farm.test", 1)
	w.Add("farm.test", `farm.test. 0 IN TXT "v=spf1 -all"`)
	s, r, _ := present(t, w, c)
	for _, broken := range []string{"", "{", "null", `{"zone":"farm.test","name":"farm.test","value":"v=spf1 -all"}`, strings.Replace(string(r), `"zone":"farm.test"`, `"zone":"dcv.test"`, 1)} {
		if _, err := s.Spread(t.Context(), prove.Receipt(broken)); err == nil {
			t.Errorf("%q is read", broken)
		}
		if err := s.CleanUp(t.Context(), c, prove.Receipt(broken)); err != nil || len(w.Texts("farm.test", "_acme-challenge.www.farm.test")) != 0 {
			t.Errorf("%q: the challenge alone does not do: %v", broken, err)
		}
		if _, err := s.Present(t.Context(), c); err != nil {
			t.Error(err)
		}
	}
	if got := w.Texts("farm.test", "farm.test"); len(got) != 1 {
		t.Errorf("left: %q", got)
	}
}

// refuses is a writer that may not.
type refuses struct{}

var errMayNot = errors.New("REFUSED")

func (refuses) Put(context.Context, dns01.Record) error    { return errMayNot }
func (refuses) Remove(context.Context, dns01.Record) error { return dns01.Left }

func TestARefusalSaysWhatToDo(t *testing.T) {
	t.Parallel()
	w := twoZones(t)
	s := dns01.Solver{Writer: refuses{}, Lookup: w.Client()}
	_, err := s.Present(t.Context(), challenge("www.farm.test", 1))
	if !errors.Is(err, errMayNot) || !strings.Contains(err.Error(), "in the zone farm.test") || !strings.Contains(err.Error(), "set a CNAME at _acme-challenge.www.farm.test") {
		t.Errorf("%v", err)
	}
	err = s.CleanUp(t.Context(), challenge("shop.farm.test", 1), nil)
	if !errors.Is(err, dns01.Left) || !strings.Contains(err.Error(), "shop.dcv.test in the zone dcv.test") {
		t.Errorf("%v", err)
	}
}

func TestWhere(t *testing.T) {
	t.Parallel()
	w := twoZones(t)
	w.Add("dcv.test", "via.dcv.test. 0 IN CNAME end.dcv.test.")
	rules := map[string]string{
		"*.farm.test": "all.dcv.test", "*.a.farm.test": "a.dcv.test", "b.a.farm.test": "via.dcv.test",
		"self.farm.test": "_acme-challenge.self.farm.test", "lost.farm.test": "lost.invalid",
	}
	for name, want := range map[string]struct {
		rules             map[string]string
		rule, trail, zone string
	}{
		"shop.farm.test":    {nil, "", "_acme-challenge.shop.farm.test → _acme-challenge.hop.farm.test → shop.dcv.test", "dcv.test"},
		"Shop.farm.test.":   {map[string]string{"*.other.test": "x.dcv.test"}, "", "_acme-challenge.shop.farm.test → _acme-challenge.hop.farm.test → shop.dcv.test", "dcv.test"},
		"c.farm.test":       {rules, "*.farm.test", "_acme-challenge.c.farm.test → all.dcv.test", "dcv.test"},
		"farm.test":         {rules, "*.farm.test", "_acme-challenge.farm.test → all.dcv.test", "dcv.test"}, // its wildcard is taken, and has the same record
		"a.farm.test":       {rules, "*.a.farm.test", "_acme-challenge.a.farm.test → a.dcv.test", "dcv.test"},
		"c.a.farm.test":     {rules, "*.a.farm.test", "_acme-challenge.c.a.farm.test → a.dcv.test", "dcv.test"},
		"x.c.a.farm.test":   {rules, "*.a.farm.test", "_acme-challenge.x.c.a.farm.test → a.dcv.test", "dcv.test"},
		"b.a.farm.test":     {rules, "b.a.farm.test", "_acme-challenge.b.a.farm.test → via.dcv.test → end.dcv.test", "dcv.test"},
		"self.farm.test":    {rules, "self.farm.test", "_acme-challenge.self.farm.test", "farm.test"},
		"nothere.farm.test": {nil, "", "_acme-challenge.nothere.farm.test", "farm.test"},
	} {
		p, err := dns01.Where(t.Context(), w.Client(), want.rules, name)
		if err != nil || p.Rule != want.rule || strings.Join(p.Path, " → ") != want.trail || p.Zone != want.zone || len(p.Servers) != 3 || p.Name != p.Path[len(p.Path)-1] {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	if p, err := dns01.Where(t.Context(), w.Client(), rules, "lost.farm.test"); err == nil || len(p.Path) != 2 {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestTellIsShort(t *testing.T) {
	t.Parallel()
	var sights []dns01.Sight
	for i := range 30 {
		sights = append(sights, dns01.Sight{Server: fmt.Sprintf("ns%d.dcv.test (192.0.2.%d)", i, i), State: dns01.Lacks})
	}
	if got := dns01.Tell(sights); len(got) > 400 || !strings.Contains(got, "and 26 more") {
		t.Errorf("%s", got)
	}
}
