package lookup_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/lookup"
	"github.com/certfarm/certfarm/internal/lookup/lookuptest"
)

// twoZones are a shop's, one part of it delegated, and another's for records.
func twoZones(t testing.TB) *lookuptest.World {
	w := farm(t)
	w.Zone("shop.farm.test", "192.0.2.3")
	w.Zone("dcv.test", "192.0.2.4", "192.0.2.5")
	w.Zone("test", "192.0.2.7")
	w.Zone("x.sub.farm.test", "192.0.2.1") // on a server of farm.test: that one does not refer to it
	w.Zone("own.dcv.test", "192.0.2.4", "192.0.2.5")
	w.Add("farm.test", "_acme-challenge.www.farm.test. 0 IN CNAME www.dcv.test.",
		"_acme-challenge.far.farm.test. 0 IN CNAME one.shop.farm.test.",
		"_acme-challenge.ring.farm.test. 0 IN CNAME ring.dcv.test.",
		"_acme-challenge.odd.farm.test. 0 IN CNAME a\\032b.dcv.test.",
		"_acme-challenge.lost.farm.test. 0 IN CNAME gone.nowhere.invalid.",
		"tree.farm.test. 0 IN DNAME tree.dcv.test.",
		"alias.farm.test. 0 IN CNAME www.shop.farm.test.")
	w.Add("shop.farm.test", "one.shop.farm.test. 0 IN CNAME two.dcv.test.")
	w.Add("dcv.test", "two.dcv.test. 0 IN CNAME three.dcv.test.", "ring.dcv.test. 0 IN CNAME _ACME-challenge.ring.farm.test.")
	for i := range 12 {
		w.Add("dcv.test", fmt.Sprintf("n%d.dcv.test. 0 IN CNAME n%d.dcv.test.", i, i+1))
	}
	return w
}

func TestZone(t *testing.T) {
	t.Parallel()
	w := twoZones(t)
	for name, want := range map[string]string{
		"farm.test": "farm.test", "WWW.farm.test.": "farm.test", "a.b.c.farm.test": "farm.test",
		"shop.farm.test": "shop.farm.test", "_acme-challenge.shop.farm.test": "shop.farm.test",
		"_acme-challenge.www.farm.test":  "farm.test", // not where its CNAME leads
		"_acme-challenge.ring.farm.test": "farm.test", "alias.farm.test": "farm.test", "below.alias.farm.test": "farm.test",
		"x.tree.farm.test": "farm.test",
	} {
		if got, err := w.Client().Zone(t.Context(), name); err != nil || got != want {
			t.Errorf("zone of %s: %q, want %q; %v", name, got, want, err)
		}
	}
	if _, err := w.Client().Zone(t.Context(), "www.exmaple.invalid"); err == nil || !strings.Contains(err.Error(), "register the domain") {
		t.Errorf("%v", err)
	}
}

// Some resolvers, such as systemd-resolved, leave out the authority section.
func TestZoneWithoutAuthoritySection(t *testing.T) {
	t.Parallel()
	w := twoZones(t)
	full := w.Client()
	w.Answer("192.0.2.11", func(q *dns.Msg) *dns.Msg {
		a, err := full.Ask(t.Context(), lookup.Question{Name: q.Question[0].Name, Type: q.Question[0].Qtype})
		m := new(dns.Msg).SetReply(q)
		if m.Answer, m.Rcode = a.Records, a.Rcode; err != nil {
			m.Rcode = dns.RcodeServerFailure
		}
		return m
	})
	c := w.Client()
	c.Resolvers["."] = []string{"192.0.2.11:53"}
	for name, want := range map[string]string{"_acme-challenge.shop.farm.test": "shop.farm.test", "_acme-challenge.www.farm.test": "farm.test", "a.b.farm.test": "farm.test"} {
		if got, err := c.Zone(t.Context(), name); err != nil || got != want {
			t.Errorf("zone of %s: %q, want %q; %v", name, got, want, err)
		}
	}
}

func TestZoneOfAFailingServer(t *testing.T) {
	t.Parallel()
	w := twoZones(t)
	w.Break("192.0.2.53", lookuptest.Failing)
	if got, err := w.Client().Zone(t.Context(), "www.farm.test"); err == nil {
		t.Errorf("a failure is taken for %q", got)
	}
}

func TestFollow(t *testing.T) {
	t.Parallel()
	w := twoZones(t)
	for name, want := range map[string]struct {
		path, zone string
		servers    []string
	}{
		"_acme-challenge.farm.test":      {"_acme-challenge.farm.test", "farm.test", []string{"192.0.2.1:53", "192.0.2.2:53"}},
		"_acme-challenge.shop.farm.test": {"_acme-challenge.shop.farm.test", "shop.farm.test", []string{"192.0.2.3:53"}},
		"_ACME-challenge.www.farm.test.": {"_acme-challenge.www.farm.test → www.dcv.test", "dcv.test", []string{"192.0.2.4:53", "192.0.2.5:53"}},
		"_acme-challenge.far.farm.test":  {"_acme-challenge.far.farm.test → one.shop.farm.test → two.dcv.test → three.dcv.test", "dcv.test", []string{"192.0.2.4:53", "192.0.2.5:53"}},
		"x.tree.farm.test":               {"x.tree.farm.test → x.tree.dcv.test", "dcv.test", []string{"192.0.2.4:53", "192.0.2.5:53"}},
		// Found without asking the resolver for them: at the servers of what is above.
		"dcv.test":          {"dcv.test", "dcv.test", []string{"192.0.2.4:53", "192.0.2.5:53"}},
		"shop.farm.test":    {"shop.farm.test", "shop.farm.test", []string{"192.0.2.3:53"}},
		"x.sub.farm.test":   {"x.sub.farm.test", "x.sub.farm.test", []string{"192.0.2.1:53"}},
		"y.x.sub.farm.test": {"y.x.sub.farm.test", "x.sub.farm.test", []string{"192.0.2.1:53"}},
		"test":              {"test", "test", []string{"192.0.2.7:53"}},
		"n2.dcv.test":       {"n2.dcv.test → n3.dcv.test → n4.dcv.test → n5.dcv.test → n6.dcv.test → n7.dcv.test → n8.dcv.test → n9.dcv.test → n10.dcv.test → n11.dcv.test → n12.dcv.test", "dcv.test", []string{"192.0.2.4:53", "192.0.2.5:53"}},
	} {
		p, err := w.Client().Follow(t.Context(), name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var servers []string
		for _, s := range p.Servers {
			servers = append(servers, s.Address)
		}
		if p.Trail() != want.path || p.Zone != want.zone || !slices.Equal(servers, want.servers) || p.Name != p.Path[len(p.Path)-1] {
			t.Errorf("%s: %s in %s at %v", name, p.Trail(), p.Zone, servers)
		}
	}
}

func TestAstray(t *testing.T) {
	t.Parallel()
	w := twoZones(t)
	for name, want := range map[string][]string{
		"_acme-challenge.ring.farm.test": {"circle", "_acme-challenge.ring.farm.test → ring.dcv.test → _acme-challenge.ring.farm.test"},
		"n1.dcv.test":                    {"more than 10", "n1.dcv.test → n2.dcv.test", "→ n11.dcv.test → n12.dcv.test"},
		"_acme-challenge.lost.farm.test": {"→ gone.nowhere.invalid", "there is none in the DNS"},
		"_acme-challenge.odd.farm.test":  {"no name of a record"},
		"a b.farm.test":                  {"no name of a record"},
		"../farm.test":                   {"no name of a record"},
		"":                               {"no name of a record"},
	} {
		p, err := w.Client().Follow(t.Context(), name)
		for _, part := range want {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%q: %v, want it to say %q", name, err, part)
			}
		}
		if strings.Contains(want[0], "→") && len(p.Path) < 2 {
			t.Errorf("%q: the path is lost: %+v", name, p)
		}
	}
}

// A CNAME that was just set is seen although the resolver remembers none.
func TestServersKnowBetterThanAResolver(t *testing.T) {
	t.Parallel()
	w := twoZones(t)
	w.Break("192.0.2.53", lookuptest.Lagging)
	w.Add("farm.test", "_acme-challenge.new.farm.test. 0 IN CNAME new.dcv.test.")
	if p, err := w.Client().Follow(t.Context(), "_acme-challenge.new.farm.test"); err != nil || p.Name != "new.dcv.test" {
		t.Errorf("%+v, %v", p, err)
	}
	c := w.Client()
	c.Recursive = true
	p, err := c.Follow(t.Context(), "_acme-challenge.www.farm.test")
	if err != nil || p.Zone != "dcv.test" || len(p.Servers) != 1 || p.Servers[0].Address != lookuptest.Resolver {
		t.Errorf("by resolvers alone: %+v, %v", p, err)
	}
}

func TestFollowPastDeadServers(t *testing.T) {
	t.Parallel()
	for _, fault := range []lookuptest.Fault{lookuptest.Silent, lookuptest.Lame, lookuptest.Failing, lookuptest.NoRoute} {
		w := twoZones(t)
		c := w.Client()
		if fault == lookuptest.Silent {
			c.Timeout = 2 * time.Second // the living have it, too
		}
		w.Break("192.0.2.1", fault)
		if p, err := c.Follow(t.Context(), "_acme-challenge.www.farm.test"); err != nil || p.Zone != "dcv.test" {
			t.Errorf("one %s: %+v, %v", fault, p, err)
		}
		w.Break("192.0.2.2", fault)
		if p, err := c.Follow(t.Context(), "_acme-challenge.www.farm.test"); err != nil || p.Zone != "dcv.test" {
			t.Errorf("both %s, the resolver answers: %+v, %v", fault, p, err)
		}
	}
}

func TestAuthorities(t *testing.T) {
	t.Parallel()
	w := twoZones(t)
	w.Add("dcv.test", "dcv.test. 0 IN NS lost.dcv.test.", "dcv.test. 0 IN NS again.dcv.test.", "again.dcv.test. 0 IN A 192.0.2.4", "ns1.dcv.test. 0 IN AAAA 2001:db8::4")
	servers, err := w.Client().Authorities(t.Context(), "dcv.test")
	var got []string
	for _, s := range servers {
		got = append(got, s.String())
	}
	want := []string{"again.dcv.test (192.0.2.4)", "lost.dcv.test", "ns1.dcv.test ([2001:db8::4])", "ns2.dcv.test (192.0.2.5)"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	replies := w.Client().Each(t.Context(), servers, lookup.Question{Name: "dcv.test", Type: dns.TypeSOA})
	if replies[0].Err != nil || !replies[0].Answer.Authority || replies[1].Err == nil || !errors.Is(replies[2].Err, lookup.NoWay) || replies[3].Err != nil {
		t.Errorf("%+v", replies)
	}
	w.Delete("dcv.test", "dcv.test")
	if _, err = w.Client().Authorities(t.Context(), "dcv.test"); err == nil || !strings.Contains(err.Error(), "NS records") {
		t.Errorf("%v", err)
	}
}

// One who is referred need not ask a resolver for the name.
func TestReferral(t *testing.T) {
	t.Parallel()
	w := twoZones(t)
	if p, err := w.Client().Follow(t.Context(), "shop.farm.test"); err != nil || p.Zone != "shop.farm.test" {
		t.Errorf("%+v, %v", p, err)
	}
	if asked := w.Asked("192.0.2.53"); slices.Contains(asked, "shop.farm.test. CNAME") {
		t.Errorf("the resolver was asked: %q", asked)
	}
	for what, zone := range map[string]string{"upwards": "test.", "to the same": "farm.test.", "to a neighbour": "other.farm.test.", "elsewhere": "much.longer.than.it.dcv.test."} {
		refer := func(q *dns.Msg) *dns.Msg {
			if q.RecursionDesired {
				t.Errorf("a name server is asked to recurse: %v", q.Question)
			}
			m := new(dns.Msg).SetReply(q)
			m.Ns = []dns.RR{&dns.NS{Hdr: dns.RR_Header{Name: zone, Rrtype: dns.TypeNS, Class: dns.ClassINET}, Ns: "ns1.dcv.test."}}
			return m
		}
		w.Answer("192.0.2.1", refer)
		w.Answer("192.0.2.2", refer)
		if p, err := w.Client().Follow(t.Context(), "www.farm.test"); err != nil || p.Zone != "farm.test" {
			t.Errorf("referred %s: %+v, %v", what, p, err)
		}
	}
}
