package config

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/certfarm/certfarm/internal/farm"
)

// between asks for the part in which two texts differ, and checks that what it says is
// what Parse says of both: sure means right.
func between(t *testing.T, old, text []byte) (sure bool) {
	t.Helper()
	v := vocabulary(false)
	before, err := Parse(old, "farm.yaml", v)
	if err != nil || before.Tally == nil {
		return false
	}
	p, sure := Between(old, text, "farm.yaml", *before.Tally, v)
	if !sure {
		return false
	}
	after, err := Parse(text, "farm.yaml", v)
	if err != nil {
		t.Fatalf("a part was read of a text with mistakes: %v\nfrom:\n%s\nto:\n%s", err, old, text)
	}
	was, is := before.Farm, after.Farm
	was.Sites = without(before.Farm.Sites, p.Was.Farm.Sites)
	is.Sites = slices.Concat(without(before.Farm.Sites, p.Was.Farm.Sites), p.Is.Farm.Sites)
	slices.SortFunc(is.Sites, func(a, b farm.Site) int { return strings.Compare(a.Name, b.Name) })
	whole := p.Was.Farm
	whole.Sites = was.Sites
	for what, d := range map[string]string{
		"frame": cmp.Diff(was, whole), "sites": cmp.Diff(after.Farm, is), "was": cmp.Diff(only(before.Farm.Sites, p.Was.Farm.Sites), p.Was.Farm.Sites),
	} {
		if d != "" {
			t.Fatalf("%s (-want +got):\n%s\nfrom:\n%s\nto:\n%s", what, d, old, text)
		}
	}
	for _, s := range was.Sites {
		for _, target := range s.Targets {
			for _, other := range slices.Concat(p.Was.Farm.Sites, p.Is.Farm.Sites) {
				if slices.ContainsFunc(other.Targets, func(o farm.Target) bool { return o.Identity == target.Identity }) {
					t.Fatalf("%s is in the way of %s, of which both texts say the same", other.Name, target.Name)
				}
			}
		}
	}
	if after.Tally == nil || after.Tally.Values != before.Tally.Values-p.Was.Tally.Values+p.Is.Tally.Values {
		t.Fatalf("tally %+v", after.Tally)
	}
	return true
}

// without are the sites that have none of the names.
func without(all, but []farm.Site) []farm.Site {
	return slices.DeleteFunc(slices.Clone(all), func(s farm.Site) bool { return hasSite(but, s.Name) })
}

func only(all, of []farm.Site) []farm.Site {
	return slices.DeleteFunc(slices.Clone(all), func(s farm.Site) bool { return !hasSite(of, s.Name) })
}

func hasSite(all []farm.Site, name string) bool {
	return slices.ContainsFunc(all, func(s farm.Site) bool { return s.Name == name })
}

// partFrame is what stands around the sites in these tests.
const partFrame = `# the farm
farm: shop
issuers: {le: {acme: "https://acme.example.com/directory"}}
nodes:
  a: {address: 10.0.0.1, labels: {pool: x}, ssh: &line {user: d, key: {secret: k}, host_key: "` + testKey + `"}}
  b: {address: 10.0.0.2, labels: {pool: y}, ssh: *line}
policy: {waves: [{name: first, match: {pool: x}}]}
sites:   # by name
  # the first
`

// partTail is what comes behind them.
const partTail = `notifications:
  receivers: {slack: {secrets: {url: {secret: u}}}}
  routes: [{to: slack, sites: [s0], tags: [prod]}]
`

// partSite writes a site in one of several ways.
func partSite(r *rand.Rand, name string) string {
	pool, path := []string{"a", "b", "[a, b]", "{pool: x}"}[r.IntN(4)], "/tls/"+name+".pem"
	return []string{
		"  %s: {names: [%[1]s.example.com], tags: [prod], targets: [{kind: files, on: %s, options: {pem: %s}}]}\n",
		"  %s:\n    names: [%[1]s.example.com]\n    tags:\n    - prod\n\n    targets:\n    - {kind: nginx, on: %s, options: {pem: %s}}\n# a comment: at the edge\n",
		"  %s:  # said twice\n    names:\n      - %[1]s.example.com\n    targets:\n      - kind: nginx\n        on: %s\n        options:\n          pem: %s\n          start:\n            - |\n              sites:\n              evil: {names: []}\n            - \"over\n              lines: 'with\n              evil: quotes\"\n\n",
		"  %s: {names: [%[1]s.example.com], strategy: per-node, tags: [test], targets: [{kind: nginx, on: %s,\n    options: {pem: %s}}]}\n  # evil: {}\n",
		"  %s:\n    names: [%[1]s.example.com]\n    policy: {soak: 1m}\n    targets: [{kind: nginx, on: %s, options: {pem: %s, start: ['it''s: {', \"}\"]}}]\n",
	}[r.IntN(5)][:] + "\x00" + pool + "\x00" + path
}

// partText is a farm.yaml of sites.
func partText(r *rand.Rand) []string {
	var all []string
	for i := range 2 + r.IntN(8) {
		all = append(all, filled(partSite(r, fmt.Sprintf("s%d", i)), fmt.Sprintf("s%d", i)))
	}
	return all
}

func filled(form, name string) string {
	parts := strings.Split(form, "\x00")
	return fmt.Sprintf(parts[0], name, parts[1], parts[2])
}

// edits are what people do to a text, and what goes wrong with it.
func edit(r *rand.Rand, sites []string, head, tail string) (after []string, newHead, newTail string) {
	after = slices.Clone(sites)
	i := r.IntN(len(after))
	name, _, _ := strings.Cut(strings.TrimSpace(after[i]), ":")
	switch r.IntN(16) {
	case 0, 1, 2:
		after[i] = filled(partSite(r, name), name)
	case 3, 4:
		after = slices.Insert(after, i, filled(partSite(r, "n1"), "n1"))
	case 5:
		if len(after) > 1 {
			after = slices.Delete(after, i, i+1)
		}
	case 6:
		after[i] = strings.Replace(after[i], name, "renamed", 1)
	case 7:
		j := r.IntN(len(after))
		after[i], after[j] = after[j], after[i]
	case 8:
		after[i] += "  # a comment\n\n# and another\n"
	case 9: // another's place
		after[i] = strings.ReplaceAll(after[i], "/tls/"+name, "/tls/s"+fmt.Sprint(r.IntN(len(after))))
	case 10:
		after[i] = strings.ReplaceAll(after[i], "tags: [prod]", "tags: [other]")
	case 11:
		head = strings.Replace(head, "10.0.0.2", "10.0.0.3", 1)
	case 12: // a sign that may open or close something
		at := r.IntN(len(after[i]) + 1)
		signs := []string{"\"", "'", "{", "}", "[", "]", "|", ">", "#", ":", "&x ", "*line ", "*x ", "\n", "\t", "- ", "? ", "---\n", "...\n", "!!str ", "<<: *line\n", "  ", " #"}
		after[i] = after[i][:at] + signs[r.IntN(len(signs))] + after[i][at:]
	case 13: // a line is lost
		lines := strings.SplitAfter(after[i], "\n")
		j := r.IntN(len(lines))
		after[i] = strings.Join(slices.Delete(lines, j, j+1), "")
	case 14: // a line comes twice, elsewhere
		lines := strings.SplitAfter(after[r.IntN(len(after))], "\n")
		after[i] += lines[r.IntN(len(lines))]
	case 15:
		tail = strings.Replace(tail, "[s0]", "[s1]", r.IntN(2))
		after[i] = strings.TrimSuffix(after[i], "\n")
	}
	return after, head, tail
}

// Whatever two texts are like: where a part is sure of itself, it is right. And it is
// sure of what people do every day.
func TestPartsAreTheWhole(t *testing.T) {
	const cases = 120
	sure, read := 0, 0
	for seed := range uint64(cases) {
		r := rand.New(rand.NewPCG(seed, 5))
		sites := partText(r)
		head, tail := partFrame, partTail
		if r.IntN(2) == 0 {
			tail = ""
		}
		old := head + strings.Join(sites, "") + tail
		for range 1 + r.IntN(3) {
			sites, head, tail = edit(r, sites, head, tail)
		}
		text := head + strings.Join(sites, "") + tail
		if between(t, []byte(old), []byte(text)) {
			sure++
		}
		if _, err := Parse([]byte(text), "farm.yaml", vocabulary(false)); err == nil {
			read++
		}
	}
	if sure*2 < read {
		t.Errorf("%d of %d good texts were read in part", sure, read)
	}
	t.Logf("%d of %d good texts of %d were read in part", sure, read, cases)
}

// plainSite is a site of one target.
func plainSite(name, more string) string {
	return "  " + name + ": {names: [" + name + ".example.com], targets: [{kind: files, on: a, options: {pem: /tls/" + name + ".pem" + more + "}}]}\n"
}

// A text is read in parts only where the parser finds its sites where the lines look
// like them, with nothing open between them.
func TestOnlyPlainTextsHaveATally(t *testing.T) {
	a, b := plainSite("a", ""), plainSite("b", "")
	quoted := `, reload: ["over` + "\n" + `%sx: {y: z}"]`
	for name, test := range map[string]struct {
		sites string
		want  bool
	}{
		"plain":                           {a + b, true},
		"comments":                        {"\n# x: {}\n" + a + "# here\n  # y:\n\n" + b + "#\n", true},
		"text that looks like a site":     {plainSite("a", `, reload: ["`+"\n   x: {}\n\n# z"+`"]`) + b, true},
		"text at the place of a site":     {plainSite("a", fmt.Sprintf(quoted, "  ")) + b, false},
		"text at the edge":                {a + plainSite("b", fmt.Sprintf(quoted, "")), false},
		"in brackets":                     {"  {\n   " + strings.TrimSpace(a) + "}\n", false},
		"a name in quotes":                {a + `  "b"` + strings.TrimPrefix(b, "  b"), false},
		"text in place of a name":         {plainSite("a", fmt.Sprintf(quoted, "  ")) + `  "b"` + strings.TrimPrefix(b, "  b"), false},
		"a name in quotes alone":          {`  "b"` + strings.TrimPrefix(b, "  b"), false},
		"a name with a question":          {a + "  ? b\n  : " + strings.TrimPrefix(b, "  b: "), false},
		"an anchor that nobody uses":      {a + strings.Replace(b, "[b.example.com]", "&n [b.example.com]", 1), false},
		"what the frame marked, repeated": {strings.Replace(a, "{names", "{policy: {<<: *careful, drift: report}, names", 1) + b, true},
		"merged":                          {a + "  <<: {c: {names: [c.example.com], targets: [{kind: files, on: a, options: {pem: /tls/c.pem}}]}}\n", false},
	} {
		const head = "farm: shop\nissuers: {le: {acme: https://acme.example.com/directory}}\npolicy: &careful {soak: 1m}\nnodes: {a: {local: true}}\nsites:\n"
		p, err := Parse([]byte(head+test.sites), "farm.yaml", vocabulary(false))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got := p.Tally != nil; got != test.want {
			t.Errorf("%s: has a tally: %t", name, got)
		}
	}
}

// What a part must not be sure of, and what it should be.
func TestWhatAPartIsSureOf(t *testing.T) {
	site := func(name, more string) string { return strings.Replace(plainSite(name, ""), "}\n", more+"}\n", 1) }
	a, b, c := site("s0", ", tags: [prod]"), site("b", ""), site("c", "")
	open, _, _ := strings.Cut(plainSite("d", `, reload: ["over`+"\n"), "}]}")
	for name, test := range map[string]struct {
		old, text string
		want      bool
	}{
		"nothing":                    {a + b + c, a + b + c, true},
		"a comment":                  {a + b + c, a + b + "# c:\n" + c, true},
		"another order":              {a + b + c, c + b + a, true},
		"one more, one less":         {a + b, c + a, true},
		"other ends of lines":        {a + b, strings.ReplaceAll(a+site("b", ", keys: [rsa2048]"), "\n", "\r\n"), true},
		"all":                        {a + b, site("s0", ", tags: [prod], keys: [rsa2048]") + c, true},
		"it goes to another's place": {a + b + c, a + strings.Replace(b, "/tls/b.pem", "/tls/c.pem", 1) + c, false},
		"two change places":          {a + b + c, a + strings.Replace(b, "/tls/b.pem", "/tls/c.pem", 1) + strings.Replace(c, "/tls/c.pem", "/tls/b.pem", 1), true},
		"one name twice":             {a + b + c, a + b + c + b, false},
		"the last with a tag":        {a + b, site("s0", "") + b, false},
		"the tag, elsewhere":         {a + b, site("s0", "") + site("b", ", tags: [prod]"), true},
		"the site of a route":        {a + b, b + site("d", ", tags: [prod]"), false},
		"a name in quotes":           {a + b, a + `  "b"` + strings.TrimPrefix(b, "  b"), false},
		"a quote that is not closed": {a + b + c, a + open + b + c, false},
		"what another repeats":       {a + strings.Replace(b, "{names", "{policy: *mild, names", 1), strings.Replace(a, "{names", "{policy: &mild {soak: 5m}, names", 1) + strings.Replace(b, "{names", "{policy: *mild, names", 1), false},
		"no site":                    {a + b, "", false},
	} {
		head := strings.Replace(partFrame, "policy: {", "policy: &mild {", 1)
		if got := between(t, []byte(head+test.old+partTail), []byte(head+test.text+partTail)); got != test.want {
			t.Errorf("%s: sure: %t", name, got)
		}
	}
}

// FuzzBetween: whatever becomes of a text, a part that is sure of itself is right.
func FuzzBetween(f *testing.F) {
	var texts [][]byte
	for _, name := range inputs(f, "valid") {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		texts = append(texts, text)
	}
	for seed := range uint64(20) {
		texts = append(texts, []byte(partFrame+strings.Join(partText(rand.New(rand.NewPCG(seed, 7))), "")+partTail))
	}
	for i, text := range texts {
		f.Add(i, len(text)*2/3, 3, "x: [")
	}
	f.Fuzz(func(t *testing.T, i, at, length int, with string) {
		if i < 0 || i >= len(texts) || at < 0 || length < 0 || at > len(texts[i]) || length > len(texts[i])-at {
			return
		}
		between(t, texts[i], slices.Concat(texts[i][:at], []byte(with), texts[i][at+length:]))
	})
}
