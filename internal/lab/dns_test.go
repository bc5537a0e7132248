package lab

import (
	"testing"

	"github.com/miekg/dns"
)

func ask(t *testing.T, d *DNS, network, name string, qtype uint16) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, qtype)
	r, _, err := (&dns.Client{Net: network}).ExchangeContext(soon(t), m, d.Addr())
	must(t, err)
	return r
}

func TestDNS(t *testing.T) {
	d, err := NewDNS()
	must(t, err)
	defer func() { must(t, d.Close()) }()
	must(t, d.Set("www.Shop.test", "127.0.0.1"))
	must(t, d.Set("six.shop.test", "127.0.0.1", "::1"))
	must(t, d.SetRecords("_acme-challenge.shop.test", dns.TypeTXT, `_acme-challenge.shop.test. 0 IN TXT "token"`))

	for _, c := range []struct {
		name    string
		qtype   uint16
		rcode   int
		answers int
	}{
		{"www.shop.test.", dns.TypeA, dns.RcodeSuccess, 1},
		{"WWW.shop.TEST.", dns.TypeA, dns.RcodeSuccess, 1},
		{"six.shop.test.", dns.TypeAAAA, dns.RcodeSuccess, 1},
		{"www.shop.test.", dns.TypeAAAA, dns.RcodeSuccess, 0},
		{"www.shop.test.", dns.TypeCAA, dns.RcodeSuccess, 0},
		{"shop.test.", dns.TypeA, dns.RcodeSuccess, 0}, // a name below it exists
		{"_acme-challenge.shop.test.", dns.TypeTXT, dns.RcodeSuccess, 1},
		{"_443._tcp.www.shop.test.", dns.TypeTLSA, dns.RcodeNameError, 0},
		{"nobody.shop.test.", dns.TypeA, dns.RcodeNameError, 0},
	} {
		for _, network := range []string{"udp", "tcp"} {
			r := ask(t, d, network, c.name, c.qtype)
			if r.Rcode != c.rcode || len(r.Answer) != c.answers || !r.Authoritative || !r.RecursionAvailable {
				t.Errorf("%s %s over %s: %v", c.name, dns.TypeToString[c.qtype], network, r)
			}
			if c.answers == 0 && (len(r.Ns) != 1 || r.Ns[0].Header().Rrtype != dns.TypeSOA) {
				t.Errorf("%s %s: a negative answer without SOA: %v", c.name, dns.TypeToString[c.qtype], r)
			}
		}
	}
	if n := d.Asked("www.shop.test", dns.TypeA); n != 4 {
		t.Errorf("asked %d times, want 4", n)
	}

	d.Forget("www.shop.test")
	if r := ask(t, d, "udp", "www.shop.test.", dns.TypeA); r.Rcode != dns.RcodeNameError {
		t.Errorf("a forgotten name: %v", r)
	}
}

func TestDNSRefusesBadRecords(t *testing.T) {
	d, err := NewDNS()
	must(t, err)
	defer func() { must(t, d.Close()) }()
	if d.Set("a.test", "300.0.0.1") == nil {
		t.Error("takes 300.0.0.1 for an address")
	}
	if d.SetRecords("a.test", dns.TypeTXT, "a.test. A 127.0.0.1") == nil {
		t.Error("takes an A record for a TXT record")
	}
}
