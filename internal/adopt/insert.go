package adopt

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Insert puts a report's lines into the text of a farm.yaml, below the sites that it
// has. It is a way to try them: the text is not laid out for people. Ok is false where
// the sites do not stand in lines of their own.
func Insert(text, lines string) (whole string, ok bool) {
	body, some := strings.CutPrefix(lines, "sites:\n")
	if !some {
		return text, lines == ""
	}
	if has, empty, err := sitesOf(text); err != nil {
		return text, false
	} else if has && !empty {
		before, after, found := strings.Cut("\n"+text, "\nsites:\n")
		if !found {
			return text, false
		}
		return strings.TrimPrefix(before+"\nsites:\n"+reindent(body, indentOf(after))+after, "\n"), true
	}
	var kept []string
	for _, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		if !strings.HasPrefix(line, "sites:") { // there is none below it
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n") + "\n" + lines, true
}

// sitesOf says whether a farm.yaml has sites, and whether they are none.
func sitesOf(text string) (has, empty bool, err error) {
	var all map[string]any
	if err := yaml.Unmarshal([]byte(text), &all); err != nil {
		return false, false, err
	}
	sites, has := all["sites"]
	m, _ := sites.(map[string]any)
	return has, len(m) == 0, nil
}

// indentOf is how far the first line of a block stands in.
func indentOf(block string) int {
	for line := range strings.Lines(block) {
		bare := strings.TrimLeft(line, " ")
		if t := strings.TrimSpace(bare); t != "" && t[0] != '#' {
			return len(line) - len(bare)
		}
	}
	return 2
}

// reindent moves lines that stand two spaces in to another depth.
func reindent(body string, depth int) string {
	if depth == 2 {
		return body
	}
	var b strings.Builder
	for line := range strings.Lines(body) {
		b.WriteString(strings.Repeat(" ", depth) + strings.TrimPrefix(line, "  "))
	}
	return b.String()
}

// standIn is the name of a site that is none.
const standIn = "certfarm-stand-in"

// WithSite gives the text of a farm.yaml that has no sites one, so that it can be
// read: a farm begins without any. IsStandIn knows it again.
func WithSite(text, node string) string {
	has, empty, err := sitesOf(text)
	if err != nil || has && !empty {
		return text
	}
	issuer := ""
	var all struct{ Issuers map[string]any }
	if yaml.Unmarshal([]byte(text), &all) == nil && len(all.Issuers) > 1 {
		for name := range all.Issuers {
			issuer = "    issuer: " + scalar(name) + "\n"
		}
	}
	with, _ := Insert(text, fmt.Sprintf(`sites:
  %s:
%s    names: [stand-in.example.com]
    targets: [{kind: files, on: %s, options: {pem: /certfarm/stand-in.pem}}]
`, standIn, issuer, scalar(node)))
	return with
}

// IsStandIn reports the site that WithSite makes.
func IsStandIn(site string) bool { return site == standIn }
