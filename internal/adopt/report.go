package adopt

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// A Report is what was found on a node.
type Report struct {
	Node    string   `json:"node"`
	Servers []Server `json:"servers"`
	Places  []Spot   `json:"places"`
	Notes   []string `json:"notes,omitempty" doc:"what could not be told"`
	YAML    string   `json:"yaml" doc:"lines for farm.yaml; what is doubtful is commented out"`
	Next    []string `json:"next,omitempty" doc:"what to do now"`
}

// A Spot is a place, its certificates, and what is served there.
type Spot struct {
	Place
	Leaves   []FileLeaf `json:"leaves"`
	Sights   []Glance   `json:"sights,omitempty"`
	Warnings []string   `json:"warnings,omitempty"`
	Ways     Ways       `json:"-"`
}

// Ways are how the server that has a place is tested, reloaded and told: a node may
// run several of one sort, each with a configuration of its own.
type Ways struct {
	Commands map[string][]string // test, reload and start where they are not the kind's own
	Unsure   string              // what could not be told of them
	Socket   string              // HAProxy's
}

// A FileLeaf is the certificate in a place's file.
type FileLeaf struct {
	Files
	Problem     string       `json:"problem,omitempty" doc:"why it could not be read; the rest is empty then"`
	Fingerprint string       `json:"fingerprint,omitempty" doc:"SHA-256"`
	KeyType     farm.KeyType `json:"key_type,omitempty"`
	Names       []string     `json:"names,omitempty"`
	Issuer      string       `json:"issuer,omitempty"`
	SelfSigned  bool         `json:"self_signed,omitempty"`
	NotAfter    time.Time    `json:"not_after,omitzero"`
	Fit         string       `json:"fit,omitempty" enum:"fits,differs,unknown" doc:"whether the key belongs to the certificate; unknown: it could not be read"`
	KeyProblem  string       `json:"key_problem,omitempty"`
	Manager     string       `json:"manager,omitempty" doc:"who renews it now, as far as its place tells"`
}

// A Glance is what one address serves for one name.
type Glance struct {
	Endpoint farm.Endpoint `json:"endpoint"`
	Served   []string      `json:"served,omitempty" doc:"fingerprints"`
	Names    []string      `json:"names,omitempty" doc:"of the certificate that is served"`
	NotAfter time.Time     `json:"not_after,omitzero"`
	Problem  string        `json:"problem,omitempty"`
	Verdict  string        `json:"verdict" enum:"served,other,silent" doc:"other: another certificate than the file's"`
	File     string        `json:"file,omitempty" doc:"the file that holds what is served, where it is one of those that were found"`
}

// The verdicts of a Glance, and what is said of a key.
const (
	Served  = "served"
	Other   = "other"
	Silent  = "silent"
	Fits    = "fits"
	Differs = "differs"
	Unknown = "unknown"
)

// Manager says which program renews a certificate, by its path and what a link there
// leads to; empty if that does not tell.
func Manager(name, link string) string {
	both := name + "\n" + link
	for _, m := range []struct{ part, who string }{
		{"/letsencrypt/live/", "certbot"}, {"/letsencrypt/archive/", "certbot"}, {"/.acme.sh/", "acme.sh"},
		{"/md/domains/", "mod_md"}, {"/.lego/certificates/", "lego"}, {"/lego/certificates/", "lego"},
		{"/caddy/certificates/", "Caddy"}, {"/dehydrated/certs/", "dehydrated"}, {"/acme/live/", "acmetool"},
		{"win-acme", "win-acme"}, {"/var/lib/certfarm/", "Certfarm"},
	} {
		if strings.Contains(both, m.part) {
			return m.who
		}
	}
	return ""
}

// Lineage is certbot's name for a certificate: the folder below live.
func Lineage(name, link string) string {
	for _, text := range []string{name, link} {
		for _, mark := range []string{"/letsencrypt/live/", "/letsencrypt/archive/"} {
			if _, rest, found := strings.Cut(text, mark); found {
				lineage, _, _ := strings.Cut(rest, "/")
				return lineage
			}
		}
	}
	return ""
}

// mostNames is how many names of a port are asked for and named as endpoints.
const mostNames = 4

// Endpoints are where a place is to be seen: each port, for the first names that the
// server answers for and the certificate has.
func Endpoints(p Place, names []string, n farm.Node) (all []farm.Endpoint) {
	asked := askable(p, names)
	for _, l := range p.Listens {
		e := farm.Endpoint{Address: net.JoinHostPort(n.Address, strconv.Itoa(l.Port)), Path: "direct"}
		if ip, err := netip.ParseAddr(l.Host); err == nil && l.Host != n.Address {
			e.Address = net.JoinHostPort(l.Host, strconv.Itoa(l.Port))
			if ip.IsLoopback() && !n.Local {
				e.Path = "ssh"
			}
		}
		for _, name := range asked[:min(len(asked), mostNames)] {
			e.SNI = name
			if !slices.Contains(all, e) {
				all = append(all, e)
			}
		}
	}
	return all
}

// askable are the names that can be asked for: no wildcards, no patterns, covered.
func askable(p Place, names []string) (all []string) {
	for _, from := range [][]string{p.Names, names} {
		for _, n := range from {
			if !strings.Contains(n, "*") && covered(n, names) && !slices.Contains(all, n) {
				all = append(all, n)
			}
		}
		if len(all) > 0 {
			break // the server's own names are enough
		}
	}
	if len(all) == 0 && len(names) > 0 && strings.Contains(names[0], "*") { // wildcards alone: some name below
		all = []string{"www" + strings.TrimPrefix(names[0], "*")}
	}
	return all
}

// covered reports whether a certificate for names serves name (RFC 9525 §6.3).
func covered(name string, names []string) bool {
	_, parent, _ := strings.Cut(name, ".")
	return slices.Contains(names, name) || slices.Contains(names, "*."+parent)
}

// judge says of a place what is wrong with it.
func (f *Spot) judge(now time.Time) {
	warn := func(format string, args ...any) { f.Warnings = append(f.Warnings, fmt.Sprintf(format, args...)) }
	for _, l := range f.Leaves {
		l.judge(now, warn)
	}
	names := leafNames(f.Leaves)
	for _, n := range f.Names {
		if len(names) > 0 && !covered(n, names) && !slices.Contains(names, n) {
			warn("it answers for %s, too, which the certificate does not have", n)
		}
	}
	f.judgeServed(warn)
}

// judge says what is wrong with a certificate in a file.
func (l FileLeaf) judge(now time.Time, warn func(format string, args ...any)) {
	switch {
	case l.Problem != "":
		warn("%s: %s", l.Chain, l.Problem)
		return
	case l.Fit == Differs:
		warn("the key %s does not belong to %s", l.Key, l.Chain)
	case l.Fit == Unknown:
		warn("the key %s could not be read (%s): whether it belongs to %s is not known", l.Key, l.KeyProblem, l.Chain)
	}
	if now.After(l.NotAfter) {
		warn("%s expired on %s", l.Chain, l.NotAfter.UTC().Format(time.DateOnly))
	}
	if l.Manager != "" {
		warn("%s is also managed by %s: turn it off after adoption", l.Chain, l.Manager)
	}
}

// judgeServed says where something else is served than what the files hold.
func (f *Spot) judgeServed(warn func(format string, args ...any)) {
	for _, s := range f.Sights {
		at := s.Endpoint.Address + " (" + s.Endpoint.SNI + ")"
		switch {
		case s.Verdict == Silent:
			warn("%s serves nothing: %s", at, s.Problem)
		case s.Verdict == Other && s.File != "":
			warn("%s serves what is in %s, not this certificate", at, s.File)
		case s.Verdict == Other:
			warn("%s serves another certificate (%s), which is in none of the files: was the server reloaded since the file changed?", at, short(s.Served))
		}
	}
}

func short(fingerprints []string) string {
	var all []string
	for _, f := range fingerprints {
		all = append(all, f[:min(len(f), 12)])
	}
	return strings.Join(all, ", ")
}

// leafNames are the names of all leaves of a place.
func leafNames(leaves []FileLeaf) (all []string) {
	for _, l := range leaves {
		for _, n := range l.Names {
			if !slices.Contains(all, n) {
				all = append(all, n)
			}
		}
	}
	return all
}

// see judges what an address was seen to serve by what the files hold.
func (f *Spot) see(files map[string]string) {
	for i, s := range f.Sights {
		ours := func(print string) bool {
			return slices.ContainsFunc(f.Leaves, func(l FileLeaf) bool { return l.Fingerprint == print })
		}
		switch {
		case len(s.Served) == 0:
			f.Sights[i].Verdict = Silent
		case slices.ContainsFunc(s.Served, ours):
			f.Sights[i].Verdict = Served
		case len(f.Leaves) > 0 && f.Leaves[0].Store != "": // what a key store holds is not known: it is taken for what is served
			f.Sights[i].Verdict = Served
		default:
			f.Sights[i].Verdict, f.Sights[i].File = Other, files[s.Served[0]]
		}
	}
}
