package farm

import (
	"slices"
	"strings"
	"time"
)

// The methods of validation, by their ACME names.
const (
	HTTP01       = "http-01"        // RFC 8555 §8.3
	DNS01        = "dns-01"         // RFC 8555 §8.4
	DNSPersist01 = "dns-persist-01" // draft-ietf-acme-dns-persist
)

// What answers an http-01 challenge.
const (
	Gateway    = "gateway"    // the balancer or proxy routes the challenge path to the controllers
	Redirect   = "redirect"   // nodes or balancer redirect it to a host that only the controllers serve
	Stateless  = "stateless"  // every node answers by itself, from a static rule
	Distribute = "distribute" // every node answers from its webroot, to which the token is copied
)

// Builtin is the provider of TXT records that is our own name servers.
const Builtin = "builtin"

// Vias lists what answers http-01 challenges.
var Vias = []string{Gateway, Redirect, Stateless, Distribute}

// A Validation is how control of some of a site's names is proven (RFC 8555 §8).
type Validation struct {
	// Names are the names that it takes: a name, or "*.example.com" for whatever
	// is below, a wildcard of its own included. Empty: every name.
	Names  []string `json:"names,omitzero"`
	Method string   `json:"method,omitzero"` // http-01, dns-01 or dns-persist-01

	// Of http-01:
	Via     string   `json:"via,omitzero"`     // gateway, redirect, stateless or distribute
	To      string   `json:"to,omitzero"`      // redirect: scheme and host that only the controllers serve, "http://acme.example.com"
	Webroot string   `json:"webroot,omitzero"` // distribute: folder on the nodes that the web server serves at /
	Front   bool     `json:"front,omitzero"`   // the balancer answers by itself: the nodes are not asked in a preflight
	Nodes   []string `json:"nodes,omitzero"`   // who answers behind the balancer, by node name
	Port    int      `json:"port,omitzero"`    // where those nodes are asked over HTTP; 80 unless said

	// Of dns-01 and dns-persist-01:
	DNS string `json:"dns,omitzero"` // name of the farm's DNS entry
	// Delegate says where the TXT record of a name is, where no CNAME says it: the
	// name or pattern (as in Names) to the record's full name.
	Delegate map[string]string `json:"delegate,omitzero"`
}

// A DNS is a way to write TXT records: a provider, and what it needs to know.
type DNS struct {
	Name     string               `json:"name,omitzero"`
	Provider string               `json:"provider,omitzero"` // rfc2136, builtin, exec, or a provider's name
	Options  []byte               `json:"options,omitzero"`  // JSON, checked by the provider
	Secrets  map[string]SecretRef `json:"secrets,omitzero"`  // settings that are secret, by the provider's name for them
	// Silent is how long a name server of the zone that does not answer is waited
	// for; then it is left out, if another one answers.
	Silent time.Duration `json:"silent"`
	// Resolvers has the resolvers asked whether a record is out, in place of every
	// name server of its zone: where port 53 is closed.
	Resolvers bool `json:"resolvers,omitzero"`
}

// Matches reports whether a pattern takes a name: the same name, or anything
// below "*.example.com", that wildcard itself included. Both are in lower case.
func Matches(pattern, name string) bool {
	if pattern == name {
		return true
	}
	below, isPattern := strings.CutPrefix(pattern, "*")
	return isPattern && strings.HasSuffix(name, below) && len(name) > len(below)
}

// Takes reports whether the validation is the one for a name.
func (v Validation) Takes(name string) bool {
	return len(v.Names) == 0 || slices.ContainsFunc(v.Names, func(p string) bool { return Matches(p, name) })
}

// ValidationOf is the first validation that takes a name; where none does, names
// are proven by http-01 via gateway.
func ValidationOf(all []Validation, name string) Validation {
	i := slices.IndexFunc(all, func(v Validation) bool { return v.Takes(name) })
	if i < 0 {
		return Validation{Method: HTTP01, Via: Gateway}
	}
	return all[i]
}
