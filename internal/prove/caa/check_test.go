package caa_test

import (
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/lookup"
	"github.com/certfarm/certfarm/internal/prove/caa"
)

// A zone is a name server with CAA and CNAME records, which counts questions.
type zone struct {
	records map[string]string // owner to a record without its owner, or to an rcode
	mu      sync.Mutex
	asked   map[string]int
}

func (z *zone) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	name := q.Question[0].Name
	z.mu.Lock()
	z.asked[name]++
	z.mu.Unlock()
	reply := new(dns.Msg).SetReply(q)
	text, known := z.records[strings.TrimSuffix(name, ".")]
	switch {
	case text == "SERVFAIL", text == "BOGUS" && !q.CheckingDisabled:
		reply.Rcode = dns.RcodeServerFailure
	case text == "REFUSED":
		reply.Rcode = dns.RcodeRefused
	case text == "BOGUS":
		soa, _ := dns.NewRR("bogus.test. 1 IN SOA a. b. 1 1 1 1 1")
		reply.Ns = []dns.RR{soa}
	case !known:
		reply.Rcode = dns.RcodeNameError
	default:
		for line := range strings.SplitSeq(text, "\n") {
			if rr, err := dns.NewRR(name + " 1 IN " + line); err == nil && rr != nil {
				reply.Answer = append(reply.Answer, rr)
			}
		}
	}
	_ = w.WriteMsg(reply)
}

func start(t *testing.T, records map[string]string) (*zone, lookup.Client) {
	t.Helper()
	z := &zone{records: records, asked: map[string]int{}}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, Handler: z}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.ActivateAndServe()
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	return z, lookup.Client{Resolvers: map[string][]string{".": {conn.LocalAddr().String()}}}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	z, client := start(t, map[string]string{
		"shop.test":            `CAA 0 issue "letsencrypt.org"` + "\n" + `CAA 0 issuewild ";"`,
		"deep.shop.test":       `CAA 0 iodef "mailto:x@shop.test"`,
		"other.test":           `CAA 0 issue "ca.example"`,
		"pinned.test":          `CAA 0 issue "letsencrypt.org; accounturi=https://le/2; validationmethods=dns-01"`,
		"alias.shop.test":      "CNAME other.test.",
		"empty.shop.test":      "CNAME nothing.other.test.",
		"nothing.other.test":   "",
		"circle.test":          "CNAME round.test.",
		"round.test":           "CNAME circle.test.",
		"failing.test":         "SERVFAIL",
		"www.failing.test":     "",
		"bogus.test":           "BOGUS",
		"refused.test":         "REFUSED",
		"quiet.test":           "",
		"below.strange.test":   "",
		"strange.test":         `CAA 128 future "x"`,
		"esc.test":             `CAA 0 issue "letsencrypt.org; x=\"\\"`,
		"xn--bcher-kva.test":   `CAA 0 issue "letsencrypt.org"`,
		"www.stops.quiet.test": "REFUSED",
	})
	wants := []struct {
		name, zone string
		verdict    caa.Sort
		saw        string
		remedy     string
	}{
		{"shop.test", "shop.test", caa.Right, "allows it", ""},
		{"a.b.Shop.test", "shop.test", caa.Right, "allows it", ""},
		{"*.shop.test", "shop.test", caa.Wrong, "allows nobody", `shop.test. IN CAA 0 issuewild "letsencrypt.org; accounturi=https://le/1; validationmethods=dns-01"`},
		{"www.deep.shop.test", "deep.shop.test", caa.Right, "no CAA record is about", ""},
		{"other.test", "other.test", caa.Wrong, "ca.example may issue", `other.test. IN CAA 0 issue "letsencrypt.org; accounturi=https://le/1; validationmethods=http-01"`},
		{"pinned.test", "pinned.test", caa.Wrong, "only the account https://le/2", "keep those of other CAs"},
		{"alias.shop.test", "other.test", caa.Wrong, "ca.example", ""}, // the target's records, RFC 8659 §3
		{"empty.shop.test", "shop.test", caa.Right, "", ""},            // the climb goes on from the alias
		{"circle.test", "", caa.Unclear, "do not end", ""},
		{"www.failing.test", "failing.test", caa.Wrong, "SERVFAIL", "NOERROR"},
		{"www.bogus.test", "bogus.test", caa.Wrong, "DNSSEC of bogus.test. is broken", "DS record"},
		{"refused.test", "", caa.Unclear, "REFUSED", "resolvers"},
		{"www.quiet.test", "", caa.Right, "no CAA records", ""},
		{"below.strange.test", "strange.test", caa.Wrong, "critical", "take the critical flag off"},
		{"esc.test", "esc.test", caa.Right, "", ""},
		{"xn--bcher-kva.test", "xn--bcher-kva.test", caa.Right, "", ""},
		{"192.0.2.1", "", caa.Right, "not about addresses", ""},
		{"2001:db8::1", "", caa.Right, "not about addresses", ""},
	}
	ask := caa.Ask{
		Issuers: []string{"letsencrypt.org"}, AccountURL: "https://le/1", Lookup: client,
		Methods: map[string]string{"*.shop.test": "dns-01", "other.test": "http-01"},
	}
	for _, w := range wants {
		ask.Names = append(ask.Names, w.name)
	}
	found := caa.Check(t.Context(), ask)
	if len(found) != len(wants) {
		t.Fatalf("%d findings", len(found))
	}
	for i, w := range wants {
		f := found[i]
		if f.Name != w.name || f.Zone != w.zone || f.Verdict != w.verdict || !strings.Contains(f.Saw, w.saw) || !strings.Contains(f.Remedy, w.remedy) {
			t.Errorf("finding %+v\nwant %+v", f, w)
		}
		if (f.Remedy == "") != (f.Verdict == caa.Right) {
			t.Errorf("the remedy: %+v", f)
		}
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if n := z.asked["test."]; n != 1 {
		t.Errorf("the top-level domain was asked for %d times", n)
	}
}

func TestCheckOfACAWithoutNames(t *testing.T) {
	t.Parallel()
	_, client := start(t, map[string]string{"shop.test": `CAA 0 issue "letsencrypt.org"`})
	found := caa.Check(t.Context(), caa.Ask{Names: []string{"shop.test", "free.test"}, Lookup: client})
	if found[0].Verdict != caa.Unclear || found[1].Verdict != caa.Right {
		t.Errorf("%+v", found)
	}
	set, err := caa.Find(t.Context(), client, "www.shop.test.")
	if err != nil || set.Zone != "shop.test" || len(set.Records) != 1 || set.Records[0].Value != "letsencrypt.org" {
		t.Errorf("%+v, %v", set, err)
	}
}
