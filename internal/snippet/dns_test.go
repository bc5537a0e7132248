package snippet

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/farm"
)

func delegated() DNSAsk {
	return DNSAsk{
		Names: []string{"shop.example.com", "*.shop.example.com", "www.shop.example.com", "example.net", "x.auth.example.net"},
		Zone:  "auth.example.net", Delegate: map[string]string{"*.shop.example.com": "short.auth.example.net."},
		Servers: []NameServer{{"ns1.auth.example.net", []string{"192.0.2.1", "2001:db8::1"}}, {"ns2.example.org", []string{"192.0.2.2"}}},
		Pin:     Pin{"letsencrypt.org", "https://acme-v02.api.letsencrypt.org/acme/acct/123"}, Methods: []string{farm.DNS01},
		Persist: true, Until: time.Unix(1900000000, 0),
	}
}

func TestDNS(t *testing.T) {
	s, err := DNS(delegated())
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "dns.txt", s.String())
	if n := records(t, s); n != 14 {
		t.Errorf("%d records", n)
	}
	caa, err := dns.NewRR(strings.SplitN(s.Parts[len(s.Parts)-1].Text, "\n", 2)[0])
	if err != nil || caa.(*dns.CAA).Value != "letsencrypt.org; accounturi=https://acme-v02.api.letsencrypt.org/acme/acct/123; validationmethods=dns-01" {
		t.Error(caa, err)
	}
}

// records reads every line as a name server does.
func records(t *testing.T, s Snippet) (n int) {
	t.Helper()
	for _, p := range s.Parts {
		for line := range strings.Lines(p.Text) {
			rr, err := dns.NewRR(line)
			if err != nil || rr == nil || rr.Header().Ttl != ttl || !dns.IsFqdn(strings.Fields(line)[0]) {
				t.Errorf("%q is no record: %v", line, err)
			}
			n++
		}
	}
	return n
}

func TestDNSByNS(t *testing.T) {
	s, err := DNS(DNSAsk{Names: []string{"shop.test"}, Zone: "_acme-challenge.shop.test", Servers: []NameServer{{"ns.farm.test", nil}}})
	if err != nil || len(s.Parts) != 1 || !strings.Contains(s.Parts[0].Text, "_acme-challenge.shop.test. 3600 IN NS ns.farm.test.") {
		t.Error(err, s)
	}
}

// TestPinned: names that are proven over HTTP are pinned too.
func TestPinned(t *testing.T) {
	s, err := DNS(DNSAsk{Pinned: []string{"shop.test", "www.shop.test", "192.0.2.1"}, Pin: Pin{Issuer: "ca.test"}, Methods: []string{farm.HTTP01}})
	if err != nil || len(s.Parts) != 1 || s.Parts[0].Text != "shop.test. 3600 IN CAA 0 issue \"ca.test; validationmethods=http-01\"\n" {
		t.Error(err, s)
	}
}

func TestDNSRefused(t *testing.T) {
	long := strings.Repeat(strings.Repeat("x", 60)+".", 3) + "test"
	for name, c := range map[string]struct {
		change func(*DNSAsk)
		want   string
	}{
		"nothing":      {func(a *DNSAsk) { *a = DNSAsk{Names: a.Names} }, "nothing to set"},
		"no name":      {func(a *DNSAsk) { a.Names = nil }, "there is no name"},
		"address":      {func(a *DNSAsk) { a.Names = []string{"192.0.2.1"} }, "addresses are proven over HTTP"},
		"too long":     {func(a *DNSAsk) { a.Names, a.Zone = []string{long}, "auth."+long }, "give a shorter one in `delegate`"},
		"no servers":   {func(a *DNSAsk) { a.Servers = nil }, "no name servers"},
		"no glue":      {func(a *DNSAsk) { a.Servers[0].Addresses = nil }, "nobody could find it"},
		"bad glue":     {func(a *DNSAsk) { a.Servers[0].Addresses = []string{"1.2.3"} }, `address "1.2.3"`},
		"issuer":       {func(a *DNSAsk) { a.Pin.Issuer = `x"` }, "caaIdentities"},
		"account":      {func(a *DNSAsk) { a.Pin.Account = `https://x/"; policy=wildcard` }, "no URL as a record can hold it"},
		"no account":   {func(a *DNSAsk) { a.Pin.Account = "" }, "names the account"},
		"method":       {func(a *DNSAsk) { a.Methods = []string{`dns-01"`} }, "method"},
		"zone's lines": {func(a *DNSAsk) { a.Zone = "x\ny" }, "zone:"},
	} {
		t.Run(name, func(t *testing.T) {
			a := delegated()
			c.change(&a)
			s, err := DNS(a)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v\n%s\nwant %q", err, s, c.want)
			}
		})
	}
}

// FuzzDNS holds that each line is one record, whatever is given.
func FuzzDNS(f *testing.F) {
	f.Add("shop.test", "auth.test", "ns.auth.test", "192.0.2.1", "ca.test", "https://ca.test/acct/1", "dns-01", "to.test")
	f.Add("*.shop.test", "_a.test", "x\ny", "::1", `ca.test"`, "https://ca.test/\" ( ;", ";", "$INCLUDE")
	f.Add("a.test", "", "", "", "ca.test", "https://ca.test/"+strings.Repeat("x", 300), "http-01", "b\\.test")
	f.Fuzz(func(t *testing.T, name, zone, ns, ip, issuer, account, method, to string) {
		s, err := DNS(DNSAsk{
			Names: []string{name}, Zone: zone, Servers: []NameServer{{ns, []string{ip}}}, Delegate: map[string]string{name: to},
			Pin: Pin{issuer, account}, Methods: []string{method}, Persist: account != "",
		})
		if err == nil {
			records(t, s)
		}
	})
}

func TestSudoers(t *testing.T) {
	s, err := Sudoers(SudoersAsk{Node: "web1", User: "deploy", Commands: [][]string{
		{"/usr/sbin/nginx", "-t"}, {"/usr/sbin/nginx", "-s", "reload"}, {"/usr/sbin/nginx"}, {"/usr/sbin/nginx", "-t"},
		{"/usr/bin/systemctl", "reload", "app@x:y,z=1"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "sudoers.txt", s.String())
	visudo(t, s)
}

func visudo(t *testing.T, s Snippet) {
	t.Helper()
	path, err := exec.LookPath("visudo")
	if err != nil {
		t.Skip("visudo is missing: apt-get install sudo")
	}
	file := filepath.Join(t.TempDir(), "rule")
	if err := os.WriteFile(file, []byte(s.Parts[0].Text), 0o440); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(path, "-csf", file).CombinedOutput(); err != nil {
		t.Errorf("visudo: %v: %s\n%s", err, out, s)
	}
}

// A program without its folder is where distributions have it, and people are told.
func TestSudoersUsualPaths(t *testing.T) {
	s, err := Sudoers(SudoersAsk{Node: "web1", User: "deploy", Commands: [][]string{{"nginx", "-t"}, {"nginx", "-s", "reload"}}})
	if err != nil {
		t.Fatal(err)
	}
	if text := s.String(); strings.Count(text, "/usr/sbin/nginx -") != 2 || strings.Count(text, "taken to be /usr/sbin/nginx.") != 1 {
		t.Errorf("got\n%s", text)
	}
}

func TestSudoersRefused(t *testing.T) {
	for name, a := range map[string]SudoersAsk{
		"everybody":   {User: "ALL", Commands: [][]string{{"/bin/true"}}},
		"group":       {User: "%wheel", Commands: [][]string{{"/bin/true"}}},
		"alias":       {User: "ADMINS", Commands: [][]string{{"/bin/true"}}},
		"no command":  {User: "deploy"},
		"no path":     {User: "deploy", Commands: [][]string{{"webd", "-t"}}},
		"climbing":    {User: "deploy", Commands: [][]string{{"/usr/bin/../sbin/nginx"}}},
		"folder":      {User: "deploy", Commands: [][]string{{"/usr/sbin/"}}},
		"pattern":     {User: "deploy", Commands: [][]string{{"/bin/cat", "/etc/*"}}},
		"expression":  {User: "deploy", Commands: [][]string{{"/bin/cat", "^.*$"}}},
		"line":        {User: "deploy", Commands: [][]string{{"/bin/cat", "a\nroot ALL=ALL"}}},
		"empty word":  {User: "deploy", Commands: [][]string{{"/bin/cat", ""}}},
		"two in one":  {User: "deploy", Commands: [][]string{{"/bin/cat a"}}},
		"second rule": {User: "deploy", Commands: [][]string{{"/bin/cat", "a, ALL"}}},
	} {
		if s, err := Sudoers(a); err == nil {
			t.Errorf("%s: taken:\n%s", name, s)
		}
	}
}

// FuzzSudoers holds that what is taken gives as many rules and commands as were
// asked for.
func FuzzSudoers(f *testing.F) {
	f.Add("web1", "deploy", "/usr/sbin/nginx", "-t")
	f.Add("..", "ALL", "/bin/sh\\", "-c,=:")
	f.Add("a\nb", "x y", "/bin/a b", "!")
	f.Fuzz(func(t *testing.T, node, user, program, word string) {
		s, err := Sudoers(SudoersAsk{Node: node, User: user, Commands: [][]string{{program, word}}})
		if err != nil {
			return
		}
		want := fmt.Sprintf("%s ALL=(root) NOPASSWD: \\\n    %s %s\n", user, program, word)
		got := strings.NewReplacer(`\=`, "=", `\:`, ":", `\,`, ",").Replace(s.Parts[0].Text)
		if got != want || strings.ContainsAny(user+program+word, " \t\n\\*?[]!^\"'#()") || strings.ContainsAny(s.Parts[0].Where, "\n") {
			t.Errorf("%q", s.Parts[0])
		}
	})
}
