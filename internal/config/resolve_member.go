package config

import (
	"cmp"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
)

// members are the parts of a site with strategy per-node: a site for each node, with
// its targets. Names of targets are what they would be in one site, so that changing
// the strategy moves a target and what is known of it from one site to another.
func (c *resolver) members(w site, whole farm.Site) (all []farm.Site) {
	own := map[string][]farm.Target{}
	for _, t := range whole.Targets {
		node := nodeOf(t)
		if node == "" {
			c.say(w.at.field("strategy"), t.Name+" is no place of one node: with per-node, no key is in two places",
				"make it a target of each node ({node} in its options), put it into a site of its own, or use central")
			return nil
		}
		own[node] = append(own[node], t)
	}
	for node, targets := range own {
		m := whole
		m.Name, m.Targets, m.Balancers = farm.MemberName(whole.Name, node), targets, nil
		m.Member = &farm.Member{Of: whole.Name, Node: node}
		m.Names = c.memberNames(w, whole.Names, node)
		for i := range m.Targets {
			m.Targets[i].Site = m.Name
		}
		all = append(all, m)
	}
	slices.SortFunc(all, farm.Site.Before)
	c.inWaves(all, whole.Policy)
	if len(all) > 0 {
		all[0].Balancers = whole.Balancers // one looks for all
	}
	return all
}

// nodeOf is the node that a target belongs to; empty: several, or none.
func nodeOf(t farm.Target) string {
	if t.Node != "" {
		return t.Node
	}
	_, node, _ := strings.Cut(t.Name, "@")
	return node
}

// memberNames are the site's names, and the node's own where farm.yaml has one.
func (c *resolver) memberNames(w site, names []string, node string) []string {
	name := c.nodeName(w, node)
	if name == "" || slices.Contains(names, name) {
		return names
	}
	return append(slices.Clone(names), name)
}

// nodeName is the name that only a node's own certificate has; empty: none.
func (c *resolver) nodeName(w site, node string) string {
	at := w.at.field("node_name")
	switch {
	case w.NodeName == "":
		return ""
	case w.Strategy != string(farm.PerNode):
		c.say(at, "node_name means nothing with strategy "+cmp.Or(w.Strategy, string(farm.Central)), "only per-node has a certificate for each node: take the line out")
		return ""
	case !strings.Contains(w.NodeName, perNode):
		c.say(at, "the name is the same for every node", "write "+perNode+" where the node's name belongs: \""+perNode+".nodes.example.com\"")
		return ""
	}
	name, _ := c.dnsName(at, strings.ReplaceAll(w.NodeName, perNode, node))
	return name
}

// ownNames are the names that nodes of the site have of their own.
func (c *resolver) ownNames(w site, targets []farm.Target) (all []string) {
	for _, t := range targets {
		name := c.nodeName(w, nodeOf(t))
		if name != "" && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}

// inWaves lays the policy's waves out over the nodes, as rollout.New does over targets:
// each member then has what is left of the policy for its own rollouts.
func (c *resolver) inWaves(all []farm.Site, p farm.Policy) {
	wave, taken := 0, make([]bool, len(all))
	take := func(most int, match func(farm.Site) bool) {
		n := 0
		for i, m := range all {
			if taken[i] || n >= most || !match(m) {
				continue
			}
			taken[i], n = true, n+1
			all[i].Member.Wave = wave
		}
		if n > 0 {
			wave++
		}
	}
	undoable := func(m farm.Site) bool {
		return !slices.ContainsFunc(m.Targets, func(t farm.Target) bool { return t.LastWave })
	}
	take(p.Canary.Of(len(all)), undoable)
	for _, w := range p.Waves {
		take(len(all), func(m farm.Site) bool {
			return undoable(m) && slices.ContainsFunc(m.Targets, func(t farm.Target) bool { return has(t.Labels, w.Match) })
		})
	}
	take(len(all), undoable)
	take(len(all), func(farm.Site) bool { return true })
	slices.SortFunc(all, farm.Site.Before)
	for i := range all {
		m := &all[i]
		m.Member.Parallel = max(1, min(p.MaxParallel, len(all)))
		m.Member.Failures, m.Member.Absent = p.FailureBudget.Of(len(all)), p.AbsentMax.Of(len(all))
		m.Policy = ofMember(p, m.Targets)
	}
}

// ofMember is the policy of one member's own rollouts: the canary is another member,
// and so is who a failure is forgiven for.
func ofMember(p farm.Policy, targets []farm.Target) farm.Policy {
	p.Canary, p.FailureBudget = farm.Share{}, farm.Share{}
	p.Waves = slices.DeleteFunc(slices.Clone(p.Waves), func(w farm.WaveSpec) bool { return !hasTarget(w.Match, targets) })
	if len(p.Waves) == 0 {
		p.Waves = nil
	}
	return p
}

// affordable refuses nodes that the issuer's limits can never give a certificate each
// in time. It is asked when all else is right.
func (c *resolver) affordable(w site, all []farm.Site) {
	if c.words.Unaffordable == nil || len(c.wrong) > 0 || len(all) == 0 || all[0].Member == nil {
		return
	}
	i := slices.IndexFunc(c.whole.Issuers, func(i farm.Issuer) bool { return i.Name == all[0].Issuer })
	if i < 0 {
		return
	}
	if why, hint := c.words.Unaffordable(all, c.whole.Issuers[i]); why != "" {
		c.say(w.at.field("strategy"), why, hint)
	}
}
