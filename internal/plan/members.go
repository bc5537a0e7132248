package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
)

// A group is what one site of farm.yaml became: the site, or with strategy per-node
// its members, in their order.
type group []farm.Site

// groups puts sites together by their name in farm.yaml.
func groups(f farm.Farm) map[string]group {
	all := map[string]group{}
	for _, s := range f.Sites {
		all[s.Whole()] = append(all[s.Whole()], s)
	}
	for _, g := range all {
		slices.SortFunc(g, farm.Site.Before)
	}
	return all
}

func (g group) members() bool { return len(g) > 0 && g[0].Member != nil }

// names are the names of its sites.
func (g group) names() (all []string) {
	for _, s := range g {
		all = append(all, s.Name)
	}
	return all
}

// asOne is the group as one site, with all targets.
func (g group) asOne() *farm.Site {
	whole := g[0]
	whole.Name, whole.Member, whole.Targets = whole.Whole(), nil, nil
	for _, s := range g {
		whole.Targets = append(whole.Targets, s.Targets...)
	}
	return &whole
}

// group compares what a site of farm.yaml was with what it is.
func (d differ) group(old, now group) (all []Change) {
	old, now = alike(old, now)
	if len(old) > 0 && len(now) > 0 && old.members() != now.members() {
		return d.strategy(old, now)
	}
	eachPair(old, now, func(s farm.Site) string { return s.Name }, func(_ string, was, is *farm.Site) {
		all = append(all, d.site(was, is)...)
	})
	if old.members() || now.members() {
		all = together(all)
	}
	if len(now) > 0 && now[0].Strategy == farm.Edge {
		for i := range all {
			if all[i].Do == Issue || all[i].Do == RollOut {
				all[i].Why += "; the nodes behind are not touched"
			}
		}
	}
	return all
}

// strategy tells that the keys of a site are held by others from now on. Its targets
// keep their names and what is known of them: what they serve now is what the first
// rollout goes back to.
func (d differ) strategy(old, now group) []Change {
	was, is := old.asOne(), now.asOne()
	why := fmt.Sprintf("strategy %s instead of %s: %s", now[0].Strategy, old[0].Strategy, holds(now))
	all := []Change{{
		Do: Issue, Name: is.Name, Targets: targetNames(is), Certificate: true, Why: why,
		Fields: differences(certificate(was, list(was.Issuers())), certificate(is, list(is.Issuers()))),
	}}
	all = append(all, d.targets(was, is)...)
	was.Strategy = is.Strategy // said above
	// What a member has of these is about its own rollouts, and no words of farm.yaml.
	was.Policy.Canary, was.Policy.FailureBudget, was.Policy.Waves = is.Policy.Canary, is.Policy.FailureBudget, is.Policy.Waves
	all = append(all, counts(was, is)...)
	for i := range all {
		all[i].Members = members(old, now)
	}
	return inOrder(all)
}

// members are those of the two sides that has some; a target may be left alone of
// either.
func members(old, now group) []string {
	if now.members() {
		return now.names()
	}
	return append(now.names(), old.names()...)
}

func holds(now group) string {
	if now.members() {
		return fmt.Sprintf("%s with a key and a certificate of its own each", farm.Count(len(now), "node"))
	}
	return "one key and one certificate for all targets"
}

// alike are both sides with {node} for the node in the names that only its member has,
// so that members which change in the same way say the same.
func alike(old, now group) (group, group) {
	if !old.members() && !now.members() {
		return old, now
	}
	nodes, had := map[string]bool{}, map[string]map[string]bool{} // by name
	for _, s := range slices.Concat(old, now) {
		nodes[nodeOf(s)] = true
		for _, n := range s.Names {
			if had[n] == nil {
				had[n] = map[string]bool{}
			}
			had[n][nodeOf(s)] = true
		}
	}
	general := func(g group) group {
		g = slices.Clone(g)
		for i, s := range g {
			g[i].Names = slices.Clone(s.Names)
			for k, n := range s.Names {
				if s.Member != nil && len(had[n]) < min(2, len(nodes)) {
					g[i].Names[k] = strings.ReplaceAll(n, s.Member.Node, "{node}")
				}
			}
		}
		return g
	}
	return general(old), general(now)
}

// nodeOf is the node of a member; empty: the site is none.
func nodeOf(s farm.Site) string {
	if s.Member == nil {
		return ""
	}
	return s.Member.Node
}

// together makes one change of those of several members that say the same.
func together(changes []Change) (all []Change) {
	alike := map[string]int{}
	for _, c := range changes {
		key := fmt.Sprintf("%s %v %q %q", c.Do, c.Certificate, c.Why, c.Fields)
		whole := farm.WholeOf(c.Name)
		i, met := alike[key]
		if !met {
			alike[key] = len(all)
			c.Members, c.Name = []string{c.Name}, whole
			all = append(all, c)
			continue
		}
		all[i].Members = append(all[i].Members, c.Name)
		all[i].Targets = append(all[i].Targets, c.Targets...)
	}
	for i := range all {
		slices.Sort(all[i].Targets)
	}
	return inOrder(all)
}

// Sites are the names of the sites that a change is of: the members of one with
// strategy per-node.
func (c Change) Sites() []string {
	if len(c.Members) > 0 {
		return c.Members
	}
	return []string{c.Name}
}

// place is what a member's place among the others is, as differences go.
func place(s *farm.Site) []value {
	m := s.Member
	if m == nil {
		return nil
	}
	return []value{
		{"wave of the node", fmt.Sprint(m.Wave + 1)}, {"nodes at one time", fmt.Sprint(m.Parallel)},
		{"nodes that may fail", fmt.Sprint(m.Failures)}, {"nodes that may be absent", fmt.Sprint(m.Absent)},
	}
}

// Moves reports that the strategy of a site changes, so that its targets are those of
// other sites from then on.
func (c Change) Moves() bool {
	return c.Do == Issue && slices.ContainsFunc(c.Fields, func(f Field) bool { return f.Name == "strategy" && f.Old != "" && f.New != "" })
}
