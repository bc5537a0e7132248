// Package provider has the ways to write TXT records, by name.
//
// rfc2136, builtin and exec are Certfarm's own. The others are APIs of DNS hosters,
// which lego's clients speak to, each call in a process of its own:
//
//	Writer ──request with credentials (file 3)──▶ certfarm dns-helper ──▶ API
//	       ◀──────────answer (standard output)───
//
// Its invariant: a credential is in the memory of the controller and of the helper
// that needs it, and nowhere else: in no argument, no environment that another
// process can see, no file and no error. And whatever a helper does, be it to hang,
// die or talk nonsense, costs one call.
package provider

import "github.com/certfarm/certfarm/internal/prove/dns01"

// All lists every provider, Certfarm's own first. To add one of ours, write its
// file and name it here; lego's are in the catalog that tools/dnsproviders writes.
//
// It is to be called once: writers of one list wait for each other where an API
// only knows the whole set of a name's values, and share what an API that forgets
// can only remove from the process that put it up.
func All() []dns01.Provider {
	return append([]dns01.Provider{Builtin(), Exec(), RFC2136()}, lego()...)
}
