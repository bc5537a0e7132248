// Package caa decides whether a zone lets a CA, an account and a method issue for
// a name (RFC 8659, RFC 8657), and finds the records that say so.
//
// Invariant: what cannot be read forbids, as it does for a CA (RFC 8659 §4.2): a
// value that is not well-formed authorises nobody.
package caa

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// A Record is one CAA property (RFC 8659 §4).
type Record struct {
	Flag  uint8
	Tag   string
	Value string
}

// critical are the bits of the flag by which a CA that does not know the tag must
// refuse: 128 (RFC 8659 §4.1), and 1, which was set by so many who misread it
// that Let's Encrypt takes it for the same.
const critical = 128 | 1

// The tags that decide.
const (
	issue     = "issue"
	issueWild = "issuewild"
)

// A Wish is what an order asks of a zone.
type Wish struct {
	Issuers  []string // the CA's caaIdentities (RFC 8555 §7.1.1); any of them will do
	Account  string   // the account's URL; empty: there is none yet
	Method   string   // http-01, dns-01 …; empty: not known, so not compared
	Wildcard bool
}

// Allows decides from the relevant records of a name whether the wish is granted,
// and why. It is pure. No records grant everything (RFC 8659 §3).
func Allows(records []Record, w Wish) (ok bool, why string) {
	if len(records) == 0 {
		return true, "there are no CAA records"
	}
	if tag, found := stranger(records); found {
		return false, fmt.Sprintf("the property %q is critical, and CAs do not know it", tag)
	}
	properties := values(records, issue)
	if wild := values(records, issueWild); w.Wildcard && len(wild) > 0 { // it alone decides then (RFC 8659 §4.3)
		properties = wild
	}
	if len(properties) == 0 {
		return true, "no CAA record is about this kind of name"
	}
	var whys []string
	for _, value := range properties {
		why := refusal(value, w)
		if why == "" {
			return true, fmt.Sprintf("%q allows it", value)
		}
		if !slices.Contains(whys, why) {
			whys = append(whys, why)
		}
	}
	return false, strings.Join(whys, "; ")
}

// stranger is a tag that CAs do not know and must not ignore.
func stranger(records []Record) (tag string, found bool) {
	for _, r := range records {
		switch strings.ToLower(r.Tag) {
		case issue, issueWild, "iodef", "issuemail":
		default:
			if r.Flag&critical != 0 {
				return r.Tag, true
			}
		}
	}
	return "", false
}

func values(records []Record, tag string) (all []string) {
	for _, r := range records {
		if strings.EqualFold(r.Tag, tag) {
			all = append(all, r.Value)
		}
	}
	return all
}

// refusal says why one property does not grant the wish; empty: it does.
func refusal(value string, w Wish) string {
	p, err := parse(value)
	switch {
	case err != nil:
		return fmt.Sprintf("%q cannot be read (%v), so it allows nobody", value, err)
	case p.issuer == "":
		return fmt.Sprintf("%q allows nobody", value)
	case !slices.ContainsFunc(w.Issuers, func(i string) bool { return strings.EqualFold(strings.TrimSuffix(i, "."), p.issuer) }):
		return p.issuer + " may issue, this CA may not"
	}
	if why := p.wrongAccount(w); why != "" {
		return why
	}
	return p.wrongMethod(w)
}

// wrongAccount follows RFC 8657 §3.
func (p property) wrongAccount(w Wish) string {
	account, pinned, err := p.one("accounturi")
	switch {
	case err != nil:
		return err.Error()
	case pinned && w.Account == "":
		return "only the account " + account + " may order, and there is no account yet"
	case pinned && account != w.Account:
		return "only the account " + account + " may order, not " + w.Account
	}
	return ""
}

// wrongMethod follows RFC 8657 §4.
func (p property) wrongMethod(w Wish) string {
	methods, pinned, err := p.one("validationmethods")
	switch {
	case err != nil:
		return err.Error()
	case pinned && w.Method != "" && !slices.Contains(strings.Split(methods, ","), w.Method):
		return fmt.Sprintf("only the methods %q may prove it, not %s", methods, w.Method)
	}
	return ""
}

// A property is a parsed issue or issuewild value.
type property struct {
	issuer     string // in lower case; empty: nobody
	parameters []parameter
}

type parameter struct{ tag, value string }

// one is the parameter of a tag. Where it stands twice the property can be met by
// nobody (RFC 8657 §3).
func (p property) one(tag string) (value string, ok bool, err error) {
	for _, q := range p.parameters {
		if !strings.EqualFold(q.tag, tag) {
			continue
		}
		if ok {
			return "", true, fmt.Errorf("it has %s twice, so it allows nobody", tag)
		}
		value, ok = q.value, true
	}
	return value, ok, nil
}

const space = " \t"

// parse reads a value by the grammar of RFC 8659 §4.2.
func parse(value string) (property, error) {
	head, rest, _ := strings.Cut(value, ";")
	p := property{issuer: strings.ToLower(strings.Trim(head, space))}
	if p.issuer != "" && !domain(p.issuer) {
		return property{}, fmt.Errorf("%q is no domain name", p.issuer)
	}
	if strings.Trim(rest, space) == "" {
		return p, nil
	}
	for part := range strings.SplitSeq(rest, ";") {
		tag, value, ok := strings.Cut(part, "=")
		tag, value = strings.Trim(tag, space), strings.Trim(value, space)
		if !ok || !label(tag) || strings.ContainsFunc(value, func(r rune) bool { return r < 0x21 || r > 0x7e }) {
			return property{}, fmt.Errorf("%q is no parameter", strings.Trim(part, space))
		}
		p.parameters = append(p.parameters, parameter{tag, value})
	}
	return p, nil
}

func domain(name string) bool {
	for l := range strings.SplitSeq(name, ".") {
		if !label(l) {
			return false
		}
	}
	return true
}

// label is a domain label or a tag: letters, digits, and hyphens within.
func label(l string) bool {
	if l == "" || l[0] == '-' || l[len(l)-1] == '-' {
		return false
	}
	return !strings.ContainsFunc(l, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-')
	})
}

// A Pinning is what a zone is to be restricted to.
type Pinning struct {
	Zone     string
	Issuer   string   // one of the CA's caaIdentities
	Account  string   // the account's URL; empty: any of the CA
	Methods  []string // empty: any
	Wildcard bool     // names below "*." may be issued too
}

// Pin returns the exact records, in zone file format, that let only this CA,
// account and methods issue for the zone and what is below it (RFC 8657). Without
// Wildcard nobody may issue wildcards.
func Pin(p Pinning) ([]string, error) {
	value := p.Issuer
	if p.Account != "" {
		if u, err := url.Parse(p.Account); err != nil || u.Host == "" {
			return nil, fmt.Errorf("pin %s to an account: %q is no URL", p.Zone, p.Account)
		}
		value += "; accounturi=" + p.Account
	}
	if len(p.Methods) > 0 {
		value += "; validationmethods=" + strings.Join(p.Methods, ",")
	}
	for _, m := range append([]string{""}, p.Methods...) {
		r := []Record{{Tag: issue, Value: value}}
		if ok, why := Allows(r, Wish{Issuers: []string{p.Issuer}, Account: p.Account, Method: m}); !ok {
			return nil, fmt.Errorf("pin %s to %s: the record would not do: %s", p.Zone, p.Issuer, why)
		}
	}
	wild := ";"
	if p.Wildcard {
		wild = value
	}
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace // RFC 1035 §5.1
	zone := strings.TrimSuffix(strings.TrimPrefix(p.Zone, "*."), ".") + "."
	return []string{zone + ` IN CAA 0 issue "` + quote(value) + `"`, zone + ` IN CAA 0 issuewild "` + quote(wild) + `"`}, nil
}
