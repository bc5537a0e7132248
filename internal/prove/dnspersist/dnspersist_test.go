package dnspersist_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lookup/lookuptest"
	"github.com/certfarm/certfarm/internal/prove/dnspersist"
)

const account = "https://ca.example/acct/123"

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestRecord(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		grant      dnspersist.Grant
		name, want string
	}{
		{dnspersist.Grant{Issuer: "ca.example", Account: account}, "www.farm.test", `_validation-persist.www.farm.test. IN TXT "ca.example; accounturi=https://ca.example/acct/123"`},
		{dnspersist.Grant{Issuer: "ca.example", Account: account, Wildcard: true, Until: time.Unix(4102444800, 0)}, "Farm.test.", `_validation-persist.farm.test. IN TXT "ca.example; accounturi=https://ca.example/acct/123; policy=wildcard; persistUntil=4102444800"`},
		{dnspersist.Grant{Issuer: "ca.example", Account: strings.Repeat("a", 300)}, "farm.test", `_validation-persist.farm.test. IN TXT "ca.example; accounturi=` + strings.Repeat("a", 232) + `" "` + strings.Repeat("a", 68) + `"`},
	} {
		r, err := c.grant.Record(c.name)
		if err != nil || r.String() != c.want {
			t.Errorf("%s, %v\nwant %s", r, err, c.want)
			continue
		}
		rr, err := dns.NewRR(r.String())
		if txt, ok := rr.(*dns.TXT); err != nil || !ok || strings.Join(txt.Txt, "") != r.Value {
			t.Errorf("%s is read as %v, %v", r, rr, err)
		}
	}
	for what, bad := range map[string]dnspersist.Grant{
		"no account":        {Issuer: "ca.example"},
		"no issuer":         {Account: account},
		"upper case":        {Issuer: "CA.example", Account: account},
		"last dot":          {Issuer: "ca.example.", Account: account},
		"semicolon":         {Issuer: "ca.example", Account: "https://ca.example; policy=wildcard"},
		"line break":        {Issuer: "ca.example", Account: "https://ca.example\nwww IN A 192.0.2.1"},
		"hyphen at the end": {Issuer: "ca-.example", Account: account},
	} {
		if r, err := bad.Record("farm.test"); err == nil {
			t.Errorf("%s: %s", what, r)
		}
	}
	if r, err := (dnspersist.Grant{Issuer: "ca.example", Account: account}).Record("a b"); err == nil {
		t.Errorf("%s", r)
	}
}

// The cases are those of Pebble's own test.
func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]dnspersist.Grant{
		"ca.example;accounturi=" + account: {Issuer: "ca.example", Account: account},
		"   ca.example   ;   accounturi   =   " + account + "   ;\tpolicy   =   wildcard   ;   persistUntil   =   4102444800   ": {Issuer: "ca.example", Account: account, Wildcard: true, Until: time.Unix(4102444800, 0).UTC()},
		"ca.example; ACCOUNTURI=" + account + "; Policy=WildCard":                                                                {Issuer: "ca.example", Account: account, Wildcard: true},
		"ca.example; accounturi=" + account + "; policy=other; x=y; z=":                                                          {Issuer: "ca.example", Account: account},
		"ca.example; accounturi=a=b":                                 {Issuer: "ca.example", Account: "a=b"},
		"ca.example; accounturi=a; persistUntil=-5":                  {Issuer: "ca.example", Account: "a", Until: time.Unix(0, 0).UTC()},
		"ca.example; accounturi=a; persistUntil=9223372036854775807": {Issuer: "ca.example", Account: "a", Until: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)},
	} {
		if got, err := dnspersist.Parse(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"":                                           "domain of a CA",
		"; accounturi=a":                             "domain of a CA",
		"ca.example":                                 "accounturi is missing",
		"ca.example; accounturi=":                    "accounturi is missing",
		"ca.example; accounturi=a;":                  "no semicolon at the end",
		"ca.example; accounturi=a; ; x=y":            "not tag=value",
		"ca.example; accounturi":                     "not tag=value",
		"ca.example; =a":                             "not tag=value",
		"ca.example; accounturi=a; AccountURI=b":     "twice",
		"ca.example; accounturi=a b":                 "odd character",
		"ca.example; accounturi=a; x=\u00e9":         "odd character",
		"ca.example; accounturi=a; persistUntil=":    "no number",
		"ca.example; accounturi=a; persistUntil=1e9": "no number",
	} {
		if got, err := dnspersist.Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v, want it to say %q", text, got, err, want)
		}
	}
}

// FuzzParse: what parses prints back.
func FuzzParse(f *testing.F) {
	f.Add("ca.example; accounturi=https://ca.example/acct/123; policy=wildcard; persistUntil=4102444800")
	f.Add(" ca.example ;accounturi = x;y=z")
	f.Add("ca.example;;=;")
	f.Fuzz(func(t *testing.T, text string) {
		g, err := dnspersist.Parse(text)
		if err != nil {
			return
		}
		r, err := g.Record("farm.test")
		if err != nil { // a domain that no CA may have, which Parse leaves to its caller
			return
		}
		if again, err := dnspersist.Parse(r.Value); err != nil || again != g {
			t.Errorf("%q is %+v, printed %q, read again as %+v, %v", text, g, r.Value, again, err)
		}
	})
}

func world(t *testing.T) *lookuptest.World {
	w := lookuptest.New(t)
	w.Zone("farm.test", "192.0.2.1", "192.0.2.2")
	w.Zone("dcv.test", "192.0.2.3")
	w.Add("farm.test", "_validation-persist.shop.farm.test. 0 IN CNAME shop.dcv.test.")
	return w
}

func challenge(name string) farm.Challenge {
	return farm.Challenge{Type: "dns-persist-01", Name: name, Issuers: []string{"ca.example", "ca.test"}, Account: account}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	const right = "ca.test; accounturi=" + account
	end := now.Add(40 * 24 * time.Hour).Truncate(time.Second)
	for what, c := range map[string]struct {
		values         []string
		wildcard       bool
		found, matches bool
		until          time.Time
		problem        string
	}{
		"none":              {nil, false, false, false, time.Time{}, `there is no record for ca.example or ca.test, says ns1.farm.test (192.0.2.1); set: _validation-persist.www.farm.test. IN TXT "ca.example; accounturi=` + account + `"`},
		"another CA's":      {[]string{"other.example; accounturi=" + account, "v=spf1 -all"}, false, false, false, time.Time{}, "there is no record"},
		"right":             {[]string{right}, false, true, true, time.Time{}, ""},
		"right among wrong": {[]string{"ca.example; accounturi=x", right, "ca.test;;"}, false, true, true, time.Time{}, ""},
		"ends":              {[]string{right + "; persistUntil=" + unix(end)}, false, true, true, end, ""},
		"the last end":      {[]string{right + "; persistUntil=" + unix(end), right + "; persistUntil=" + unix(now.Add(time.Hour))}, false, true, true, end, ""},
		"one without end":   {[]string{right + "; persistUntil=" + unix(end), right}, false, true, true, time.Time{}, ""},
		"ended":             {[]string{right + "; persistUntil=" + unix(now.Add(-time.Second))}, false, true, false, time.Time{}, "the record ended on 2026-01-02 03:04:04 UTC"},
		"another account":   {[]string{"ca.test; accounturi=https://ca.example/acct/4"}, false, true, false, time.Time{}, "is for the account https://ca.example/acct/4, ours is " + account},
		"no wildcards":      {[]string{right}, true, true, false, time.Time{}, "policy=wildcard"},
		"wildcards":         {[]string{right + "; policy=Wildcard"}, true, true, true, time.Time{}, ""},
		"malformed":         {[]string{right + ";"}, false, true, false, time.Time{}, "cannot be read"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := world(t)
			for _, v := range c.values {
				if err := w.PutText("farm.test", "_validation-persist.www.farm.test", v); err != nil {
					t.Fatal(err)
				}
			}
			want := challenge("www.farm.test")
			want.Wildcard = c.wildcard
			got, err := dnspersist.Check(t.Context(), w.Client(), want, now)
			if err != nil || got.Found != c.found || got.Matches != c.matches || !got.Until.Equal(c.until) || len(got.Saw) != len(c.values) {
				t.Errorf("%+v, %v", got, err)
			}
			if !strings.Contains(got.Problem, c.problem) || (c.problem == "") != (got.Problem == "") {
				t.Errorf("problem: %s", got.Problem)
			}
			solver := dnspersist.Solver{Lookup: w.Client(), Now: func() time.Time { return now }}
			if ready, err := solver.Ready(t.Context(), want, nil); err != nil || ready != c.matches {
				t.Errorf("ready: %v, %v", ready, err)
			}
		})
	}
}

func unix(at time.Time) string { return strconv.FormatInt(at.Unix(), 10) }

func TestCheckOfSeveralServers(t *testing.T) {
	t.Parallel()
	w, c := world(t), challenge("www.farm.test")
	client := w.Client()
	client.Timeout = 500 * time.Millisecond
	w.Break("192.0.2.2", lookuptest.Lagging)
	if err := w.PutText("farm.test", "_validation-persist.www.farm.test", "ca.test; accounturi="+account); err != nil {
		t.Fatal(err)
	}
	got, err := dnspersist.Check(t.Context(), client, c, now)
	if err != nil || !got.Found || got.Matches || !strings.Contains(got.Problem, "ns2.farm.test (192.0.2.2)") {
		t.Errorf("one lags: %+v, %v", got, err)
	}
	w.Break("192.0.2.2", lookuptest.Silent)
	if got, err = dnspersist.Check(t.Context(), client, c, now); err != nil || !got.Matches {
		t.Errorf("one is silent: %+v, %v", got, err)
	}
	for _, fault := range []lookuptest.Fault{lookuptest.Silent, lookuptest.Lame, lookuptest.Failing} {
		w.Break("192.0.2.1", fault)
		w.Break("192.0.2.2", fault)
		if got, err = dnspersist.Check(t.Context(), client, c, now); err == nil || got.Matches || strings.Contains(err.Error(), "%!") {
			t.Errorf("both are %s: %+v, %v", fault, got, err)
		}
	}
}

func TestServersThatDisagree(t *testing.T) {
	t.Parallel()
	const name, right = "_validation-persist.www.farm.test", "ca.test; accounturi=" + account
	for what, c := range map[string]struct {
		one, other string // after and before
		matches    bool
		until      time.Duration
	}{
		"wrong at the other": {right, right + ";", false, 0},
		"wrong at the one":   {right + ";", right, false, 0},
		"sooner at the one":  {right + "; persistUntil=" + unix(now.Add(time.Hour)), right + "; persistUntil=" + unix(now.Add(2*time.Hour)), true, time.Hour},
		"later at the one":   {right + "; persistUntil=" + unix(now.Add(2*time.Hour)), right + "; persistUntil=" + unix(now.Add(time.Hour)), true, time.Hour},
		"no end at the one":  {right, right + "; persistUntil=" + unix(now.Add(time.Hour)), true, time.Hour},
	} {
		w := world(t)
		w.Add("farm.test", name+`. 0 IN TXT "`+c.other+`"`)
		w.Break("192.0.2.2", lookuptest.Lagging)
		w.Delete("farm.test", name)
		w.Add("farm.test", name+`. 0 IN TXT "`+c.one+`"`)
		got, err := dnspersist.Check(t.Context(), w.Client(), challenge("www.farm.test"), now)
		if err != nil || got.Matches != c.matches || len(got.Saw) != 2 || (c.until != 0) == got.Until.IsZero() || (c.until != 0 && !got.Until.Equal(now.Add(c.until))) {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
}

func TestSolverOverACNAME(t *testing.T) {
	t.Parallel()
	w, c := world(t), challenge("shop.farm.test")
	s := dnspersist.Solver{Lookup: w.Client()}
	r, err := s.Present(t.Context(), c)
	if err != nil || !strings.HasPrefix(string(r), `_validation-persist.shop.farm.test. IN TXT "ca.example; `) {
		t.Fatalf("%s, %v", r, err)
	}
	if ready, err := s.Ready(t.Context(), c, r); err != nil || ready {
		t.Errorf("ready without a record: %v, %v", ready, err)
	}
	const value = "ca.example; accounturi=" + account
	if err := w.PutText("dcv.test", "shop.dcv.test", value); err != nil {
		t.Fatal(err)
	}
	if ready, err := s.Ready(t.Context(), c, r); err != nil || !ready {
		t.Errorf("not ready: %v, %v", ready, err)
	}
	if err := s.CleanUp(t.Context(), c, r); err != nil || len(w.Texts("dcv.test", "shop.dcv.test")) != 1 {
		t.Errorf("the record is not left: %v", err)
	}
	for what, change := range map[string]func(*farm.Challenge){
		"another method": func(c *farm.Challenge) { c.Type = "dns-01" },
		"no issuers":     func(c *farm.Challenge) { c.Issuers = nil },
		"an odd issuer":  func(c *farm.Challenge) { c.Issuers = []string{"x\" IN A"} },
		"no account":     func(c *farm.Challenge) { c.Account = "" },
		"an odd name":    func(c *farm.Challenge) { c.Name = "../x" },
	} {
		bad := challenge("shop.farm.test")
		change(&bad)
		if _, err := s.Present(t.Context(), bad); err == nil {
			t.Errorf("%s is accepted", what)
		}
	}
}

func TestWarning(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	until := now
	for _, c := range []struct {
		before time.Duration
		want   dnspersist.Urgency
		next   time.Duration
	}{
		{365 * day, dnspersist.Calm, 30 * day}, {30*day + 1, dnspersist.Calm, 30 * day},
		{30 * day, dnspersist.Soon, 7 * day}, {7*day + 1, dnspersist.Soon, 7 * day},
		{7 * day, dnspersist.Now, 0}, {1, dnspersist.Now, 0},
	} {
		if u, next := dnspersist.Warning(until, until.Add(-c.before)); u != c.want || !next.Equal(until.Add(-c.next)) {
			t.Errorf("%s before: %q, next %s", c.before, u, next)
		}
	}
	if u, next := dnspersist.Warning(until, until); u != dnspersist.Ended || !next.IsZero() {
		t.Errorf("at the end: %q, %s", u, next)
	}
	if u, next := dnspersist.Warning(time.Time{}, now); u != dnspersist.Calm || !next.IsZero() {
		t.Errorf("without end: %q, %s", u, next)
	}
}
