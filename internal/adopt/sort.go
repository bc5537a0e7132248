package adopt

import (
	"cmp"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// Facts are what a report is made from.
type Facts struct {
	Node    farm.Node
	Servers []Server
	Spots   []Spot // without verdicts and warnings
	Notes   []string
	Farm    farm.Farm // as it is now: its issuers, ways to write DNS, and places that are taken
	Now     time.Time
}

// A site is one of the sites that are proposed.
type site struct {
	name    string
	names   []string
	keys    []farm.KeyType
	targets []*target
	doubt   string // why it is commented out
}

type target struct {
	kind, name string
	server     string
	options    []field
	secrets    []field
	ends       []farm.Endpoint
	comments   []string
	paths      []string
}

// A field is a line of a mapping; the value is text, a list of words or pairs.
type field struct {
	name  string
	value any
}

// A sorter puts places into targets and targets into sites.
type sorter struct {
	Facts
	taken map[string]string // paths, and whose they are
	sites []*site
}

// Sort makes the report: places that use one set of files are one target, targets
// whose certificates are for the same names are one site.
func Sort(f Facts) Report {
	r := Report{Node: f.Node.Name, Servers: f.Servers, Notes: f.Notes}
	files := map[string]string{}
	for _, p := range f.Spots {
		for _, l := range p.Leaves {
			if files[l.Fingerprint] == "" {
				files[l.Fingerprint] = l.Chain
			}
		}
	}
	s := sorter{Facts: f, taken: takenBy(f.Farm, f.Node.Name)}
	for _, p := range f.Spots {
		p.see(files)
		p.judge(f.Now)
		r.Places = append(r.Places, p)
		if note := s.sort(p); note != "" {
			r.Notes = append(r.Notes, note)
		}
	}
	s.name()
	r.YAML = written(f, s.sites)
	r.Next = next(f, r, s.sites)
	return r
}

// takenBy are the paths that targets on a node have already.
func takenBy(whole farm.Farm, node string) map[string]string {
	taken := map[string]string{}
	for _, s := range whole.Sites {
		for _, t := range s.Targets {
			if t.Node == node {
				for _, p := range quoted(t.Options) {
					taken[p] = "target " + t.Name
				}
			}
		}
	}
	return taken
}

// quoted are the paths in options, which are JSON.
func quoted(options []byte) (all []string) {
	for i, part := range strings.Split(string(options), `"`) {
		if i%2 == 1 && (strings.HasPrefix(part, "/") || drive(part)) {
			all = append(all, part)
		}
	}
	return all
}

// sort puts a place into a target of a site; the note says why it was not.
func (s *sorter) sort(p Spot) (note string) {
	var paths []string
	for _, l := range p.Leaves {
		paths = append(paths, l.Chain, l.Key)
	}
	slices.Sort(paths)
	paths = slices.Compact(paths)
	for _, one := range s.sites {
		for _, t := range one.targets {
			if t.server == p.Server && slices.Equal(t.paths, paths) {
				t.seen(p)
				return ""
			}
		}
	}
	for _, name := range paths {
		if who := s.taken[name]; who != "" {
			return fmt.Sprintf("%s (%s) uses %s, which belongs to %s already: it was left out. Where two servers read one file, one target for it reloads both: give it a reload of your own", p.At, p.Server, name, who)
		}
	}
	names := leafNames(p.Leaves)
	if len(names) == 0 {
		return fmt.Sprintf("%s (%s): no certificate could be read and nothing was seen, so its names are not known: it was left out", p.At, p.Server)
	}
	for _, name := range paths {
		s.taken[name] = "the place at " + p.At
	}
	t := s.targetOf(p, paths)
	t.seen(p)
	to := s.siteFor(names, p)
	to.targets = append(to.targets, t)
	return ""
}

// siteFor is the site for a set of names and key types, new if there is none yet.
func (s *sorter) siteFor(names []string, p Spot) *site {
	names = slices.Clone(names)
	slices.SortStableFunc(names, func(a, b string) int { // a wildcard is nobody's main name
		return cmp.Compare(strings.Count(a, "*"), strings.Count(b, "*"))
	})
	keys := keyTypes(p.Leaves)
	for _, known := range s.sites {
		if sameSet(known.names, names) && slices.Equal(known.keys, keys) {
			return known
		}
	}
	fresh := &site{names: names, keys: keys, doubt: s.doubt(names, p.Leaves)}
	s.sites = append(s.sites, fresh)
	return fresh
}

func sameSet(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}

// keyTypes are those of leaves that a site can ask for.
func keyTypes(leaves []FileLeaf) (keys []farm.KeyType) {
	for _, l := range leaves {
		if slices.Contains(farm.KeyTypes, l.KeyType) && !slices.Contains(keys, l.KeyType) {
			keys = append(keys, l.KeyType)
		}
	}
	return keys
}

// doubt says why nobody should adopt a certificate without a look.
func (f Facts) doubt(names []string, leaves []FileLeaf) string {
	for _, n := range names {
		if _, err := netip.ParseAddr(n); err != nil && !strings.Contains(n, ".") {
			return n + " is no public name: only a CA of your own issues for it"
		}
		if strings.Contains(n, "*") && len(f.Farm.DNS) == 0 {
			return n + " is a wildcard, which is proven by DNS: write an entry under dns first, and name it here"
		}
		if strings.ContainsAny(n, "_ /") {
			return n + " cannot be a name in farm.yaml"
		}
	}
	if slices.ContainsFunc(leaves, func(l FileLeaf) bool { return l.Problem == "" && l.SelfSigned }) {
		return "the certificate is signed by itself: is it in use at all?"
	}
	if keys := keyTypes(leaves); len(leaves) > 1 && len(keys) < len(leaves) {
		return "its files do not hold one certificate for each of several key types"
	}
	return ""
}

// seen adds the endpoints of a place to its target: those that serve its certificate,
// or all where none does.
func (t *target) seen(p Spot) {
	good := slices.ContainsFunc(p.Sights, func(s Glance) bool { return s.Verdict == Served })
	for _, s := range p.Sights {
		if (s.Verdict == Served || !good) && !slices.Contains(t.ends, s.Endpoint) {
			t.ends = append(t.ends, s.Endpoint)
		}
	}
	t.comments = append(t.comments, p.At)
	t.comments = append(t.comments, p.Warnings...)
}

// name gives every site a name that no other has, and each target one in its site.
func (s *sorter) name() {
	used := map[string]bool{}
	for _, site := range s.Farm.Sites {
		used[site.Name] = true
	}
	for _, to := range s.sites {
		base := strings.Trim(strings.NewReplacer("*.", "", ".", "-", ":", "-", "_", "-").Replace(to.names[0]), "-")
		base = base[:min(len(base), 80)]
		for i := 1; to.name == "" || used[to.name]; i++ {
			if to.name = base; i > 1 {
				to.name = fmt.Sprintf("%s-%d", base, i)
			}
		}
		used[to.name] = true
		kinds := map[string]int{}
		for _, t := range to.targets {
			if kinds[t.kind]++; kinds[t.kind] > 1 {
				t.name = fmt.Sprintf("%s-%d", t.kind, kinds[t.kind])
			}
		}
	}
}

// targetOf is the target for a place, without its endpoints.
func (f Facts) targetOf(p Spot, paths []string) *target {
	t := &target{kind: p.Server, server: p.Server, paths: paths}
	switch {
	case p.Leaves[0].Store != "":
		f.keystore(t, p)
	case p.Server == "tomcat":
		t.kind = "files"
		t.options = pairFields(p.Leaves)
		t.comments = append(t.comments, "Tomcat reads PEM files anew by a command: write its words as reload")
	default:
		t.options = pairFields(p.Leaves)
	}
	if f.Node.Local {
		t.options = append(t.options, field{"store", "/var/lib/certfarm-targets"})
	}
	for _, name := range []string{"test", "reload", "start"} {
		if argv := p.Ways.Commands[name]; argv != nil && t.kind == p.Server {
			t.options = append(t.options, field{name, argv})
		}
	}
	if text := p.Ways.Unsure; text != "" {
		t.comments = append(t.comments, text)
	}
	t.socket(p.Ways.Socket)
	return t
}

// socket says how HAProxy is told without a reload.
func (t *target) socket(path string) {
	if t.server == "haproxy" {
		if path != "" && path != "/run/haproxy/admin.sock" {
			t.options = append(t.options, field{"socket", path})
		}
		if path == "" {
			t.comments = append(t.comments, "no socket with level admin stands in the configuration: each change is a reload; `stats socket /run/haproxy/admin.sock mode 660 level admin` makes that unnecessary")
		}
	}
}

// keystore is a target whose file holds chain and key under a password.
func (f Facts) keystore(t *target, p Spot) {
	l := p.Leaves[0]
	t.options = []field{{"path", l.Chain}}
	t.secrets = []field{{"password", "keystore-" + strings.TrimSuffix(path.Base(l.Chain), path.Ext(l.Chain))}}
	if l.Store == "jks" {
		t.kind = "jks"
		t.comments = append(t.comments, "the key store is of type JKS, or of none that is said: with certificateKeystoreType=\"PKCS12\" kind tomcat can do it without a restart")
		return
	}
	t.options = append(t.options, field{"manager", ""})
	t.comments = append(t.comments, "with Tomcat's manager (option and secret manager) it is read anew without a restart; else write reload")
}

// pairFields are the paths of leaves, as options.
func pairFields(leaves []FileLeaf) []field {
	one := func(l FileLeaf) []field {
		if l.Chain == l.Key {
			return []field{{"pem", l.Chain}}
		}
		return []field{{"chain", l.Chain}, {"key", l.Key}}
	}
	fields := one(leaves[0])
	var more [][]field
	for _, l := range leaves[1:] {
		more = append(more, append([]field{{"keys", string(l.KeyType)}}, one(l)...))
	}
	if more != nil {
		fields = append(fields, field{"more", more})
	}
	return fields
}

// next is what a person does with the report.
func next(f Facts, r Report, all []*site) (steps []string) {
	live := slices.DeleteFunc(slices.Clone(all), func(s *site) bool { return s.doubt != "" })
	if len(live) == 0 {
		return nil
	}
	one := live[0]
	steps = append(steps,
		"paste the lines under sites: into farm.yaml, read the comments, and `certfarm plan` it",
		"after `certfarm apply`, `certfarm import "+one.name+" --chain FILE --key FILE` makes the certificate that is live ours, so that none is ordered before it is due",
		"or let the first rollout order a new one: it leaves a valid certificate that is not ours alone until `certfarm rollout approve "+one.name+"`",
		"then the files become links that hold the same bytes, and are switched from there: the SSH user must be able to write their folders and the store (docs/targets.md)")
	var managers []string
	for _, p := range r.Places {
		for _, l := range p.Leaves {
			if l.Manager != "" && !slices.Contains(managers, l.Manager) {
				managers = append(managers, l.Manager)
			}
		}
	}
	if managers != nil {
		steps = append(steps, "turn off "+strings.Join(managers, ", ")+" for these certificates on "+f.Node.Name+" once the rollout is done: it would put its own files back")
	}
	return steps
}
