package config

import (
	"slices"

	"github.com/certfarm/certfarm/internal/farm"
)

// decides reports a node that decides for itself what is done on it: by an agent, or by
// a receiver behind its SSH server. It takes certificates, and neither commands nor
// files nor connections.
func decides(n farm.Node) bool { return n.Agent || n.SSH != nil && n.SSH.Receiver }

// own checks what a node that decides for itself cannot be told from here.
func (c *resolver) own(w node, n farm.Node) {
	if n.Agent {
		for _, field := range []string{"ssh", "smb", "local"} {
			if w.at.field(field) != w.at {
				c.say(w.at.field(field), "a node with an agent is not reached from here: the agent asks the controllers", "take out "+field+", or agent")
			}
		}
	}
	if decides(n) && n.Become != "" {
		c.say(w.at.field("become"), "commands on this node are run by the node itself", "take out become; where it needs root, its agent or its forced command runs as root")
	}
}

// ownAmong is the first of some nodes that decides for itself.
func (c *resolver) ownAmong(nodes []string) (name string, is bool) {
	i := slices.IndexFunc(nodes, func(n string) bool { return decides(c.nodes[n]) })
	if i < 0 {
		return "", false
	}
	return nodes[i], true
}

// noTokens says which node of a validation takes no files for tokens.
func (c *resolver) noTokens(w validation, got farm.Validation) {
	if name, is := c.ownAmong(got.Nodes); is && got.Via == farm.Distribute {
		c.say(w.at, "node "+quote(name)+" decides for itself, and takes no files for tokens", "use via: gateway, redirect or stateless, or name other nodes: on")
	}
}
