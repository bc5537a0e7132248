package caa_test

import (
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/prove/caa"
)

func records(text ...string) (all []caa.Record) {
	for _, t := range text {
		tag, value, _ := strings.Cut(t, " ")
		r := caa.Record{Tag: tag, Value: value}
		if name, critical := strings.CutSuffix(tag, "!"); critical {
			r.Tag, r.Flag = name, 128
		}
		all = append(all, r)
	}
	return all
}

const account = "https://acme-v02.api.letsencrypt.org/acme/acct/1"

func TestAllows(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		records  []caa.Record
		wildcard bool
		ok       bool
		why      string
	}{
		"none":                  {nil, false, true, "no CAA records"},
		"ours":                  {records("issue letsencrypt.org"), false, true, "allows it"},
		"another case":          {records("ISSUE LetsEncrypt.ORG"), false, true, ""},
		"spaces":                {records("issue  \tletsencrypt.org\t "), false, true, ""},
		"the CA's second name":  {records("issue le.example"), false, true, ""},
		"another CA":            {records("issue ca.example"), false, false, "ca.example may issue, this CA may not"},
		"one of two":            {records("issue ca.example", "issue letsencrypt.org"), false, true, ""},
		"nobody":                {records("issue ;"), false, false, "allows nobody"},
		"empty":                 {records("issue "), false, false, "allows nobody"},
		"nobody, but us":        {records("issue ;", "issue letsencrypt.org"), false, true, ""},
		"only iodef":            {records("iodef mailto:x@example.com"), false, true, "no CAA record is about"},
		"only mail":             {records("issuemail! ;"), false, true, ""},
		"only issuewild":        {records("issuewild ca.example"), false, true, "no CAA record is about"},
		"wildcard by issue":     {records("issue letsencrypt.org"), true, true, ""},
		"wildcard forbidden":    {records("issue letsencrypt.org", "issuewild ;"), true, false, "allows nobody"},
		"only wildcards":        {records("issue ;", "issuewild letsencrypt.org"), true, true, ""},
		"name, only wildcards":  {records("issue ;", "issuewild letsencrypt.org"), false, false, "allows nobody"},
		"unknown":               {records("future x", "issue letsencrypt.org"), false, true, ""},
		"unknown and critical":  {records("issue letsencrypt.org", "future! x"), false, false, "critical"},
		"known and critical":    {records("issue! letsencrypt.org"), false, true, ""},
		"bit 1 is critical too": {[]caa.Record{{Flag: 1, Tag: "future"}}, false, false, "critical"},
		"other bits are not":    {[]caa.Record{{Flag: 2, Tag: "future"}}, false, true, ""},
		"account":               {records("issue letsencrypt.org; accounturi=" + account), false, true, ""},
		"other account":         {records("issue letsencrypt.org; accounturi=" + account + "2"), false, false, "only the account"},
		"either account":        {records("issue letsencrypt.org; accounturi="+account+"2", "issue letsencrypt.org; accounturi="+account), false, true, ""},
		"two accounts in one":   {records("issue letsencrypt.org; accounturi=" + account + "; accounturi=" + account), false, false, "twice"},
		"method":                {records("issue letsencrypt.org; validationmethods=dns-01,http-01"), false, true, ""},
		"other method":          {records("issue letsencrypt.org; validationmethods=dns-01"), false, false, `only the methods "dns-01"`},
		"no method":             {records("issue letsencrypt.org; validationmethods="), false, false, "not http-01"},
		"both":                  {records("issue letsencrypt.org;validationmethods=http-01;accounturi=" + account), false, true, ""},
		"tag in capitals":       {records("issue letsencrypt.org; AccountURI=" + account + "2"), false, false, "only the account"},
		"unknown parameter":     {records("issue letsencrypt.org; x=y"), false, true, ""},
		"semicolon":             {records("issue letsencrypt.org;"), false, true, ""},
		"no grammar":            {records("issue letsencrypt.org; accounturi"), false, false, "cannot be read"},
		"comma for semicolon":   {records("issue letsencrypt.org, accounturi=x"), false, false, "cannot be read"},
		"space in value":        {records("issue letsencrypt.org; validationmethods=http-01, dns-01"), false, false, "cannot be read"},
		"underscore in tag":     {records("issue letsencrypt.org; account_uri=x"), false, false, "cannot be read"},
		"two semicolons":        {records("issue letsencrypt.org;; accounturi=" + account), false, false, "cannot be read"},
		"no domain":             {records("issue https://letsencrypt.org"), false, false, "cannot be read"},
		"broken, but another":   {records("issue %%%%%", "issue letsencrypt.org"), false, true, ""},
		"broken":                {records("issue %%%%%"), false, false, "cannot be read"},
	} {
		ok, why := caa.Allows(c.records, caa.Wish{Issuers: []string{"letsencrypt.org", "le.example"}, Account: account, Method: "http-01", Wildcard: c.wildcard})
		if ok != c.ok || why == "" || !strings.Contains(why, c.why) {
			t.Errorf("%s: %v, %s", name, ok, why)
		}
	}
	pinned := records("issue letsencrypt.org; accounturi=" + account + "; validationmethods=dns-01")
	wish := caa.Wish{Issuers: []string{"letsencrypt.org"}}
	if ok, why := caa.Allows(pinned, wish); ok || !strings.Contains(why, "there is no account yet") {
		t.Errorf("no account yet: %v, %s", ok, why)
	}
	wish.Account = account
	if ok, why := caa.Allows(pinned, wish); !ok {
		t.Errorf("the method is not known: %s", why)
	}
}

func TestPin(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		pin  caa.Pinning
		want string // "": an error
	}{
		"all": {
			caa.Pinning{Zone: "example.com", Issuer: "letsencrypt.org", Account: account, Methods: []string{"http-01", "dns-01"}},
			`example.com. IN CAA 0 issue "letsencrypt.org; accounturi=` + account + `; validationmethods=http-01,dns-01"
example.com. IN CAA 0 issuewild ";"`,
		},
		"wildcards": {
			caa.Pinning{Zone: "*.example.com.", Issuer: "letsencrypt.org", Wildcard: true},
			`example.com. IN CAA 0 issue "letsencrypt.org"
example.com. IN CAA 0 issuewild "letsencrypt.org"`,
		},
		"quoted": {
			caa.Pinning{Zone: "example.com", Issuer: "ca.example", Account: `https://ca.example/"\`},
			`example.com. IN CAA 0 issue "ca.example; accounturi=https://ca.example/\"\\"
example.com. IN CAA 0 issuewild ";"`,
		},
		"no issuer":        {caa.Pinning{Zone: "example.com"}, ""},
		"no URL":           {caa.Pinning{Zone: "example.com", Issuer: "ca.example", Account: "me"}, ""},
		"semicolon in URL": {caa.Pinning{Zone: "example.com", Issuer: "ca.example", Account: "https://ca.example/a;b"}, ""},
		"no method":        {caa.Pinning{Zone: "example.com", Issuer: "ca.example", Methods: []string{"http 01"}}, ""},
	} {
		lines, err := caa.Pin(c.pin)
		if got := strings.Join(lines, "\n"); got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%s: %v\n%s", name, err, got)
		}
	}
}

// FuzzAllows reads any records. What has a critical stranger is refused, and so
// is what names neither us nor nothing.
func FuzzAllows(f *testing.F) {
	f.Add(uint8(0), "issue", "letsencrypt.org; accounturi="+account+"; validationmethods=http-01", true)
	f.Add(uint8(128), "future", "x", false)
	f.Add(uint8(0), "issuewild", ";", true)
	f.Add(uint8(0), "issue", "letsencrypt.org;;=\x00", false)
	f.Fuzz(func(t *testing.T, flag uint8, tag, value string, wildcard bool) {
		w := caa.Wish{Issuers: []string{"letsencrypt.org"}, Account: account, Method: "http-01", Wildcard: wildcard}
		r := caa.Record{Flag: flag, Tag: tag, Value: value}
		ok, why := caa.Allows([]caa.Record{r}, w)
		if why == "" {
			t.Error("it gives no reason")
		}
		if strings.EqualFold(tag, "issue") && ok && !strings.Contains(strings.ToLower(value), "letsencrypt.org") {
			t.Errorf("%q allows us", value)
		}
		if ok2, _ := caa.Allows([]caa.Record{r, {Tag: "issue", Value: "letsencrypt.org"}}, w); ok && !ok2 && !strings.EqualFold(tag, "issuewild") {
			t.Errorf("%q and a record that allows us do not", value)
		}
		p := caa.Pinning{Zone: "example.com", Issuer: "letsencrypt.org", Account: value}
		if lines, err := caa.Pin(p); err == nil && (len(lines) != 2 || strings.ContainsAny(lines[0], "\n\r\x00")) {
			t.Errorf("the pin is %q", lines)
		}
	})
}
