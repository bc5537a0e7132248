package config

import (
	"cmp"
	"errors"
	"maps"
	"net/netip"
	"net/url"
	"path"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/certfarm/certfarm/internal/farm"
)

// validations fills in how control of a site's names is shown, and of those that nodes
// have of their own; nodes are those that serve them.
func (c *resolver) validations(w site, names, own, nodes []string) (all []farm.Validation) {
	written := w.Validation
	if len(written) == 0 {
		at := &place{up: w.at, val: &yaml.Node{Kind: yaml.MappingNode, Line: w.at.node().Line, Column: w.at.node().Column}}
		written = validations{{located: located{at}}}
	}
	slices.Sort(nodes)
	nodes = slices.Compact(nodes)
	used := make([]bool, len(written))
	for _, v := range written {
		all = append(all, c.validation(v, nodes))
	}
	for i, name := range slices.Concat(names, own) {
		n := slices.IndexFunc(all, func(v farm.Validation) bool { return v.Takes(name) })
		at := w.at.field("node_name")
		if i < len(names) {
			at = w.at.field("names").item(i)
		}
		if n < 0 {
			c.say(at, "no validation takes "+quote(name), "name it in one of them, or let the last take all that is left: without names")
			continue
		}
		used[n] = true
		c.provable(at, name, all[n])
	}
	for i, v := range written {
		if !used[i] && len(names) > 0 {
			c.say(v.at, "this validation is for none of the site's names", "those before it take them all, or its names are others")
		}
	}
	return all
}

// provable notes a name that the method cannot show to be ours.
func (c *resolver) provable(at *place, name string, v farm.Validation) {
	_, err := netip.ParseAddr(name)
	switch isIP := err == nil; {
	case v.Method == farm.HTTP01 && strings.HasPrefix(name, "*."):
		c.say(at, "http-01 cannot show that a wildcard is ours (RFC 8555 §8.3)", "name each host, or use dns-01")
	case v.Method != farm.HTTP01 && isIP:
		c.say(at, v.Method+" cannot show that an address is ours (RFC 8738 §7)", "use http-01 for it")
	}
}

// validation fills in one of them; nodes are those of the site's targets.
func (c *resolver) validation(w validation, nodes []string) farm.Validation {
	got := farm.Validation{Names: c.patterns(w.at.field("names"), w.Names), Method: cmp.Or(w.Method, farm.HTTP01)}
	if w.Method == "" && w.DNS != "" {
		got.Method = farm.DNS01
	}
	c.only(w, got.Method, cmp.Or(w.Via, farm.Gateway))
	switch got.Method {
	case farm.HTTP01:
		got.Via, got.Front = cmp.Or(w.Via, farm.Gateway), w.Front
		c.overHTTP(w, &got, nodes)
	case farm.DNS01:
		got.DNS = w.DNS
		if _, known := c.file.DNS[w.DNS]; !known {
			c.say(w.at.field("dns"), c.noWriter(w.DNS), didYouMean(w.DNS, slices.Collect(maps.Keys(c.file.DNS))))
		}
		got.Delegate = c.delegate(w)
	}
	return got
}

func (c *resolver) noWriter(name string) string {
	switch {
	case name == "" && len(c.file.DNS) == 0:
		return "dns-01 needs an entry under dns that writes the records, and a word here that names it (dns: …)"
	case name == "":
		return `"dns" is missing: which entry under dns writes the records`
	}
	return "there is no entry " + quote(name) + " under dns"
}

// only notes fields that mean nothing with the method and way that were chosen.
func (c *resolver) only(w validation, method, via string) {
	if !slices.Contains(farm.Vias, via) {
		return // said already
	}
	asked := map[string][]string{
		farm.DNS01:                        {"dns", "delegate"},
		how(farm.HTTP01, farm.Gateway):    {"via"},
		how(farm.HTTP01, farm.Redirect):   {"via", "to", "on", "port", "front"},
		how(farm.HTTP01, farm.Stateless):  {"via", "on", "port", "front"},
		how(farm.HTTP01, farm.Distribute): {"via", "webroot", "on", "port"},
	}[how(method, via)]
	asked = append(asked, "names", "method") // these mean something with all
	known := names(c.fields(reflect.TypeFor[validation]()))
	for _, e := range entries(w.at.val) {
		if name := e.key.Value; slices.Contains(known, name) && !slices.Contains(asked, name) {
			c.say(key(w.at.child(e.key, e.val)), quote(name)+" means nothing with "+how(method, via), "take the line out")
		}
	}
}

// how names a method with its way, as people read it.
func how(method, via string) string {
	if method == farm.HTTP01 {
		return method + " via " + via
	}
	return method
}

// overHTTP fills in what the ways of http-01 need to know.
func (c *resolver) overHTTP(w validation, got *farm.Validation, nodes []string) {
	switch got.Via {
	case farm.Gateway:
		return
	case farm.Redirect:
		got.To = c.redirectTo(w)
	case farm.Distribute:
		got.Webroot = c.webroot(w)
	}
	if got.Front {
		return
	}
	got.Nodes, got.Port = nodes, cmp.Or(w.Port, 80)
	if w.On.at != nil {
		got.Nodes = c.chosen(w.On)
	}
	if w.Port < 0 || w.Port > 65535 {
		c.say(w.at.field("port"), "this is no TCP port", "")
	}
	c.noTokens(w, *got)
	if got.Via == farm.Distribute && len(got.Nodes) == 0 && w.On.at == nil {
		c.say(w.at, "no node would get the token", "say on which nodes: on")
	}
}

// webroot is the folder on the nodes that tokens are written below.
func (c *resolver) webroot(w validation) string {
	switch {
	case w.Webroot == "":
		c.say(w.at, `"webroot" is missing`, "name the folder that the nodes' web servers serve at /")
	case !absolute(w.Webroot):
		c.say(w.at.field("webroot"), quote(w.Webroot)+" is no absolute path", "write /var/www/html, or C:/inetpub/wwwroot")
	}
	return w.Webroot
}

// absolute reports whether a path is one on a POSIX or a Windows node, without
// steps back.
func absolute(p string) bool {
	rest := p
	if len(p) > 2 && p[1] == ':' {
		rest = p[2:]
	}
	return strings.HasPrefix(rest, "/") && path.Clean(rest) == cmp.Or(strings.TrimRight(rest, "/"), "/")
}

// redirectTo checks where a redirect leads: CAs follow to ports 80 and 443 only.
func (c *resolver) redirectTo(w validation) string {
	if w.To == "" {
		c.say(w.at, `"to" is missing`, "say where the challenge path is redirected to: to: http://acme.example.com")
		return ""
	}
	p := w.at.field("to")
	u, err := url.Parse(w.To)
	if err != nil || !ofHost(u) {
		c.say(p, quote(w.To)+" is no URL of a host", "write http://acme.example.com")
		return w.To
	}
	if !followed(u) {
		c.say(p, "public CAs follow no redirect to port "+u.Port(), "serve it at port 80 or 443 and leave the port out")
	}
	host, ok := u.Hostname(), true
	if _, err := netip.ParseAddr(host); err != nil {
		host, ok = c.dnsName(p, host)
	}
	if !ok {
		return w.To
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return u.Scheme + "://" + host
}

// ofHost reports whether a URL of the web says where a host is, and no more.
func ofHost(u *url.URL) bool {
	web := u.Scheme == "http" || u.Scheme == "https"
	return web && u.Host != "" && u.User == nil && u.RawQuery == "" && u.Fragment == "" && strings.Trim(u.Path, "/") == ""
}

// followed reports whether a URL is at the port that its scheme has by itself.
func followed(u *url.URL) bool {
	switch u.Port() {
	case "":
		return true
	case "80":
		return u.Scheme == "http"
	case "443":
		return u.Scheme == "https"
	}
	return false
}

// patterns brings names and patterns of names to A-labels.
func (c *resolver) patterns(at *place, written []string) []string {
	var all []string
	for i, s := range written {
		p := at.item(i)
		if ip, err := netip.ParseAddr(s); err == nil {
			all = append(all, ip.Unmap().String())
		} else if name, ok := c.dnsName(p, s); ok {
			all = append(all, name)
		}
	}
	return all
}

// delegate brings both sides of the rules to the form of DNS names.
func (c *resolver) delegate(w validation) map[string]string {
	at := w.at.field("delegate")
	var all map[string]string
	for _, from := range slices.Sorted(maps.Keys(w.Delegate)) {
		p := at.field(from)
		name, ok := c.dnsName(key(p), from)
		to, err := recordName(w.Delegate[from])
		if err != nil {
			c.say(p, quote(w.Delegate[from])+" is no name of a DNS record", "write the full name of the TXT record: shop.auth.example.net")
		}
		if ok && err == nil {
			if all == nil {
				all = map[string]string{}
			}
			all[name] = to
		}
	}
	return all
}

var errNoLabel = errors.New("a label is empty")

// recordName is a name in DNS in lower case; unlike a host's it may have
// underscores.
func recordName(s string) (string, error) {
	var labels []string
	for l := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		bare, under := strings.CutPrefix(l, "_")
		ascii, err := punycode.ToASCII(bare)
		if err != nil || ascii == "" {
			return "", cmp.Or(err, errNoLabel)
		}
		if under {
			ascii = "_" + ascii
		}
		labels = append(labels, ascii)
	}
	return strings.Join(labels, "."), nil
}

// writers fills in the ways to write TXT records.
func (c *resolver) writers() {
	for _, name := range slices.Sorted(maps.Keys(c.file.DNS)) {
		w := c.file.DNS[name]
		c.checkName(key(w.at), name)
		got := farm.DNS{Name: name, Provider: cmp.Or(w.Provider, name), Silent: 2 * time.Minute, Resolvers: w.Ask == "resolvers"}
		if w.Silent != nil {
			got.Silent = time.Duration(*w.Silent)
		}
		got.Secrets = references(w.Secrets)
		got.Options = c.provider(w, got)
		c.whole.DNS = append(c.whole.DNS, got)
	}
}

// provider lets the provider check its options.
func (c *resolver) provider(w dnsWriter, got farm.DNS) []byte {
	k, known := c.words.DNS[got.Provider]
	if !known {
		c.unlisted(w.at, "provider", "there is no DNS provider "+quote(got.Provider),
			cmp.Or(didYouMean(got.Provider, slices.Collect(maps.Keys(c.words.DNS))), "`certfarm dns providers` lists them"))
		return nil
	}
	return c.checked(k, "provider "+got.Provider, w.at, w.Options, got.Secrets)
}

// unlisted tells of a word that no list has: at the field that says it, or where that is
// left out at the name that stands for it.
func (c *resolver) unlisted(thing *place, field, problem, hint string) {
	at := thing.field(field)
	if at == thing {
		at = key(thing)
	}
	c.say(at, problem, hint)
}

// checked lets a provider check its options; at is where it stands.
func (c *resolver) checked(k Provider, who string, at *place, o options, given map[string]farm.SecretRef) []byte {
	secrets := slices.Sorted(maps.Keys(given))
	before := len(c.wrong)
	c.secretNames(at, who, secrets, k.Secrets)
	if o.bad || len(c.wrong) > before {
		return nil
	}
	canonical, err := k.Check(o.text(), secrets)
	if err != nil {
		c.optionsWrong(cmp.Or(o.at, at), err)
	}
	return canonical
}

// references are where secrets stand, by their names.
func references(said map[string]secret) map[string]farm.SecretRef {
	var all map[string]farm.SecretRef
	for name, ref := range said {
		if all == nil {
			all = map[string]farm.SecretRef{}
		}
		all[name] = farm.SecretRef(ref)
	}
	return all
}
