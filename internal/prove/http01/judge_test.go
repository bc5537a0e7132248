package http01

import (
	"context"
	"errors"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"unicode"

	"github.com/certfarm/certfarm/internal/farm"
)

func TestSuspect(t *testing.T) {
	t.Parallel()
	ip := netip.MustParseAddr
	unclear := func(address string) []Finding {
		return []Finding{
			{Name: "a.test", Address: address, Verdict: Unclear, Saw: "no answer in time", Remedy: "open it"},
			{Name: "a.test", Node: "web1", Address: "198.51.100.9", Verdict: Unclear, Remedy: "open it"},
		}
	}
	home := []netip.Addr{ip("127.0.0.1"), ip("192.168.1.5"), ip("fe80::1")}
	for name, c := range map[string]struct {
		address string
		own     []netip.Addr
		says    string // "": nothing is added
	}{
		"behind a router":     {"198.51.100.7", home, "hairpin NAT"},
		"on the internet":     {"198.51.100.7", []netip.Addr{ip("198.51.100.3"), ip("10.0.0.1")}, ""},
		"our own":             {"198.51.100.3", []netip.Addr{ip("198.51.100.3")}, "this machine's own"},
		"loopback":            {"127.0.0.1", home, ""},
		"a private address":   {"10.1.1.1", home, ""},
		"IPv6 has no hairpin": {"2001:db8::1", home, ""},
		"no address":          {"", home, ""},
	} {
		got := suspect(unclear(c.address), c.own)
		added := strings.TrimPrefix(got[0].Remedy, "open it")
		if (added == "") != (c.says == "") || !strings.Contains(added, c.says) {
			t.Errorf("%s: %q", name, added)
		}
		if got[1].Remedy != "open it" {
			t.Errorf("%s: a node's finding got %q", name, got[1].Remedy)
		}
	}
	right := []Finding{{Address: "198.51.100.7", Verdict: Right}}
	if got := suspect(right, home); got[0].Remedy != "" {
		t.Errorf("a right answer got %q", got[0].Remedy)
	}
}

func TestPrivate(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"10.1.2.3": true, "192.168.0.1": true, "172.31.0.1": true, "127.0.0.1": true, "169.254.1.1": true, "100.64.0.1": true, "fd00::1": true, "::1": true,
		"fe80::1": true, "0.0.0.0": true, "100.128.0.1": false, "172.32.0.1": false, "198.51.100.1": false, "2001:db8::1": false,
	} {
		if got := private(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// FuzzAnswer lets a server answer anything. What is told is fit to be shown, has a
// remedy unless it is right, and is right for our answer only.
func FuzzAnswer(f *testing.F) {
	token, want := Question("seed")
	f.Add(200, want, "nginx", "", "", uint8(0))
	f.Add(404, "no\x1b[31m", "Apache", "http", "acme.test", uint8(1))
	f.Add(200, token+".other", "Microsoft-IIS", "https", "old.test", uint8(2))
	f.Add(0, "", "", "http", "www.test", uint8(0x83))
	ways := []farm.Validation{
		{Via: farm.Gateway}, {Via: farm.Redirect, To: "http://acme.test"}, {Via: farm.Stateless}, {Via: farm.Distribute, Webroot: "/www"},
		{Via: farm.Redirect, To: "%zz"},
	}
	f.Fuzz(func(t *testing.T, status int, body, server, scheme, to string, bits uint8) {
		a := Ask{Names: []string{"www.test"}, Token: token, Want: want, How: ways[int(bits&0xf)%len(ways)], Public: bits&0x10 != 0}.withDefaults()
		c := cell{name: "www.test", target: &target{port: 80, drained: bits&0x20 != 0}}
		if bits&0x40 != 0 {
			c.target.node = "web1"
		}
		s := seen{address: netip.MustParseAddr("198.51.100.7"), status: status, server: server, body: body}
		if to != "" {
			s.hops = []hop{{scheme, to}}
		}
		if bits&0x80 != 0 {
			s.err = errors.New(body)
		}
		got := a.judge(c, s)
		ours := status == 200 && s.err == nil && strings.TrimRight(body, " \t\r\n") == want
		if (got.Verdict == Right) != ours || (got.Remedy == "") != ours || got.Saw == "" && !(s.err != nil && body == "") {
			t.Errorf("%+v of %+v", got, s)
		}
		if c.target.drained && got.Verdict == Wrong {
			t.Errorf("a drained node is wrong: %+v", got)
		}
		if text := got.Saw + got.Remedy; len(text) > 3000 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsGraphic(r) }) {
			t.Errorf("not fit to be shown: %q", text)
		}
		if s := Summarise([]Finding{got, got}); len(s) != 1 || s[0].Cells != 2 {
			t.Errorf("summed up as %+v", s)
		}
	})
}

// FuzzToken lets a CA send anything as a token, and anybody ask for anything:
// what is looked up or becomes a path is a token.
func FuzzToken(f *testing.F) {
	f.Add("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
	f.Add("../../../../../../etc/passwd")
	f.Add("aaaaaaaaaaaaaaaaaaaaaaaaaaaa/../x")
	f.Add("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n")
	f.Fuzz(func(t *testing.T, token string) {
		clean := func(token string) {
			if len(token) < 22 || len(token) > 256 || strings.ContainsAny(token, "./\\:\x00\n ") {
				t.Errorf("%q is taken for a token", token)
			}
		}
		h := Handler(func(_ context.Context, token string) (string, bool, error) {
			clean(token)
			return token + ".x", true, nil
		})
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Path = Path + token
		h.ServeHTTP(httptest.NewRecorder(), r)
		if err := check(farm.Challenge{Type: Method, Token: token, Value: token + ".x"}); err == nil {
			clean(token)
		}
	})
}
