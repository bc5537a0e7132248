package config

import (
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
	"golang.org/x/net/idna"
)

// A resolver turns the words of a farm.yaml into a farm.Farm.
type resolver struct {
	*reader
	words   Vocabulary
	file    *farmFile
	whole   farm.Farm
	nodes   map[string]farm.Node
	labeled map[label][]string // names of nodes, in order
	held    map[physical]string
	taken   []uint64 // digests of what targets have to themselves, for the tally
	targets int
	base    draft           // the farm's policy over the defaults
	part    bool            // the text has only some of the sites
	met     map[string]bool // what the farm's own words ask of its sites, and some site has
}

type label struct{ name, value string }

// resolve fills in defaults, follows references, and checks what concerns more
// than one word.
func (c *resolver) resolve() farm.Farm {
	f := c.file
	if f.Farm != "" {
		c.checkName(f.at.field("farm"), f.Farm)
	}
	c.whole.Name = f.Farm
	c.proxy()
	c.resolvers()
	c.controllers()
	for _, name := range slices.Sorted(maps.Keys(f.Issuers)) {
		c.whole.Issuers = append(c.whole.Issuers, c.issuer(name, f.Issuers[name]))
	}
	c.writers()
	c.allNodes()
	c.base = c.farmPolicy()
	c.held = map[physical]string{}
	for _, name := range slices.Sorted(maps.Keys(f.Sites)) {
		if c.full {
			break
		}
		c.whole.Sites = append(c.whole.Sites, c.sites(name, f.Sites[name])...)
	}
	slices.SortFunc(c.whole.Sites, func(a, b farm.Site) int { return strings.Compare(a.Name, b.Name) })
	c.usedWaves()
	c.notifications()
	return c.whole
}

// anySite notes that some site has what the farm's own words ask for. In a part of the
// farm, a site of the rest may have it.
func (c *resolver) anySite(what string, some bool) bool {
	if some {
		c.met[what] = true
	}
	return some || c.part
}

// checkName notes a name that is none.
func (c *resolver) checkName(p *place, name string) {
	if !validName(name) {
		c.say(p, quote(name)+" cannot be a name",
			"names have up to 100 letters, digits, dots, dashes and underscores, and begin and end with a letter or digit")
	}
}

// key is the place of a mapping's key, where the name of its value stands.
func key(p *place) *place {
	if p.key == nil {
		return p
	}
	return &place{up: p.up, step: p.step, val: p.key}
}

// proxy checks the URL of the outbound proxy. A password in it is a secret.
func (c *resolver) proxy() {
	text := c.file.Proxy
	if text == "" {
		return
	}
	p := c.file.at.field("proxy")
	u, err := url.Parse(text)
	switch {
	case strings.Contains(text, "@"):
		c.src.hide(p.val)
		c.say(p, "a password must not stand in farm.yaml", "let the proxy know the controller by its address")
	case err != nil || u.Host == "" || !slices.Contains([]string{"http", "https", "socks5"}, u.Scheme):
		c.say(p, "this is no URL of a proxy", "write http://proxy.example.com:3128")
	}
	c.whole.Proxy = text
}

// resolvers checks the DNS servers and fills in their port.
func (c *resolver) resolvers() {
	at := c.file.at.field("resolvers")
	for _, zone := range slices.Sorted(maps.Keys(c.file.Resolvers)) {
		p := at.field(zone)
		name := zone
		if zone != "." {
			name, _ = c.dnsName(key(p), strings.TrimSuffix(zone, "."))
		}
		if c.whole.Resolvers == nil {
			c.whole.Resolvers = map[string][]string{}
		}
		if _, twice := c.whole.Resolvers[name]; twice {
			c.say(key(p), "zone "+quote(name)+" stands here twice", "")
		}
		if len(c.file.Resolvers[zone]) == 0 {
			c.say(p, "no DNS server is named", "")
		}
		var servers []string
		for i, s := range c.file.Resolvers[zone] {
			servers = append(servers, c.server(p.item(i), s))
		}
		c.whole.Resolvers[name] = servers
	}
}

// controllers checks where controllers answer challenges.
func (c *resolver) controllers() {
	for i, s := range c.file.Controllers {
		if _, _, ok := hostPort(s); !ok && s != "" {
			c.say(c.file.at.field("controllers").item(i), quote(s)+" is no address with a port", "write 10.0.0.5:8402")
		}
		c.whole.Controllers = append(c.whole.Controllers, s)
	}
}

// server is a DNS server as address:port. A name would need a server to be found.
func (c *resolver) server(p *place, s string) string {
	if s == "" {
		return s
	}
	if ip, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return netip.AddrPortFrom(ip, 53).String()
	}
	if to, err := netip.ParseAddrPort(s); err == nil && to.Port() > 0 {
		return to.String()
	}
	c.say(p, quote(s)+" is no IP address", "write 10.0.0.53 or 10.0.0.53:53")
	return s
}

// punycode is how DNS names are brought to the form that certificates have
// (RFC 5280 §7.2): A-labels, in small letters.
var punycode = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(true), idna.VerifyDNSLength(true))

// dnsName is the name in A-labels; "*." in front is kept.
func (c *resolver) dnsName(p *place, s string) (name string, ok bool) {
	if s == "" {
		return s, false // said already
	}
	rest, wild := strings.CutPrefix(s, "*.")
	if _, err := netip.ParseAddr(s); err == nil {
		c.say(p, quote(s)+" is an IP address, not a DNS name", "certificates for addresses are not got yet")
		return s, false
	}
	ascii, err := punycode.ToASCII(rest)
	if err != nil || ascii == "" || strings.HasSuffix(ascii, ".") {
		c.say(p, quote(s)+" is no DNS name", hintForName(s))
		return s, false
	}
	if wild {
		ascii = "*." + ascii
	}
	return ascii, true
}

func hintForName(s string) string {
	switch {
	case strings.Contains(s, "://"), strings.Contains(s, "/"):
		return "write the name alone, without https:// and path"
	case strings.HasSuffix(s, "."):
		return "write it without the dot at the end"
	case strings.Contains(s, ":"):
		return "write it without the port; ports are said in endpoints"
	case strings.Contains(s, "*"):
		return "a wildcard is *. and a name"
	case strings.Contains(s, "_"):
		return "a CA signs no name with an underscore"
	}
	return "names are words of letters, digits and dashes with dots between"
}

// hostPort splits host:port strictly.
func hostPort(s string) (host string, port int, ok bool) {
	host, text, err := net.SplitHostPort(s)
	if err != nil || !validHost(host) {
		return "", 0, false
	}
	port, err = strconv.Atoi(text)
	return host, port, err == nil && port > 0 && port < 1<<16
}

// validHost reports whether s is an IP address or a host name, without a port.
func validHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	return s != "" && len(s) <= 253 && !strings.HasPrefix(s, "-") && strings.IndexFunc(s, notInHost) < 0
}

func notInHost(c rune) bool {
	letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
	return !letter && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_'
}
