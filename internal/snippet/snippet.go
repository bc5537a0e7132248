// Package snippet writes what an operator puts into a server, a zone or a sudoers
// file, for this farm: names, addresses and thumbprint stand in it already.
//
// It decides only: values in, text out, no I/O. Its invariant: whatever it is
// given, nothing stands in a text but what the text means to say. Each value is
// held to a narrow alphabet before it is used (a host name, an address with a
// port, 43 characters of base64url), so that none can end a line, a string or a
// block and begin another one.
package snippet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"text/template"

	"github.com/certfarm/certfarm/internal/farm"
)

// The servers that Rule knows.
const (
	Nginx    = "nginx"
	Apache   = "apache"
	HAProxy  = "haproxy"
	Lighttpd = "lighttpd"
	Caddy    = "caddy"
	Traefik  = "traefik"
	Envoy    = "envoy"
	IIS      = "iis"
)

// A Snippet is text for people to put where it says.
type Snippet struct {
	Parts []Part   `json:"parts"`
	Notes []string `json:"notes"` // what to load, what to reload, what to beware of; plain sentences
}

// A Part is a piece of a file.
type Part struct {
	Where string `json:"where"` // the file, and the place in it
	Text  string `json:"text"`  // ends with a line feed
}

// String is the whole snippet as people read it: notes and places are lines that
// begin with "# ".
func (s Snippet) String() string {
	var b strings.Builder
	for i, p := range s.Parts {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "# ---- %s\n%s", p.Where, p.Text)
	}
	for i, n := range s.Notes {
		if i == 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "# - %s\n", n)
	}
	return b.String()
}

// An Ask says what rule is wanted.
type Ask struct {
	Server      string   // one of Servers
	Via         string   // farm.Gateway, farm.Redirect, farm.Stateless or farm.Distribute
	Site        string   // the site's name: what the rule is called
	Names       []string // the site's names; wildcards are left out, since HTTP proves none (RFC 8555 §8.3)
	Controllers []string // gateway: host:port of every controller's challenge listener
	To          string   // redirect: scheme and host that only the controllers serve
	Thumbprint  string   // stateless: of the account's key (RFC 7638), as base64url
	Webroot     string   // distribute: folder on the nodes that the token's file is put below
}

// Of is the Ask for a site as its farm.yaml says. An empty via is the site's own;
// another than farm.yaml says is for all of its names. Controllers and Thumbprint
// are for the caller to fill in. It fails where the via cannot be told: the names
// are proven over HTTP in several ways, or in none.
func Of(site farm.Site, server, via string) (Ask, error) {
	a := Ask{Server: server, Via: via, Site: site.Name}
	var vias []string
	names := map[string][]string{} // by via
	for _, name := range site.Names {
		v := farm.ValidationOf(site.Validations, name)
		if v.Method != farm.HTTP01 {
			continue
		}
		if !slices.Contains(vias, v.Via) {
			vias = append(vias, v.Via)
		}
		names[v.Via] = append(names[v.Via], name)
		if v.Via == via || via == "" {
			a.To, a.Webroot = cmp.Or(a.To, v.To), cmp.Or(a.Webroot, v.Webroot)
		}
	}
	switch {
	case via == "" && len(vias) > 1:
		return Ask{}, fmt.Errorf("the names of %s are proven via %s; say which one with --via", site.Name, strings.Join(vias, " and "))
	case via == "" && len(vias) == 0:
		return Ask{}, fmt.Errorf("no name of %s is proven over HTTP; use --dns, or say one with --via", site.Name)
	case via == "":
		a.Via = vias[0]
	}
	if a.Names = names[a.Via]; len(a.Names) == 0 {
		a.Names = slices.Clone(site.Names)
	}
	return a, nil
}

// Servers lists the servers that Rule knows.
func Servers() []string {
	var all []string
	for _, s := range servers() {
		all = append(all, s.name)
	}
	return all
}

// Vias lists the ways of answering a challenge over HTTP.
func Vias() []string {
	return []string{farm.Gateway, farm.Redirect, farm.Stateless, farm.Distribute}
}

// Rule writes the rule that lets a server take part in answering HTTP-01
// challenges. It fails, with a hint, where a value is missing or is not what it
// should be, and where the server cannot do it.
func Rule(a Ask) (Snippet, error) {
	all := servers()
	i := slices.IndexFunc(all, func(s server) bool { return s.name == a.Server })
	if i < 0 {
		return Snippet{}, fmt.Errorf("no rule for server %q; there are %s", a.Server, strings.Join(Servers(), ", "))
	}
	if !slices.Contains(Vias(), a.Via) {
		return Snippet{}, fmt.Errorf("no way %q to answer challenges; there are %s", a.Via, strings.Join(Vias(), ", "))
	}
	write, can := all[i].rules[a.Via]
	if !can {
		return Snippet{}, fmt.Errorf("%s cannot answer via %s: %s", a.Server, a.Via, all[i].instead[a.Via])
	}
	r, err := a.check()
	if err != nil {
		return Snippet{}, fmt.Errorf("rule for %s via %s: %w", a.Server, a.Via, err)
	}
	s := write(r)
	s.Notes = append(s.Notes, r.notes()...)
	s.Notes = append(s.Notes, all[i].notes...)
	return s, nil
}

// A server is what a program can do about challenges.
type server struct {
	name    string
	rules   map[string]func(rule) Snippet // by via
	instead map[string]string             // of what is not in rules: why not, and what to use
	notes   []string                      // for every one of its rules
}

func servers() []server {
	return []server{nginx(), apache(), haproxy(), lighttpd(), caddy(), traefik(), envoy(), iis()}
}

// fill writes a text in which {{…}} are values of a rule. The texts are constants
// of this package and each is run by a test, so one that fails is a mistake here.
func (r rule) fill(text string) string {
	var b strings.Builder
	t := template.Must(template.New("rule").Parse(strings.TrimPrefix(text, "\n")))
	if err := t.Execute(&b, r); err != nil {
		panic(fmt.Sprintf("text of a rule: %v", err))
	}
	return b.String()
}

// notes are those of the way, whatever the server is.
func (r rule) notes() (notes []string) {
	switch r.Via {
	case farm.Gateway:
		for _, c := range r.Controllers {
			if !c.IsIP {
				notes = append(notes, fmt.Sprintf("%s is looked up when the server starts or reloads, and many servers do not start without an answer: an address is safer.", c.Host))
			}
		}
	case farm.Redirect:
		notes = append(notes,
			fmt.Sprintf("%s must lead to the controllers and to nothing else; public CAs follow redirects to ports 80 and 443 only.", r.To))
		if r.toIP {
			notes = append(notes, "Public CAs follow no redirect to a bare address: give the controllers a name, unless the CA is your own.")
		}
	case farm.Stateless:
		notes = append(notes,
			"The thumbprint is that of the account's key and may be seen by anybody. With a new account key, or another CA's account, the rule changes: plan a key rollover together with it.",
			"Whoever has the account's key can now get certificates for these names: pin the account in CAA (--dns prints the record).")
	case farm.Distribute:
		notes = append(notes, fmt.Sprintf("certfarm writes %s%sTOKEN; the server's user must be able to read it.", r.Webroot, r.separated(Path)))
	}
	return notes
}
