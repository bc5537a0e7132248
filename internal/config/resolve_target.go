package config

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// maxTargets is how many targets a farm may have; each is a row and a job.
const maxTargets = 1_000_000

// A physical place is somewhere on one machine, whatever its node is called.
type physical struct{ machine, identity string }

// A siteView is what targets need to know of their site.
type siteView struct {
	names   []string
	targets map[string]bool // full names so far
	nodes   []string        // that have a target, or read one
}

// checked is what a kind says of a target's options.
type checked struct {
	identity, group string
	places          []string
	options         []byte
	ok              bool
}

// target resolves one entry of targets to a target on each of its nodes. Its
// full name is SITE/NAME@NODE.
func (c *resolver) target(site string, w target, s *siteView) []farm.Target {
	if w.Name != "" {
		c.checkName(w.at.field("name"), w.Name)
	}
	if c.eachNode(w) {
		return c.paced(w, c.ofEachNode(site, w, s))
	}
	facts := c.kind(w, s.names)
	nodeless := c.isNodeless(w.Kind, facts)
	if w.On.at == nil && !nodeless && w.Kind != "" {
		c.say(w.at, `"on" is missing`, "say on which nodes: a name, or labels")
	}
	nodes := c.chosen(w.On)
	s.nodes = append(s.nodes, nodes...)
	ends := c.endpoints(w, s.names, nodes)
	if nodeless {
		return c.paced(w, c.nodeless(site, w, s, facts, nodes, ends))
	}
	c.targets += len(nodes)
	if c.tooMany(w) {
		return nil
	}
	all := make([]farm.Target, 0, len(nodes))
	for _, name := range nodes {
		n := c.nodes[name]
		t := farm.Target{
			Name: site + "/" + orElse(w.Name, w.Kind) + "@" + name, Site: site, Node: name,
			Kind: w.Kind, Options: facts.options, Secrets: refs(w.Secrets), Labels: n.Labels, Endpoints: placed(ends, n.Address),
		}
		if !c.called(w, s, t.Name) || facts.ok && !c.hold(w, &t, n, facts) {
			break
		}
		all = append(all, t)
	}
	return c.paced(w, all)
}

// tooMany notes that the farm has more targets than it may.
func (c *resolver) tooMany(w target) bool {
	if c.targets > maxTargets {
		c.say(w.at, fmt.Sprintf("the farm has more than %d targets", maxTargets), "")
		c.full = true
	}
	return c.full
}

// paced gives targets their own window, deadline, lag and absent_max.
func (c *resolver) paced(w target, all []farm.Target) []farm.Target {
	windows := c.windows(w.at.field("window"), w.Window)
	for i := range all {
		all[i].Windows = windows
		if w.Deadline != nil {
			all[i].Deadline = time.Duration(*w.Deadline)
		}
		if w.Lag != nil {
			all[i].Lag = time.Duration(*w.Lag)
		}
		if w.AbsentMax != nil {
			all[i].AbsentMax = farm.Share(*w.AbsentMax)
		}
	}
	if w.Deadline != nil {
		c.positive(w.at.field("deadline"), time.Duration(*w.Deadline))
	}
	return all
}

// isNodeless reports a target that is no place on a node.
func (c *resolver) isNodeless(kind string, facts checked) bool {
	k := c.words.Kinds[kind]
	return k.Nodeless && (k.OnNode == nil || !facts.ok || !k.OnNode(facts.options))
}

// called notes a name that another target of the site has.
func (c *resolver) called(w target, s *siteView, name string) bool {
	if s.targets[name] {
		c.say(key(w.at), "two targets are called "+name, "give one of them a name of its own: name: …")
		return false
	}
	s.targets[name] = true
	return true
}

// nodeless is a target that is no place on a node; its full name is SITE/NAME. It
// is seen at every node that reads it.
func (c *resolver) nodeless(site string, w target, s *siteView, facts checked, nodes []string, ends []farm.Endpoint) []farm.Target {
	t := farm.Target{
		Name: site + "/" + orElse(w.Name, w.Kind), Site: site, Kind: w.Kind, Options: facts.options, Secrets: refs(w.Secrets),
	}
	t.ReadBy = c.changed(w, facts, nodes)
	if final := c.words.Kinds[w.Kind].NoUndo; final != nil && facts.ok {
		t.LastWave = final(facts.options)
	}
	for _, name := range nodes {
		t.Endpoints = append(t.Endpoints, placed(ends, c.nodes[name].Address)...)
	}
	if len(nodes) == 0 {
		if len(w.Endpoints) == 0 || slices.ContainsFunc(ends, func(e farm.Endpoint) bool { return strings.HasPrefix(e.Address, "{node}") }) {
			c.say(w.at, "it is not known where the certificate of this target is seen", "name the nodes that read it (on), or endpoints with their address: {address: shop.example.com:443}")
		}
		t.Endpoints = ends
	}
	c.targets++
	if !c.called(w, s, t.Name) || facts.ok && !c.hold(w, &t, farm.Node{}, facts) {
		return nil
	}
	return []farm.Target{t}
}

func refs(secrets map[string]secret) map[string]farm.SecretRef {
	var all map[string]farm.SecretRef
	for name, s := range secrets {
		if all == nil {
			all = map[string]farm.SecretRef{}
		}
		all[name] = farm.SecretRef(s)
	}
	return all
}

// hold gives the target its physical place, which it must not share. Both place
// and group are made unique in the farm by the node's name; a target that no
// reload makes live is a group of its own.
func (c *resolver) hold(w target, t *farm.Target, n farm.Node, facts checked) bool {
	t.Identity, t.Group = facts.identity, orElse(facts.group, facts.identity)
	if n.Name != "" {
		t.Identity, t.Group = n.Name+": "+t.Identity, n.Name+": "+t.Group
	}
	for _, place := range facts.places {
		if other, taken := c.held[physical{machine(n), place}]; taken {
			c.say(w.at, fmt.Sprintf("%s is the same place as %s: %s", t.Name, other, place),
				"one place holds one certificate: take one of them out, or give it another path")
			return false
		}
	}
	for _, place := range facts.places {
		c.held[physical{machine(n), place}] = t.Name
		c.taken = append(c.taken, digest("place", machine(n), place))
	}
	c.taken = append(c.taken, digest("identity", t.Identity))
	return true
}

// machine tells machines apart by how they are reached.
func machine(n farm.Node) string {
	switch {
	case n.Name == "":
		return "no node"
	case n.Agent:
		return "agent of " + n.Name
	case n.SMB != nil:
		return strings.ToLower(n.SMB.Share)
	case n.SSH == nil:
		return "local"
	}
	return n.Address + " " + strconv.Itoa(n.SSH.Port) + " " + n.SSH.Jump
}

// kind lets the kind check the options.
func (c *resolver) kind(w target, names []string) checked {
	k, known := c.words.Kinds[w.Kind]
	if !known {
		if w.Kind != "" {
			c.say(w.at.field("kind"), "there is no kind of target "+quote(w.Kind), didYouMean(w.Kind, slices.Collect(maps.Keys(c.words.Kinds))))
		}
		return checked{}
	}
	secrets := slices.Sorted(maps.Keys(w.Secrets))
	before := len(c.wrong)
	c.optionNames(w.Options, k.Options)
	c.secretNames(w.at, "kind "+w.Kind, secrets, k.Secrets)
	if w.Options.bad || len(c.wrong) > before {
		return checked{}
	}
	text := w.Options.text()
	if k.Named {
		text = named(text, names)
	}
	identity, group, canonical, err := k.Check(text, secrets)
	if err != nil {
		c.optionsWrong(cmp.Or(w.Options.at, w.at), err)
		return checked{}
	}
	got := checked{identity, group, []string{identity}, canonical, true}
	if k.Places != nil {
		got.places = k.Places(canonical)
	}
	return got
}

// named adds the site's names to options that do not say any themselves.
func named(options []byte, names []string) []byte {
	var all map[string]any
	if err := json.Unmarshal(options, &all); err != nil || all["names"] != nil {
		return options // the kind says what is wrong with them
	}
	all["names"] = names
	text, err := json.Marshal(all)
	if err != nil {
		return options
	}
	return text
}

// chosen is the names of the nodes that were chosen, in order.
func (c *resolver) chosen(on selector) []string {
	if len(c.file.Nodes) == 0 || on.at == nil {
		return nil // said already
	}
	if len(on.labels) > 0 {
		found := c.matching(on.labels)
		if len(found) == 0 {
			c.say(on.at, "no node has "+written(on.labels), c.labelHint(on.labels))
		}
		return found
	}
	if on.names != nil && len(on.names) == 0 {
		c.say(on.at, "there is no node", "name nodes or a label")
	}
	var found []string
	for i, name := range on.names {
		p := on.at.item(i)
		_, known := c.nodes[name]
		switch {
		case name == "":
		case !known:
			c.say(p, "there is no node "+quote(name), didYouMean(name, c.nodeNames()))
		case slices.Contains(found, name):
			c.say(p, "node "+quote(name)+" stands here twice", "")
		default:
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found
}

// matching is the nodes that have all the labels.
func (c *resolver) matching(labels map[string]string) []string {
	var fewest []string
	first := true
	for k, v := range labels {
		if has := c.labeled[label{k, v}]; first || len(has) < len(fewest) {
			fewest, first = has, false
		}
	}
	var found []string
	for _, name := range fewest {
		if has(c.nodes[name].Labels, labels) {
			found = append(found, name)
		}
	}
	return found
}

// has reports whether all wanted labels are there.
func has(labels, wanted map[string]string) bool {
	for k, v := range wanted {
		if got, there := labels[k]; !there || got != v {
			return false
		}
	}
	return true
}

func written(labels map[string]string) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		all = append(all, k+": "+labels[k])
	}
	return "{" + strings.Join(all, ", ") + "}"
}

// labelHint looks for the label that was likely meant.
func (c *resolver) labelHint(labels map[string]string) string {
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if len(c.labeled[label{k, labels[k]}]) > 0 {
			continue
		}
		var values, names []string
		for l := range c.labeled {
			names = append(names, l.name)
			if l.name == k {
				values = append(values, l.value)
			}
		}
		if len(values) > 0 {
			return didYouMean(labels[k], values)
		}
		slices.Sort(names)
		return didYouMean(k, slices.Compact(names))
	}
	return "each of them is on some node, but never all on one"
}

// endpoints resolves where the certificate is seen; {node} is still in place.
func (c *resolver) endpoints(w target, names, nodes []string) []farm.Endpoint {
	if at := w.at.field("endpoints"); at != w.at && len(w.Endpoints) == 0 && len(at.val.Content) == 0 {
		c.say(at, "there is no endpoint", "what is not seen is not verified: take the line out for the default, or say where it is served")
	}
	if len(w.Endpoints) == 0 {
		return []farm.Endpoint{{Address: "{node}:443", Path: "direct", SNI: c.sni(w.at, "", names)}}
	}
	var all []farm.Endpoint
	for _, e := range w.Endpoints {
		got := farm.Endpoint{
			Address: c.endpointAddress(e), Path: orElse(e.Path, "direct"), SNI: c.sni(e.at, e.SNI, names),
			StartTLS: c.startTLS(e.at, e.StartTLS), Proxy: c.proxyHeader(e.at, e.Proxy),
		}
		if i := slices.IndexFunc(nodes, func(n string) bool { return c.nodes[n].Local }); got.Path == "ssh" && i >= 0 {
			c.say(e.at.field("path"), "node "+quote(nodes[i])+" is local: there is no SSH line to look through", "use direct")
		}
		if name, is := c.ownAmong(nodes); is && got.Path == "ssh" {
			c.say(e.at.field("path"), "node "+quote(name)+" decides for itself, and passes on no connections", "use direct")
		}
		if slices.Contains(all, got) {
			c.say(e.at, "this endpoint stands here twice", "")
		}
		all = append(all, got)
	}
	return all
}

func (c *resolver) endpointAddress(w endpoint) string {
	switch {
	case w.Address == "":
		port := w.Port
		if w.at.field("port") == w.at {
			port = 443
		} else {
			c.port(w.at.field("port"), port)
		}
		return "{node}:" + strconv.Itoa(port)
	case w.at.field("port") != w.at:
		c.say(w.at.field("port"), "an endpoint has a port or an address, not both", "write the port behind the address")
	}
	host, isNode := strings.CutPrefix(w.Address, "{node}")
	if isNode {
		host = "node" + host
	}
	if _, _, ok := hostPort(host); !ok {
		c.say(w.at.field("address"), quote(w.Address)+" is no address with a port", "write {node}:8443 or 192.0.2.10:443")
	}
	return w.Address
}

// placed is the endpoints of one node.
func placed(ends []farm.Endpoint, address string) []farm.Endpoint {
	own := slices.Clone(ends)
	for i, e := range own {
		if port, isNode := strings.CutPrefix(e.Address, "{node}:"); isNode {
			own[i].Address = net.JoinHostPort(address, port)
		}
	}
	return own
}
