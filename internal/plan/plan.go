// Package plan says what changes between two farms and what follows from it.
//
// Its invariant: Diff is a pure function, its order depends on names alone, a
// farm differs in nothing from itself, and every difference that farm.yaml can
// make is in exactly one change.
package plan

import (
	"cmp"
	"maps"
	"slices"

	"github.com/certfarm/certfarm/internal/farm"
)

// Do is what is done about a change.
type Do string

// What may be done. Where a site has an Issue, its rollout goes to every target
// of the site and does what a RollOut beside it would do.
const (
	Issue    Do = "issue"    // get a new certificate and roll it out
	RollOut  Do = "roll-out" // install the certificate that the site has on the targets
	Release  Do = "release"  // leave the targets alone and list them until `retire`
	Forget   Do = "forget"   // nothing: another target has the place now
	Watch    Do = "watch"    // look elsewhere; nothing is installed
	Policy   Do = "policy"   // the next rollout keeps to it; one that runs keeps its own
	Site     Do = "site"     // counts from the next order or look on
	Node     Do = "node"     // counts from the next time that the node is reached
	Issuer   Do = "issuer"   // counts from the next order on
	Settings Do = "settings" // of the whole farm; counts at once
)

// A Change is one difference between two farms, and what follows from it.
type Change struct {
	Do          Do       `json:"do"`
	Name        string   `json:"name"`              // of the site, the node or the issuer; empty: the farm
	Members     []string `json:"members,omitempty"` // of a site with strategy per-node, before or after: SITE@NODE, those that are concerned
	Targets     []string `json:"targets,omitempty"` // full names, sorted; of a site
	Certificate bool     `json:"certificate"`       // a new certificate is needed
	Why         string   `json:"why"`               // one sentence
	Fields      []Field  `json:"fields,omitempty"`  // what differs, by the words of farm.yaml
	Blasts      []Blast  `json:"blasts,omitempty"`  // of an Issue or a RollOut: targets that several readers see at once
}

// A Blast is a target with its blast radius: a share or a vault has no canary of
// its own, and one change of it is seen by all its readers at the same moment.
type Blast struct {
	Target  string `json:"target"`
	Readers int    `json:"readers"` // machines, 2 or more
}

// A Field is one difference in detail. A side that is not there is empty.
type Field struct {
	Name string `json:"name"`
	Old  string `json:"old"`
	New  string `json:"new"`
}

// Diff lists the changes that lead from one farm to another: settings, issuers
// and nodes first, then sites, each by name.
func Diff(from, to farm.Farm) []Change {
	var all []Change
	if f := differences(settings(from), settings(to)); len(f) > 0 {
		all = append(all, Change{Do: Settings, Why: "the farm's settings change", Fields: f})
	}
	eachPair(from.Issuers, to.Issuers, func(i farm.Issuer) string { return i.Name }, func(name string, old, now *farm.Issuer) {
		if f := differences(issuer(old), issuer(now)); len(f) > 0 {
			all = append(all, Change{Do: Issuer, Name: name, Why: "the issuer " + what(old != nil, now != nil), Fields: f})
		}
	})
	eachPair(from.Nodes, to.Nodes, func(n farm.Node) string { return n.Name }, func(name string, old, now *farm.Node) {
		if f := differences(node(old), node(now)); len(f) > 0 {
			all = append(all, Change{Do: Node, Name: name, Why: "the node " + what(old != nil, now != nil), Fields: f})
		}
	})
	d := differ{moved: movedCAs(from, to), held: holders(to)}
	was, is := groups(from), groups(to)
	names := slices.Collect(maps.Keys(was))
	names = slices.AppendSeq(names, maps.Keys(is))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		for _, c := range d.group(was[name], is[name]) {
			c.Blasts = blasts(c, is[name])
			all = append(all, c)
		}
	}
	return all
}

// blasts are the targets of a change that several readers see at once.
func blasts(c Change, g group) (all []Blast) {
	if c.Do != Issue && c.Do != RollOut {
		return nil
	}
	for _, s := range g {
		for _, t := range s.Targets {
			if n := len(t.Readers()); n > 1 && slices.Contains(c.Targets, t.Name) {
				all = append(all, Blast{t.Name, n})
			}
		}
	}
	slices.SortFunc(all, func(a, b Blast) int { return cmp.Compare(a.Target, b.Target) })
	return all
}

// what says what became of a thing.
func what(was, is bool) string {
	switch {
	case !was:
		return "is new"
	case !is:
		return "is gone"
	}
	return "changes"
}

// eachPair visits the things of two lists by name; a side that lacks it is nil.
func eachPair[T any](from, to []T, name func(T) string, visit func(name string, old, now *T)) {
	type pair struct{ old, now *T }
	pairs := map[string]pair{}
	for i, v := range from {
		pairs[name(v)] = pair{old: &from[i]}
	}
	for i, v := range to {
		pairs[name(v)] = pair{old: pairs[name(v)].old, now: &to[i]}
	}
	names := make([]string, 0, len(pairs))
	for n := range pairs {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		visit(n, pairs[n].old, pairs[n].now)
	}
}

// movedCAs is the issuers that keep their name and go to another CA.
func movedCAs(from, to farm.Farm) map[string]bool {
	moved := map[string]bool{}
	eachPair(from.Issuers, to.Issuers, func(i farm.Issuer) string { return i.Name }, func(name string, old, now *farm.Issuer) {
		moved[name] = old != nil && now != nil && old.Directory != now.Directory
	})
	return moved
}

// holders is the targets by their physical place.
func holders(f farm.Farm) map[string]string {
	held := map[string]string{}
	for _, s := range f.Sites {
		for _, t := range s.Targets {
			held[t.Identity] = t.Name
		}
	}
	return held
}

// targetNames is the sorted names of a site's targets.
func targetNames(s *farm.Site) []string {
	var names []string
	for _, t := range s.Targets {
		names = append(names, t.Name)
	}
	slices.Sort(names)
	return names
}

// inOrder sorts the changes of one site: what is done first, then by target.
func inOrder(changes []Change) []Change {
	order := []Do{Issue, RollOut, Release, Forget, Watch, Policy, Site}
	slices.SortStableFunc(changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Do), slices.Index(order, b.Do)), slices.Compare(a.Targets, b.Targets))
	})
	return changes
}
