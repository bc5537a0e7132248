package config

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
)

// sites resolves one site of farm.yaml: to itself, or with strategy per-node to a
// site for each node.
func (c *resolver) sites(name string, w site) []farm.Site {
	whole := c.site(name, w)
	all := []farm.Site{whole}
	if whole.Strategy == farm.PerNode {
		all = c.members(w, whole)
	}
	for _, s := range all {
		c.possible(w, s)
	}
	c.affordable(w, all)
	return all
}

// site resolves one site of farm.yaml.
func (c *resolver) site(name string, w site) farm.Site {
	c.checkName(key(w.at), name)
	got := farm.Site{Name: name, Tags: w.Tags, Strategy: c.strategy(w)}
	got.Issuer, got.Fallbacks, got.Profile = c.siteIssuers(w)
	got.Names = c.siteNames(w)
	got.KeyTypes = c.keyTypes(w)
	c.tags(w)
	s := siteView{names: got.Names, targets: map[string]bool{}}
	if len(w.Targets) == 0 && w.at.field("targets") != w.at {
		c.say(w.at.field("targets"), "there is no target", "say where the certificate is to be installed")
	}
	for _, t := range w.Targets {
		got.Targets = append(got.Targets, c.target(name, t, &s)...)
	}
	slices.SortFunc(got.Targets, func(a, b farm.Target) int { return strings.Compare(a.Name, b.Name) })
	for _, b := range w.Balancers {
		got.Balancers = append(got.Balancers, c.balancer(b, s.names))
	}
	got.Validations = c.validations(w, got.Names, c.ownNames(w, got.Targets), s.nodes)
	got.Policy = c.sitePolicy(w, got.Targets)
	c.behind(w, &got)
	return got
}

// possible refuses windows that leave no way to renew in time. It is asked when all
// else is right.
func (c *resolver) possible(w site, got farm.Site) {
	if c.words.Impossible == nil || len(c.wrong) > 0 {
		return
	}
	why := c.words.Impossible(got)
	if why == "" {
		return
	}
	at := key(w.at)
	for _, p := range []*policy{c.file.Policy, w.Policy} {
		if p != nil && p.Window != nil {
			at = p.at.field("window")
		}
	}
	for _, t := range w.Targets {
		if t.Window != nil {
			at = t.at.field("window")
		}
	}
	c.say(at, "the windows of site "+quote(got.Whole())+" are too far apart: "+why, "open a window more often, or take a profile whose certificates live longer")
}

// tags checks the tags.
func (c *resolver) tags(w site) {
	for i, tag := range w.Tags {
		if p := w.at.field("tags").item(i); tag != "" {
			c.checkName(p, tag)
			if slices.Contains(w.Tags[:i], tag) {
				c.say(p, "tag "+quote(tag)+" stands here twice", "")
			}
		}
	}
}

func (c *resolver) strategy(w site) farm.Strategy {
	return farm.Strategy(orElse(w.Strategy, string(farm.Central)))
}

// siteNames brings the names to A-labels, and addresses to their shortest form.
func (c *resolver) siteNames(w site) []string {
	at := w.at.field("names")
	if len(w.Names) == 0 && at != w.at {
		c.say(at, "there is no name", "")
	}
	var all []string
	for i, s := range w.Names {
		p := at.item(i)
		name, ok := c.identifier(p, s)
		switch {
		case !ok:
		case slices.Contains(all, name):
			c.say(p, quote(name)+" stands here twice", "")
		default:
			all = append(all, name)
		}
	}
	return all
}

// identifier is one name of a site: A-labels, or an address.
func (c *resolver) identifier(p *place, s string) (name string, ok bool) {
	if ip, err := netip.ParseAddr(s); err == nil && ip.Zone() == "" {
		return ip.Unmap().String(), true // RFC 8738 §3
	}
	return c.dnsName(p, s)
}

func (c *resolver) keyTypes(w site) []farm.KeyType {
	at := w.at.field("keys")
	if at == w.at {
		return []farm.KeyType{farm.EC256}
	}
	if len(w.Keys) == 0 {
		c.say(at, "there is no key type", "write [ec256], or take the line out")
	}
	var all []farm.KeyType
	for i, k := range w.Keys {
		if slices.Contains(all, farm.KeyType(k)) && k != "" {
			c.say(at.item(i), "key type "+k+" stands here twice", "")
		}
		all = append(all, farm.KeyType(k))
	}
	return all
}

// sni is the server name that an endpoint is asked for.
func (c *resolver) sni(at *place, said string, names []string) string {
	if len(names) == 0 {
		return said // the names are wrong, which was said
	}
	if said == "" {
		for _, n := range names {
			if !strings.HasPrefix(n, "*.") {
				return n
			}
		}
		c.say(at, "all names of the site are wildcards", "say which name to ask for: sni")
		return ""
	}
	p := at.field("sni")
	name, ok := c.dnsName(p, said)
	if ok && !covered(name, names) {
		c.say(p, quote(said)+" is none of the site's names, so that it would never be trusted", didYouMean(said, names))
	}
	return name
}

// covered reports whether a certificate for names serves name (RFC 9525 §6.3).
func covered(name string, names []string) bool {
	_, parent, _ := strings.Cut(name, ".")
	return slices.Contains(names, name) || slices.Contains(names, "*."+parent)
}

func (c *resolver) startTLS(at *place, protocol string) string {
	if protocol != "" && !slices.Contains(c.words.StartTLS, protocol) {
		c.say(at.field("starttls"), quote(protocol)+" is not a protocol that can be upgraded here", didYouMean(protocol, c.words.StartTLS))
	}
	return protocol
}

func (c *resolver) proxyHeader(at *place, version int) int {
	if version < 0 || version > 2 {
		c.say(at.field("proxy"), "the PROXY protocol has versions 1 and 2", "0 sends no header")
	}
	return version
}

func (c *resolver) balancer(w balancer, names []string) farm.Endpoint {
	if _, _, ok := hostPort(w.Address); !ok && w.Address != "" {
		c.say(w.at.field("address"), quote(w.Address)+" is no address with a port", "write 192.0.2.10:443")
	}
	return farm.Endpoint{
		Address: w.Address, Path: "direct", SNI: c.sni(w.at, w.SNI, names),
		StartTLS: c.startTLS(w.at, w.StartTLS), Proxy: c.proxyHeader(w.at, w.Proxy),
	}
}
