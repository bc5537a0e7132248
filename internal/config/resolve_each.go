package config

import (
	"bytes"
	"encoding/json"

	"github.com/certfarm/certfarm/internal/farm"
)

// perNode stands for the address of a node, in endpoints and in the options of a
// target that is no place on a node.
const perNode = "{node}"

// eachNode reports a target that is no place on a node, but a place of its own for
// every node, such as a share for each machine: \\{node}\certs. Options that put it
// on its nodes anyway are left to the kind.
func (c *resolver) eachNode(w target) bool {
	k := c.words.Kinds[w.Kind]
	return k.Nodeless && bytes.Contains(w.Options.json, []byte(perNode)) && (k.OnNode == nil || !k.OnNode(w.Options.json))
}

// forNode is the options for one node.
func (o options) forNode(address string) options {
	text, err := json.Marshal(address)
	if err == nil {
		o.json = bytes.ReplaceAll(o.json, []byte(perNode), bytes.Trim(text, `"`))
	}
	return o
}

// ofEachNode resolves a target that is no place on a node, and of which each node
// that reads it has its own: one target a node, called SITE/NAME@NODE, with the
// node's labels and seen there alone. So they can go live one after another.
func (c *resolver) ofEachNode(site string, w target, s *siteView) []farm.Target {
	if w.On.at == nil {
		c.say(w.at, `"on" is missing`, "say which nodes "+perNode+" in the options stands for: names, or labels")
		return nil
	}
	nodes := c.chosen(w.On)
	s.nodes = append(s.nodes, nodes...)
	ends := c.endpoints(w, s.names, nodes)
	var all []farm.Target
	for _, name := range nodes {
		before, own := len(c.wrong), w
		own.Name, own.Options = orElse(w.Name, w.Kind)+"@"+name, w.Options.forNode(c.nodes[name].Address)
		got := c.nodeless(site, own, s, c.kind(own, s.names), []string{name}, ends)
		if len(c.wrong) > before || c.tooMany(w) {
			break // the next node would have the same mistake
		}
		for _, t := range got {
			t.Labels = c.nodes[name].Labels
			all = append(all, t)
		}
	}
	return all
}

// changed are the nodes that read a target and are worked on with it: none, mostly.
func (c *resolver) changed(w target, facts checked, nodes []string) []string {
	works := c.words.Kinds[w.Kind].OnReaders
	if works == nil || !facts.ok || !works(facts.options) {
		return nil
	}
	if w.On.at == nil {
		c.say(w.at, `"on" is missing`, "these options change the servers that read the target: say which, by name or labels")
	}
	for _, name := range nodes {
		if n := c.nodes[name]; decides(n) || n.SSH == nil && !n.Local {
			c.say(w.at.field("on"), "node "+quote(name)+" takes no commands over SSH, and these options change the servers that read the target", "reach it over SSH, or change its settings yourself and leave these options out")
			break
		}
	}
	return nodes
}
