// Package dnspersist proves control of names by a TXT record that stays
// (dns-persist-01, draft-ietf-acme-dns-persist): a person sets it once, and it
// says which CA may issue for which account.
//
//	_validation-persist.NAME  TXT  "letsencrypt.org; accounturi=https://…/acct/1; policy=wildcard; persistUntil=1798761600"
//
// Its invariant: nothing here writes to the DNS. The record is shown, looked for,
// and told about before it ends.
package dnspersist

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/lookup"
)

// Prefix is the label before a name that its record stands at.
const Prefix = "_validation-persist."

// A Grant is what one record says: this CA may issue to this account.
type Grant struct {
	Issuer   string    // the CA's domain, as its challenge names it: A-labels in lower case
	Account  string    // URL of the account
	Wildcard bool      // for wildcards of the name too
	Until    time.Time // to the second; zero: it does not end
}

// A Record is what a person sets.
type Record struct {
	Name  string // full, without the last dot
	Value string
}

// String is the record as a zone file has it.
func (r Record) String() string {
	var b strings.Builder
	b.WriteString(r.Name + ". IN TXT")
	for rest := r.Value; rest != ""; {
		n := min(len(rest), 255) // of one string (RFC 1035 §3.3)
		b.WriteString(` "` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(rest[:n]) + `"`)
		rest = rest[n:]
	}
	return b.String()
}

// Record is the record that grants it for a name, which stands without "*.".
func (g Grant) Record(name string) (Record, error) {
	value, err := g.text()
	if name = lookup.Canonical(name); err == nil && !lookup.IsName(Prefix+name) {
		err = errors.New("that is no name in the DNS")
	}
	if err != nil {
		return Record{}, fmt.Errorf("the %s record of %q: %w", Prefix[:len(Prefix)-1], name, err)
	}
	return Record{Name: Prefix + name, Value: value}, nil
}

const (
	wildcard = "wildcard"
	lastYear = 253402300799 // the last second of the year 9999, which JSON can still write
)

// domains are issuer domain names: labels of lower-case letters, digits and "-".
var domains = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)

func (g Grant) text() (string, error) {
	if len(g.Issuer) > 253 || !domains.MatchString(g.Issuer) {
		return "", fmt.Errorf("%.60q is no domain of a CA; it is in lower case, without a last dot", g.Issuer)
	}
	if g.Account == "" || !plain(g.Account) {
		return "", fmt.Errorf("%.60q is no account URL", g.Account)
	}
	text := g.Issuer + "; accounturi=" + g.Account
	if g.Wildcard {
		text += "; policy=" + wildcard
	}
	if !g.Until.IsZero() {
		text += "; persistUntil=" + strconv.FormatInt(g.Until.Unix(), 10)
	}
	return text, nil
}

// Parse reads the value of a record, an issue-value as of CAA (RFC 8659 §4.2). It
// takes what Pebble takes: tags in any case, each once, unknown ones skipped, a
// policy other than wildcard as none. An account must be there.
func Parse(text string) (Grant, error) {
	issuer, rest, more := strings.Cut(text, ";")
	g := Grant{Issuer: trim(issuer)}
	if g.Issuer == "" {
		return Grant{}, errors.New("it does not begin with the domain of a CA")
	}
	seen := map[string]bool{}
	for more {
		var part string
		part, rest, more = strings.Cut(rest, ";")
		tag, value, ok := strings.Cut(trim(part), "=")
		tag, value = strings.ToLower(trim(tag)), trim(value)
		switch {
		case !ok || tag == "":
			return Grant{}, fmt.Errorf("%.60q is not tag=value; there is no semicolon at the end", trim(part))
		case seen[tag]:
			return Grant{}, fmt.Errorf("%.60q is there twice", tag)
		case !plain(value):
			return Grant{}, fmt.Errorf("the value %.60q of %.60q has a space or another odd character", value, tag)
		}
		seen[tag] = true
		if err := g.set(tag, value); err != nil {
			return Grant{}, err
		}
	}
	if g.Account == "" {
		return Grant{}, errors.New("accounturi is missing")
	}
	return g, nil
}

func (g *Grant) set(tag, value string) error {
	switch tag {
	case "accounturi":
		g.Account = value
	case "policy":
		g.Wildcard = strings.EqualFold(value, wildcard)
	case "persistuntil":
		at, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return fmt.Errorf("persistUntil=%.60s is no number of seconds since 1970", value)
		}
		g.Until = time.Unix(min(max(at, 0), lastYear), 0).UTC()
	}
	return nil
}

// trim takes away the white space of RFC 8659: spaces and tabs.
func trim(s string) string { return strings.Trim(s, " \t") }

// plain reports whether a value has only the characters that it may have (RFC
// 8659 §4.2): visible ASCII but the semicolon.
func plain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < 0x21 || r > 0x7E || r == ';' })
}
