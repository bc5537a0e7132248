package http01

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
)

// judge says how an answer was. It is pure.
func (a Ask) judge(c cell, s seen) Finding {
	f := Finding{Name: c.name, Node: c.target.node, Address: s.address.String()}
	got := strings.TrimRight(s.body, " \t\r\n")
	m, isMisled := errors.AsType[misled](s.err)
	switch {
	case isMisled:
		f.Verdict, f.Saw, f.Remedy = Wrong, m.why, a.remedy(s)
	case s.err != nil:
		f = a.unreachable(f, c, s)
	case s.cut != nil && s.status == http.StatusOK:
		f.Verdict, f.Saw, f.Remedy = Unclear, "the answer broke off: "+show(reason(s.cut)), "ask again"
	case s.status == http.StatusOK && got == a.Want:
		f.Verdict, f.Saw = Right, "our answer"
	default:
		f.Verdict, f.Saw, f.Remedy = Wrong, a.describe(c, s, got), a.remedy(s)
	}
	return a.soften(f, c, s)
}

// soften takes back what a CA would not meet with.
func (a Ask) soften(f Finding, c cell, s seen) Finding {
	switch {
	case f.Verdict == Wrong && c.target.drained:
		f.Verdict = Unclear
		f.Remedy = "the node is drained, so no CA is sent to it now; before it serves again: " + f.Remedy
	case a.Public && f.Node == "" && private(s.address):
		f.Verdict, f.Saw = Unclear, f.Saw+", at a private address"
		f.Remedy = "the CA cannot ask a private address: if DNS says something else to the internet (split DNS), name public resolvers in farm.yaml (resolvers), else give the name a public address"
	}
	return f
}

// unreachable is a finding without an answer. It is wrong where a redirect was
// received that leads elsewhere than the way says, whatever is there.
func (a Ask) unreachable(f Finding, c cell, s seen) Finding {
	f.Verdict, f.Saw = Unclear, show(reason(s.err))
	if _, last, ok := a.astray(c, s); ok {
		f.Verdict, f.Remedy = Wrong, a.remedy(s)
		f.Saw = fmt.Sprintf("a redirect to %s, not to %s, and there: %s", show(last), show(a.How.To), f.Saw)
		return f
	}
	if len(s.hops) > 0 {
		f.Saw = "after a redirect to " + show(s.last()) + ": " + f.Saw
	}
	switch {
	case c.target.drained:
		f.Remedy = "the node is drained: nothing need be done before it serves again"
	case f.Node != "":
		f.Remedy = fmt.Sprintf("if the balancer asks it at another port than %d, say so in farm.yaml (port); if the node is down, the balancer sends no CA to it", c.target.port)
	case s.address.Is6() && strings.Contains(f.Saw, "network is unreachable"):
		f.Remedy = "this machine has no way to IPv6 addresses: ask from one that has, or with `certfarm preflight --external`"
	default:
		f.Remedy = fmt.Sprintf("if the internet cannot reach it at port %d either, open it there or take the address out of DNS", c.target.port)
	}
	return f
}

// astray reports that the way is a redirect to one host, and that this answer
// came from another, which a redirect led to.
func (a Ask) astray(c cell, s seen) (to, last string, ok bool) {
	if a.How.Via != farm.Redirect || a.How.To == "" || len(s.hops) == 0 || a.arrived(s) {
		return "", "", false
	}
	h := s.hops[len(s.hops)-1]
	return a.How.To, s.last(), !strings.EqualFold(h.host, c.name)
}

// arrived reports that a redirect led to the host that the way says.
func (a Ask) arrived(s seen) bool {
	to, err := url.Parse(a.How.To)
	for _, h := range s.hops {
		if err == nil && strings.EqualFold(h.host, to.Hostname()) {
			return true
		}
	}
	return false
}

// last is where the last redirect led to, without the path: the token in it
// would make each answer another one.
func (s seen) last() string {
	h := s.hops[len(s.hops)-1]
	return h.scheme + "://" + h.host
}

// describe says what a wrong answer was.
func (a Ask) describe(c cell, s seen, got string) string {
	saw := fmt.Sprintf("HTTP status %d: %s", s.status, show(strings.ReplaceAll(got, a.Token, "TOKEN")))
	if thumb, ok := strings.CutPrefix(got, a.Token+"."); ok && a.How.Via == farm.Stateless {
		saw = "the answer of another account, with the thumbprint " + show(thumb)
	}
	_, last, astray := a.astray(c, s)
	switch {
	case astray:
		return fmt.Sprintf("a redirect to %s, not to %s, and there %s", show(last), show(a.How.To), saw)
	case len(s.hops) > 0:
		return saw + ", after a redirect to " + show(s.last())
	case a.How.Via == farm.Redirect:
		return saw + ", and no redirect to " + show(a.How.To)
	}
	return saw
}

// remedy says what makes a wrong answer right. It names neither node nor name,
// so that the same mistake on a hundred nodes is one line.
func (a Ask) remedy(s seen) string {
	snippet := "`certfarm snippet " + a.site() + server(s.server) + "`"
	rule := "put the rule of " + snippet + " there, before any other redirect, login or filter"
	switch {
	case a.How.Via == farm.Redirect && a.arrived(s):
		return "the redirect is right, but " + show(a.How.To) + " does not lead to the controllers: let it lead there, and nowhere else"
	case a.How.Via == farm.Stateless && strings.HasPrefix(s.body, a.Token+"."):
		return "the rule there is for another account key: replace it by that of " + snippet
	case a.How.Via == farm.Distribute && len(s.hops) == 0:
		return fmt.Sprintf("the file is in %s on the node, but is not served from there: make that folder the root of the name, or put the rule of %s there", show(a.How.Webroot), snippet)
	case a.How.Via == farm.Gateway:
		return "another server answers: route " + Path + " there to the controllers, before any redirect, login or filter (" + snippet + ")"
	}
	return rule
}

func (a Ask) site() string {
	if a.Site == "" {
		return "SITE"
	}
	return a.Site
}

// server is the option of `certfarm snippet` for what calls itself so.
func server(header string) string {
	header = strings.ToLower(header)
	for _, name := range []string{"nginx", "apache", "lighttpd", "caddy", "envoy"} {
		if strings.HasPrefix(header, name) {
			return " --server " + name
		}
	}
	if strings.HasPrefix(header, "microsoft-iis") {
		return " --server iis"
	}
	return ""
}

// suspect adds to what could not be reached what may be the reason in our own
// network, where the whole matrix tells it. It is pure.
func suspect(findings []Finding, own []netip.Addr) []Finding {
	behind := translated(own)
	for i, f := range findings {
		address, err := netip.ParseAddr(f.Address)
		if f.Verdict != Unclear || f.Node != "" || err != nil {
			continue
		}
		if !address.IsLoopback() && slices.Contains(own, address) {
			findings[i].Remedy += "; the address is this machine's own, which a firewall may treat otherwise from within"
		}
		if behind && address.Is4() && !private(address) {
			findings[i].Remedy += "; this machine is behind a router, which may not lead it back to a public address of its own network (hairpin NAT): ask from outside, `certfarm preflight --external`"
		}
	}
	return findings
}

// translated reports that a machine with these addresses has none on the internet
// of IPv4, but a private one: it is behind a router that translates.
func translated(own []netip.Addr) bool {
	v4 := slices.DeleteFunc(slices.Clone(own), func(a netip.Addr) bool { return !a.Is4() })
	return slices.ContainsFunc(v4, netip.Addr.IsPrivate) && !slices.ContainsFunc(v4, func(a netip.Addr) bool { return !private(a) })
}

// private reports an address that nobody on the internet can ask.
func private(a netip.Addr) bool {
	shared := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10) // RFC 6598
	return a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() || shared.Contains(a)
}

// reason is an error without the URL that net/http puts before it.
func reason(err error) string {
	if e, ok := errors.AsType[unreached](err); ok {
		return e.Error()
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		if e.Timeout() {
			return "no answer in time"
		}
		return e.Err.Error()
	}
	return err.Error()
}

// show makes foreign text fit to be shown: its first bytes, with everything
// that is not printable escaped.
func show(s string) string {
	if len(s) > shown {
		s = s[:shown] + "…"
	}
	quoted := strconv.QuoteToGraphic(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}
