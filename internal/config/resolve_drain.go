package config

import (
	"cmp"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/certfarm/certfarm/internal/farm"
)

// What a drain is where farm.yaml does not say.
const (
	drainSocket = "/run/haproxy/admin.sock"
	drainWait   = 30 * time.Second
)

// backendServer is a server as HAProxy's runtime commands name it; its names are
// letters, digits and - _ . : (configuration.txt, section 2).
var backendServer = regexp.MustCompile(`^[A-Za-z0-9_.:-]+/[A-Za-z0-9_.:-]+$`)

// drains is what a node is taken out of.
func (c *resolver) drains(all []drain) []farm.Drain {
	var got []farm.Drain
	for _, w := range all {
		d := farm.Drain{
			HAProxy: w.HAProxy, Socket: cmp.Or(w.Address, w.Socket), Servers: w.Servers, Command: w.Command, Wait: drainWait, Last: w.Last,
		}
		if w.Wait != nil {
			d.Wait = time.Duration(*w.Wait)
		}
		if c.oneWay(w) && w.Command == "" {
			d.Socket = cmp.Or(d.Socket, drainSocket)
			c.servers(w, d)
		}
		got = append(got, d)
	}
	return got
}

// oneWay holds a drain to one of its three forms.
func (c *resolver) oneWay(w drain) bool {
	said := 0
	for _, text := range []string{w.HAProxy, w.Address, w.Command} {
		if text != "" {
			said++
		}
	}
	if said != 1 {
		c.say(w.at, "a drain has one of haproxy, address and command",
			"{haproxy: NODE, servers: [BACKEND/SERVER]}, the same with address: IP:PORT, or {command: NAME}")
		return false
	}
	for _, f := range []struct {
		name        string
		said, wrong bool
	}{
		{"socket", w.Socket != "", w.HAProxy == ""},
		{"servers", len(w.Servers) > 0, w.Command != ""},
		{"last", w.Last, w.Command != ""},
	} {
		if f.said && f.wrong {
			c.say(w.at.field(f.name), quote(f.name)+" does not go with this", "take it out")
		}
	}
	return true
}

// servers checks what is said of a HAProxy.
func (c *resolver) servers(w drain, d farm.Drain) {
	_, err := netip.ParseAddrPort(d.Socket)
	isPath := path.IsAbs(d.Socket) && path.Clean(d.Socket) == d.Socket && !strings.ContainsFunc(d.Socket, unicode.IsControl)
	if err != nil && (!isPath || w.Address != "") {
		field, hint := "socket", "as in /run/haproxy/admin.sock or 127.0.0.1:9999, what `stats socket` names"
		if w.Address != "" {
			field, hint = "address", "as in 10.0.0.1:9999, what `stats socket ipv4@…` names"
		}
		c.say(w.at.field(field), quote(d.Socket)+" is no admin socket", hint)
	}
	if len(d.Servers) == 0 {
		c.say(w.at, `"servers" is missing`, "as haproxy.cfg names this node, BACKEND/SERVER: servers: [www/web1]")
	}
	for i, s := range d.Servers {
		p := w.at.field("servers").item(i)
		if !backendServer.MatchString(s) {
			c.say(p, quote(s)+" is no server", "write BACKEND/SERVER, as haproxy.cfg names them")
		}
		if slices.Contains(d.Servers[:i], s) {
			c.say(p, quote(s)+" stands here twice", "take one out")
		}
	}
}

// balancersOf checks that the nodes of HAProxy exist and can be asked, and that no
// node is taken out of one place twice.
func (c *resolver) balancersOf(n farm.Node) {
	seen := map[string]int{}
	for i, d := range n.Drain {
		at := c.file.Nodes[n.Name].Drain[i].at
		on, known := c.nodes[d.HAProxy]
		switch {
		case d.HAProxy == "":
		case !known:
			c.say(at.field("haproxy"), "there is no node "+quote(d.HAProxy), didYouMean(d.HAProxy, c.nodeNames()))
		case decides(on):
			c.say(at.field("haproxy"), quote(d.HAProxy)+" decides for itself, and passes on no connections", "name address: IP:PORT")
		case on.SMB != nil:
			c.say(at.field("haproxy"), quote(d.HAProxy)+" is reached by SMB, which knows no sockets", "reach it by ssh, or name address: IP:PORT")
		}
		places := []string{"command " + d.Command}
		if d.Command == "" {
			places = nil
			for _, s := range d.Servers {
				places = append(places, s+" of HAProxy at "+strings.TrimSpace(d.HAProxy+" "+d.Socket))
			}
		}
		for _, p := range places {
			if first, again := seen[p]; again && first != i {
				c.say(at, "the node is taken out here a second time: "+p, "take one out")
			}
			seen[p] = i
		}
	}
}
