// Package adopt reads the configuration of web servers that run already, and says
// which certificate files they use, for which names, and on which ports; and writes
// the lines of farm.yaml by which Certfarm takes them over.
//
// Its invariant: text in, values out. It reads no file: a parser that meets an
// include names what it needs (Found.Wants, Found.Reads), and is asked again with it. What cannot
// be told from the text, such as a path with a variable in it, is a note and never
// guessed.
//
//	ps ─ Running ─→ Server ─→ Tree ─ Nginx, Apache … ─→ Found{Places, Notes, Wants}
//	                            └────── read Wants ←───────────┘
//	Places + certificates + handshakes ─ Sort ─→ Report ─ YAML ─→ lines of farm.yaml
package adopt

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// A Tree is what is known of a server's configuration.
type Tree struct {
	Main string // path of the first file
	// Root is where relative paths begin; empty: what the server takes by default.
	Root    string
	Texts   map[string]string   // files by path
	Globs   map[string][]string // the files that each pattern stands for, in order; a folder's are all in it
	Failed  map[string]string   // why files could not be read, by path
	Whole   bool                // Texts are all that there are: patterns stand for files among them
	Defines map[string]string   // Apache: what is defined before the first file
	Modules []string            // Apache: loaded modules, as ssl_module; nil: not known
}

// Found is what a configuration says.
type Found struct {
	Places []Place
	Notes  []string // what could not be told, for people
	Wants  []string // patterns that Globs lacks: with them there is more to be found
	Reads  []string // files that Texts lacks
	Socket string   // HAProxy: its admin socket, where it has one
}

// A Place is one use of certificate files: a server block, a virtual host, a bind.
type Place struct {
	Server  string   `json:"server" doc:"nginx, apache, haproxy, lighttpd or tomcat"`
	At      string   `json:"at" doc:"file and line of the configuration"`
	Names   []string `json:"names,omitempty" doc:"names that it answers for, as the configuration has them; none: whatever the certificate has"`
	Listens []Listen `json:"listens,omitempty"`
	Pairs   []Files  `json:"pairs"`
}

// A Files is one leaf's files; they may be one and the same.
type Files struct {
	Chain string `json:"chain"`
	Key   string `json:"key"`
	Store string `json:"store,omitempty" doc:"the file is a key store of this sort: pkcs12 or jks"`
}

// A Listen is where a server answers. An empty host is every address.
type Listen struct {
	Host string `json:"host,omitempty"`
	Port int    `json:"port"`
}

// Parsers are the parsers by the name of the server, which is that of the kind of
// target, too.
func Parsers() map[string]func(Tree) Found {
	return map[string]func(Tree) Found{"nginx": Nginx, "apache": Apache, "haproxy": HAProxy, "lighttpd": Lighttpd, "tomcat": Tomcat}
}

// The bounds of what is followed: a configuration that exceeds them is told and not
// a reason to go on for ever.
const (
	maxDepth = 40    // of includes and blocks
	maxFiles = 20000 // read through includes, counted each time
)

// A reader collects what a parser finds.
type reader struct {
	Tree
	Found
	files int
	said  map[string]bool
}

func newReader(t Tree) *reader { return &reader{Tree: t, said: map[string]bool{}} }

// note says something once.
func (r *reader) note(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !r.said[text] {
		r.said[text] = true
		r.Notes = append(r.Notes, text)
	}
}

// glob is the files that a pattern stands for; what is not known yet is wanted.
func (r *reader) glob(pattern string) []string {
	if files, known := r.Globs[pattern]; known {
		return files
	}
	if !r.Whole {
		if !slices.Contains(r.Wants, pattern) {
			r.Wants = append(r.Wants, pattern)
		}
		return nil
	}
	var files []string
	for _, name := range slices.Sorted(maps.Keys(r.Texts)) {
		if ok, err := path.Match(pattern, name); name == pattern || err == nil && ok {
			files = append(files, name)
		}
	}
	return files
}

// enter says whether one more file may be read, at a depth.
func (r *reader) enter(name string, depth int) bool {
	if r.files++; depth > maxDepth || r.files > maxFiles {
		r.note("%s is included too deep, or too often: it was not followed", name)
		return false
	}
	if _, known := r.Texts[name]; known {
		return true
	}
	if why := r.Failed[name]; why != "" {
		r.note("%s could not be read: %s", name, why)
	} else if !slices.Contains(r.Reads, name) {
		r.Reads = append(r.Reads, name)
	}
	return false
}

// add keeps a place that has files.
func (r *reader) add(p Place) {
	if len(p.Pairs) == 0 {
		return
	}
	p.Listens, p.Names = slices.Clone(p.Listens), slices.Clone(p.Names)
	slices.SortFunc(p.Listens, func(a, b Listen) int { return cmp.Or(a.Port-b.Port, strings.Compare(a.Host, b.Host)) })
	p.Listens = slices.Compact(p.Listens)
	slices.Sort(p.Names)
	p.Names = slices.Compact(p.Names)
	r.Places = append(r.Places, p)
}

// absolute is a path as the server takes it: from a root if it is relative. Windows'
// backslashes become slashes.
func absolute(root, name string) string {
	if drive(name) {
		return path.Clean(strings.ReplaceAll(name, `\`, "/"))
	}
	if strings.HasPrefix(name, "/") {
		return path.Clean(name)
	}
	if drive(root) {
		name = strings.ReplaceAll(name, `\`, "/")
	}
	return path.Join(root, name)
}

// drive reports a path that begins with one, as C:/ does.
func drive(name string) bool {
	return len(name) > 2 && name[1] == ':' && (name[2] == '/' || name[2] == '\\') && (name[0]|0x20) >= 'a' && (name[0]|0x20) <= 'z'
}

// listen reads HOST:PORT, [HOST]:PORT, *:PORT or PORT; ok is false for anything else.
func listen(text string) (l Listen, ok bool) {
	host, port := "", text
	if i := strings.LastIndexByte(text, ':'); i >= 0 {
		host, port = text[:i], text[i+1:]
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return l, false
	}
	host = strings.Trim(host, "[]")
	switch host {
	case "*", "0.0.0.0", "::", "_default_", "ipv4@", "ipv6@":
		host = ""
	}
	return Listen{host, int(n)}, true
}

// at is a place in a file.
func at(file string, line int) string { return file + ":" + strconv.Itoa(line) }
