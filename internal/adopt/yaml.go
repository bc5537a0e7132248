package adopt

import (
	"encoding/json"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
)

// written is the fragment: sites, each as a block that stands by itself.
func written(f Facts, all []*site) string {
	var b strings.Builder
	if len(all) == 0 {
		return ""
	}
	b.WriteString("sites:\n")
	live := 0
	for _, s := range all {
		text := f.site(s)
		if s.doubt == "" {
			b.WriteString(text)
			live++
			continue
		}
		fmt.Fprintf(&b, "  # Left out: %s\n", comment(s.doubt))
		for line := range strings.Lines(text) {
			b.WriteString("  # " + strings.TrimPrefix(line, "  "))
		}
	}
	if live == 0 {
		return strings.Replace(b.String(), "sites:\n", "# sites:\n", 1)
	}
	return b.String()
}

// site is one site as it stands in farm.yaml, two spaces in.
func (f Facts) site(s *site) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("  %s:", s.name)
	line("    names: %s", flow(s.names))
	if len(f.Farm.Issuers) > 1 {
		var names []string
		for _, i := range f.Farm.Issuers {
			names = append(names, i.Name)
		}
		line("    issuer: %s # which one: %s?", scalar(names[0]), strings.Join(names, ", "))
	}
	if len(s.keys) > 0 && !slices.Equal(s.keys, []farm.KeyType{farm.EC256}) {
		var keys []string
		for _, k := range s.keys {
			keys = append(keys, string(k))
		}
		line("    keys: %s", flow(keys))
	}
	if slices.ContainsFunc(s.names, func(n string) bool { return strings.Contains(n, "*") }) && len(f.Farm.DNS) > 0 {
		line("    validation: {method: dns-01, dns: %s}", scalar(f.Farm.DNS[0].Name))
	}
	line("    targets:")
	for _, t := range s.targets {
		f.target(&b, s, t)
	}
	return b.String()
}

func (f Facts) target(b *strings.Builder, s *site, t *target) {
	line := func(format string, args ...any) { fmt.Fprintf(b, format+"\n", args...) }
	for _, c := range t.comments {
		line("      # %s", comment(c))
	}
	line("      - kind: %s", t.kind)
	if t.name != "" {
		line("        name: %s", t.name)
	}
	line("        on: %s", scalar(f.Node.Name))
	line("        options:")
	for _, o := range t.options {
		line("          %s: %s", o.name, setting(o.value))
	}
	if len(t.secrets) > 0 {
		line("        secrets:")
		for _, o := range t.secrets {
			line("          %s: {secret: %s} # certfarm secret set %s", o.name, scalar(fmt.Sprint(o.value)), o.value)
		}
	}
	if standard(f.Node, s.names, t.ends) {
		return
	}
	line("        endpoints:")
	for _, e := range t.ends {
		line("          - %s", endpoint(f.Node, e))
	}
}

// standard reports endpoints that are what farm.yaml means when it says none.
func standard(n farm.Node, names []string, ends []farm.Endpoint) bool {
	if len(ends) == 0 {
		return true
	}
	return len(ends) == 1 && ends[0] == farm.Endpoint{Address: net.JoinHostPort(n.Address, "443"), Path: "direct", SNI: names[0]}
}

func endpoint(n farm.Node, e farm.Endpoint) string {
	host, port, _ := net.SplitHostPort(e.Address) // it was joined here
	parts := []string{"address: " + scalar(e.Address)}
	if host == n.Address {
		parts = []string{"port: " + port}
	}
	parts = append(parts, "sni: "+scalar(e.SNI))
	if e.Path != "direct" {
		parts = append(parts, "path: "+e.Path)
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// setting is the value of an option.
func setting(v any) string {
	switch v := v.(type) {
	case []string:
		return flow(v)
	case [][]field:
		var all []string
		for _, m := range v {
			var pairs []string
			for _, p := range m {
				pairs = append(pairs, p.name+": "+setting(p.value))
			}
			all = append(all, "{"+strings.Join(pairs, ", ")+"}")
		}
		return "[" + strings.Join(all, ", ") + "]"
	}
	return scalar(fmt.Sprint(v))
}

func flow(words []string) string {
	var all []string
	for _, w := range words {
		all = append(all, scalar(w))
	}
	return "[" + strings.Join(all, ", ") + "]"
}

// bare are texts that mean themselves in YAML, in flow lists, too.
var bare = regexp.MustCompile(`^-?[A-Za-z/_][A-Za-z0-9/_.+-]*$`)

// scalar is a text as YAML has it; a JSON string is one.
func scalar(text string) string {
	switch strings.ToLower(text) {
	case "true", "false", "yes", "no", "on", "off", "null", "y", "n":
		return strconv.Quote(text)
	}
	if bare.MatchString(text) {
		return text
	}
	quoted, err := json.Marshal(text)
	if err != nil {
		return strconv.Quote(text)
	}
	return string(quoted)
}

// comment is a text on one line, without what could end a comment or play with a
// terminal.
func comment(text string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c >= 0x80 && c < 0xa0 || c == '\u2028' || c == '\u2029' || c == '\ufffd' || c == '\ufeff' {
			return ' '
		}
		return c
	}, text)
}
