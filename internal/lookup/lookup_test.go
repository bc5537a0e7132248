package lookup_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/lookup"
	"github.com/certfarm/certfarm/internal/lookup/lookuptest"
)

// farm is a world with one zone on two servers.
func farm(t testing.TB) *lookuptest.World {
	w := lookuptest.New(t)
	w.Zone("farm.test", "192.0.2.1", "192.0.2.2")
	return w
}

func TestALongAnswerComesOverTCP(t *testing.T) {
	t.Parallel()
	w := farm(t)
	for i := range 40 {
		w.Add("farm.test", fmt.Sprintf(`long.farm.test. 0 IN TXT "%03d%s"`, i, strings.Repeat("x", 200)))
	}
	c := w.Client()
	a, err := c.At(t.Context(), "192.0.2.1:53", lookup.Question{Name: "long.farm.test", Type: dns.TypeTXT, Direct: true})
	if err != nil || len(lookup.Texts(a.Records, "LONG.farm.test.")) != 40 || !a.Authority {
		t.Errorf("%d records, authority %v, %v", len(a.Records), a.Authority, err)
	}
	if got := w.Dialled(); !slices.Equal(got, []string{"udp 192.0.2.1:53", "tcp 192.0.2.1:53"}) {
		t.Errorf("connected to %q", got)
	}
}

func TestWhatIsNoAnswer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer func(q, m *dns.Msg) *dns.Msg
		want   string
	}{
		"silence":                {func(_, _ *dns.Msg) *dns.Msg { return nil }, "timeout"},
		"failure":                {func(_, m *dns.Msg) *dns.Msg { m.Rcode = dns.RcodeServerFailure; return m }, "SERVFAIL"},
		"refusal":                {func(_, m *dns.Msg) *dns.Msg { m.Rcode = dns.RcodeRefused; return m }, "REFUSED"},
		"refusal, no question":   {func(_, m *dns.Msg) *dns.Msg { m.Rcode, m.Question = dns.RcodeRefused, nil; return m }, "REFUSED"},
		"the question come back": {func(q, _ *dns.Msg) *dns.Msg { return q }, "another question"},
		"another name":           {func(_, m *dns.Msg) *dns.Msg { m.Question[0].Name = "other.test."; return m }, "another question"},
		"another type":           {func(_, m *dns.Msg) *dns.Msg { m.Question[0].Qtype = dns.TypeA; return m }, "another question"},
		"nothing about anything": {func(_, m *dns.Msg) *dns.Msg { m.Question = nil; return m }, "another question"},
		"cut short over TCP":     {func(_, m *dns.Msg) *dns.Msg { m.Truncated = true; return m }, "cut short"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := lookuptest.New(t)
			w.Answer("192.0.2.9", func(q *dns.Msg) *dns.Msg { return c.answer(q, new(dns.Msg).SetReply(q)) })
			client := w.Client()
			if name == "silence" {
				client.Timeout = 50 * time.Millisecond
			}
			_, err := client.At(t.Context(), "192.0.2.9:53", lookup.Question{Name: "www.farm.test", Type: dns.TypeTXT})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want it to say %q", err, c.want)
			}
			if _, answered := errors.AsType[*lookup.Failure](err); answered != (strings.ToUpper(c.want) == c.want) {
				t.Errorf("%v is a Failure: %v", err, answered)
			}
		})
	}
}

func TestAServerFromBeforeEDNS(t *testing.T) {
	t.Parallel()
	w := lookuptest.New(t)
	w.Answer("192.0.2.9", func(q *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		if q.IsEdns0() != nil {
			m.Rcode, m.Question = dns.RcodeFormatError, nil
		}
		return m
	})
	a, err := w.Client().At(t.Context(), "192.0.2.9:53", lookup.Question{Name: "www.farm.test", Type: dns.TypeTXT})
	if err != nil || !a.Exists() {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestSilenceEndsWithTheContext(t *testing.T) {
	t.Parallel()
	w := farm(t)
	w.Break("192.0.2.1", lookuptest.Silent)
	c := w.Client()
	c.Timeout = time.Hour
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	w.Answer("192.0.2.1", func(*dns.Msg) *dns.Msg { cancel(enough); return nil })
	if _, err := c.At(ctx, "192.0.2.1:53", lookup.Question{Name: "farm.test", Type: dns.TypeSOA}); !errors.Is(err, enough) {
		t.Errorf("%v", err)
	}
}

func TestNoWay(t *testing.T) {
	t.Parallel()
	c := lookuptest.New(t).Client()
	if _, err := c.At(t.Context(), "192.0.2.200:53", lookup.Question{Name: "farm.test", Type: dns.TypeSOA}); !errors.Is(err, lookup.NoWay) {
		t.Errorf("%v", err)
	}
}

func TestTheNextResolverIsAskedInstead(t *testing.T) {
	t.Parallel()
	w := farm(t)
	for _, ip := range []string{"192.0.2.11", "192.0.2.12"} {
		w.Answer(ip, func(q *dns.Msg) *dns.Msg { return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure) })
	}
	c := w.Client()
	c.Resolvers["."] = []string{"192.0.2.11:53", lookuptest.Resolver, "192.0.2.12:53"}
	a, err := c.Ask(t.Context(), lookup.Question{Name: "farm.test", Type: dns.TypeSOA})
	if err != nil || a.Server != lookuptest.Resolver || len(w.Asked("192.0.2.11")) != 1 || len(w.Asked("192.0.2.12")) != 0 {
		t.Errorf("%+v, %v", a, err)
	}
	c.Resolvers["."] = []string{"192.0.2.11:53", "192.0.2.12:53"}
	if _, err = c.Ask(t.Context(), lookup.Question{Name: "farm.test", Type: dns.TypeSOA}); err == nil || !strings.Contains(err.Error(), "192.0.2.11") || !strings.Contains(err.Error(), "192.0.2.12") {
		t.Errorf("%v", err)
	}
}

func TestResolversOfTheSmallestZone(t *testing.T) {
	t.Parallel()
	w := lookuptest.New(t)
	for _, ip := range []string{"192.0.2.11", "192.0.2.12", "192.0.2.13"} {
		w.Answer(ip, func(q *dns.Msg) *dns.Msg { return new(dns.Msg).SetReply(q) })
	}
	c := w.Client()
	c.Resolvers = map[string][]string{".": {"192.0.2.11:53"}, "farm.test": {"192.0.2.12:53"}, "Shop.farm.test.": {"192.0.2.13:53"}}
	for name, want := range map[string]string{
		"test": "192.0.2.11:53", "otherfarm.test": "192.0.2.11:53", "FARM.test": "192.0.2.12:53",
		"workshop.farm.test": "192.0.2.12:53", "shop.farm.test": "192.0.2.13:53", "a.b.shop.farm.test.": "192.0.2.13:53",
	} {
		if a, err := c.Ask(t.Context(), lookup.Question{Name: name, Type: dns.TypeA}); err != nil || a.Server != want {
			t.Errorf("%s is asked of %s, want %s; %v", name, a.Server, want, err)
		}
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	w := farm(t)
	w.Add("farm.test", "www.farm.test. 0 IN A 192.0.2.7", "www.farm.test. 0 IN A 192.0.2.6", "www.farm.test. 0 IN AAAA 2001:db8::1", "text.farm.test. 0 IN TXT x")
	c := w.Client()
	got, err := c.Addresses(t.Context(), "www.farm.test")
	want := []netip.Addr{netip.MustParseAddr("192.0.2.6"), netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::1")}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err = c.Addresses(t.Context(), "2001:db8::5"); err != nil || len(got) != 1 {
		t.Errorf("of an address: %v, %v", got, err)
	}
	if got, err = c.Addresses(t.Context(), "text.farm.test"); err != nil || len(got) != 0 {
		t.Errorf("of a name with other records: %v, %v", got, err)
	}
	if _, err = c.Addresses(t.Context(), "none.farm.test"); err == nil || !strings.Contains(err.Error(), "NXDOMAIN") {
		t.Errorf("of no name: %v", err)
	}
}
