package config

import (
	"net"
	"slices"
	"strconv"

	"github.com/certfarm/certfarm/internal/farm"
)

// behind fills in where the nodes behind the proxies of an edge site may be seen. They
// have no target of the site: what is installed on one is not behind.
func (c *resolver) behind(w site, got *farm.Site) {
	if w.Behind == nil {
		return
	}
	at := w.at.field("behind")
	if got.Strategy != farm.Edge {
		c.say(at, "behind means nothing with strategy "+string(got.Strategy), "strategy: edge says that TLS ends before these nodes")
		return
	}
	if w.Behind.On.at == nil {
		c.say(at, `"on" is missing`, "say which nodes are behind: a name, or labels")
		return
	}
	port := 443
	if p := w.Behind.at.field("port"); p != w.Behind.at {
		port = w.Behind.Port
		c.port(p, port)
	}
	for _, name := range c.chosen(w.Behind.On) {
		if slices.ContainsFunc(got.Targets, func(t farm.Target) bool { return t.Node == name }) {
			c.say(w.Behind.On.at, "node "+quote(name)+" has a target of the site: it is an edge, not behind one", "take it out of behind, or its target out of the site")
			return
		}
		got.Behind = append(got.Behind, farm.Endpoint{
			Address: net.JoinHostPort(c.nodes[name].Address, strconv.Itoa(port)), Path: "direct", SNI: c.sni(w.at, "", got.Names),
		})
	}
}
