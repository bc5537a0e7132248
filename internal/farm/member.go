package farm

import (
	"cmp"
	"strings"
)

// A Member is one node's part of a site whose nodes each have a key and a certificate
// of their own (strategy per-node). It is a site by itself, called SITE@NODE, with
// that node's targets: its certificate, orders, versions and rollouts are its own.
// What it shares with the others is the order in which they go.
type Member struct {
	Of   string `json:"of"`   // the site in farm.yaml
	Node string `json:"node"` // whose key and certificate it has

	// Wave is its place in the policy's waves, laid out over the nodes of the whole
	// site: it begins when the members of lower waves have done.
	Wave     int `json:"wave"`
	Parallel int `json:"parallel"` // members that may be brought a version at one time, ≥ 1
	Failures int `json:"failures"` // members before it that may have failed
	Absent   int `json:"absent"`   // members before it that may be silent, or held by a person
}

// Whole is the name of the site in farm.yaml that a site is, or is a member of.
func (s Site) Whole() string {
	if s.Member != nil {
		return s.Member.Of
	}
	return s.Name
}

// MemberName is the name of a node's part of a site. No site in farm.yaml has one
// like it.
func MemberName(site, node string) string { return site + "@" + node }

// WholeOf is the name of the site that a name of a site belongs to: a member's is
// SITE@NODE.
func WholeOf(name string) string {
	whole, _, _ := strings.Cut(name, "@")
	return whole
}

// Before orders the members of one site: by wave, then by name.
func (s Site) Before(o Site) int {
	if s.Member == nil || o.Member == nil {
		return cmp.Compare(s.Name, o.Name)
	}
	return cmp.Or(cmp.Compare(s.Member.Wave, o.Member.Wave), cmp.Compare(s.Name, o.Name))
}
