package adopt

import (
	"cmp"
	"path"
	"slices"
	"strings"
)

// A directive is one statement of nginx, with its block if it has one.
type directive struct {
	words []string
	file  string
	line  int
	block []directive
}

// arg is a word behind the name; empty if there is none.
func (d directive) arg(i int) string {
	if i+1 < len(d.words) {
		return d.words[i+1]
	}
	return ""
}

// Dump takes what `nginx -T` wrote apart: its files by path, and the first one.
func Dump(text string) (files map[string]string, first string) {
	files = map[string]string{}
	const mark = "# configuration file "
	var name string
	var body strings.Builder
	end := func() {
		if _, twice := files[name]; name != "" && !twice {
			files[name] = body.String()
		}
		body.Reset()
	}
	for line := range strings.Lines(strings.ReplaceAll(text, "\r\n", "\n")) {
		rest, is := strings.CutPrefix(strings.TrimRight(line, "\n"), mark)
		if next, named := strings.CutSuffix(rest, ":"); is && named {
			end()
			name = next
			if first == "" {
				first = name
			}
			continue
		}
		if name != "" {
			body.WriteString(line)
		}
	}
	end()
	return files, first
}

// Nginx reads nginx' configuration: server blocks of http and stream that answer TLS.
func Nginx(t Tree) Found {
	r := newReader(t)
	if r.Root == "" {
		r.Root = path.Dir(t.Main)
	}
	n := &nginxReader{reader: r, tls: map[Listen]bool{}}
	if !n.enter(t.Main, 0) {
		return r.Found
	}
	top := n.expand(nginxParse(t.Main, t.Texts[t.Main], r), 0)
	for _, d := range top {
		switch d.words[0] {
		case "http", "stream":
			n.servers(d.block)
		case "mail":
			n.mail(d.block)
		}
	}
	for _, s := range n.found {
		n.place(s)
	}
	return r.Found
}

type nginxReader struct {
	*reader
	found []nginxServer
	tls   map[Listen]bool // addresses where some server says ssl: it is so for all that listen there
}

type nginxServer struct {
	d           directive
	certs, keys []string
	listens     []Listen
	names       []string
	on          bool // ssl on, as before 1.25
}

// expand puts included files in place.
func (n *nginxReader) expand(all []directive, depth int) []directive {
	var out []directive
	for _, d := range all {
		if len(d.words) == 0 {
			continue
		}
		if d.words[0] != "include" || d.arg(0) == "" {
			d.block = n.expand(d.block, depth+1)
			out = append(out, d)
			continue
		}
		for _, file := range n.glob(absolute(n.Root, d.arg(0))) {
			if n.enter(file, depth+1) {
				out = append(out, n.expand(nginxParse(file, n.Texts[file], n.reader), depth+1)...)
			}
		}
	}
	return out
}

// files are the paths of a directive in a block; nil: those of the block around it.
func nginxFiles(block []directive, name string, around []string) []string {
	var own []string
	for _, d := range block {
		if d.words[0] == name {
			own = append(own, d.arg(0))
		}
	}
	if own == nil {
		return around
	}
	return own
}

// servers reads the server blocks of http or stream.
func (n *nginxReader) servers(block []directive) {
	certs, keys := nginxFiles(block, "ssl_certificate", nil), nginxFiles(block, "ssl_certificate_key", nil)
	for _, d := range block {
		if d.words[0] != "server" || d.block == nil {
			continue
		}
		s := nginxServer{d: d, certs: nginxFiles(d.block, "ssl_certificate", certs), keys: nginxFiles(d.block, "ssl_certificate_key", keys)}
		for _, inner := range d.block {
			n.server(&s, inner)
		}
		n.found = append(n.found, s)
	}
}

func (n *nginxReader) server(s *nginxServer, d directive) {
	switch d.words[0] {
	case "listen":
		if strings.HasPrefix(d.arg(0), "unix:") {
			return
		}
		l, ok := listen(d.arg(0))
		if !ok {
			l, ok = Listen{strings.Trim(d.arg(0), "[]"), 80}, !strings.Contains(d.arg(0), "$")
			if l.Host == "*" {
				l.Host = ""
			}
		}
		if !ok {
			n.note("%s: listen %s is not understood", at(d.file, d.line), d.arg(0))
			return
		}
		s.listens = append(s.listens, l)
		if slices.Contains(d.words, "ssl") || slices.Contains(d.words, "quic") {
			n.tls[l] = true
		}
	case "server_name":
		for _, name := range d.words[1:] {
			s.names = append(s.names, n.names(d, name)...)
		}
	case "ssl":
		s.on = d.arg(0) == "on"
	}
}

// names are those that one word of server_name means.
func (n *nginxReader) names(d directive, word string) []string {
	word = strings.ToLower(word)
	switch {
	case word == "" || word == "_":
		return nil
	case word[0] == '~' || strings.HasSuffix(word, ".*") || strings.Contains(word, "$"):
		n.note("%s: server_name %s is a pattern: the names of the certificate count", at(d.file, d.line), word)
		return nil
	case word[0] == '.':
		return []string{word[1:], "*" + word}
	}
	return []string{word}
}

// place is what a server block that answers TLS uses.
func (n *nginxReader) place(s nginxServer) {
	where := at(s.d.file, s.d.line)
	p := Place{Server: "nginx", At: where, Names: s.names}
	for _, l := range s.listens {
		if s.on || n.tls[l] {
			p.Listens = append(p.Listens, l)
		}
	}
	if len(p.Listens) == 0 {
		return
	}
	if len(s.certs) != len(s.keys) {
		n.note("%s: %d ssl_certificate and %d ssl_certificate_key do not make pairs", where, len(s.certs), len(s.keys))
		return
	}
	for i, cert := range s.certs {
		if odd := cmp.Or(nginxOdd(cert), nginxOdd(s.keys[i])); odd != "" {
			n.note("%s: ssl_certificate %s is no file that can be told from the configuration (%s)", where, cert, odd)
			return
		}
		p.Pairs = append(p.Pairs, Files{Chain: absolute(n.Root, cert), Key: absolute(n.Root, s.keys[i])})
	}
	n.add(p)
}

// nginxOdd says why a value is no path of a file.
func nginxOdd(value string) string {
	for _, scheme := range []string{"data:", "engine:", "store:"} {
		if strings.HasPrefix(value, scheme) {
			return scheme
		}
	}
	if strings.Contains(value, "$") {
		return "a variable"
	}
	if value == "" {
		return "empty"
	}
	return ""
}

// mail only says that there are certificates: where they are seen needs STARTTLS.
func (n *nginxReader) mail(block []directive) {
	for _, d := range block {
		certs := nginxFiles(d.block, "ssl_certificate", nil)
		if d.words[0] == "ssl_certificate" {
			certs = []string{d.arg(0)}
		}
		for _, c := range certs {
			n.note("%s: nginx as a mail proxy uses %s: write its target and endpoints (starttls) yourself", at(d.file, d.line), c)
		}
	}
}
