package adopt

import (
	"cmp"
	"maps"
	"path"
	"slices"
	"strings"
)

// Apache reads Apache's configuration: virtual hosts whose SSLEngine is on. Modules
// that are not known count as loaded.
func Apache(t Tree) Found {
	r := newReader(t)
	a := &apacheReader{reader: r, defines: map[string]string{}}
	maps.Copy(a.defines, t.Defines)
	if a.Root == "" {
		a.Root = path.Dir(path.Dir(t.Main))
	}
	a.main.at = at(t.Main, 1)
	a.scope = &a.main
	a.file(t.Main, 0)
	for _, v := range a.hosts {
		a.place(v)
	}
	if len(a.hosts) == 0 || a.main.own {
		a.main.ports = a.listens
		a.place(&a.main)
	}
	return r.Found
}

// apacheHost is a virtual host, or the main server.
type apacheHost struct {
	at, engine         string
	names, certs, keys []string
	ports              []Listen
	every              bool // *, without a port
	own                bool // the main server's own SSLEngine
}

type apacheReader struct {
	*reader
	defines map[string]string
	main    apacheHost
	hosts   []*apacheHost
	scope   *apacheHost
	listens []Listen
	managed []string // names of mod_md
}

// file reads one file.
func (a *apacheReader) file(name string, depth int) {
	if !a.enter(name, depth) {
		return
	}
	skip := 0 // open sections inside one whose condition is not met
	apacheLines(a.Texts[name], func(words []string, line int) {
		for w := range words {
			words[w] = a.variables(words[w])
		}
		words[0] = strings.ToLower(words[0])
		end := strings.HasPrefix(words[0], "</")
		begin := strings.HasPrefix(words[0], "<") && !end
		switch {
		case skip > 0 && begin:
			skip++
		case skip > 0 && end:
			skip--
		case skip > 0:
		case begin && !a.holds(words):
			skip = 1
		default:
			a.directive(words, name, line, depth)
		}
	})
}

// apacheLines does f for the words of each statement and the line where it begins; a
// backslash at the end of a line has it go on in the next.
func apacheLines(text string, f func(words []string, line int)) {
	var line string
	begin := 0
	for i, text := range strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n") {
		if line == "" {
			begin = i + 1
		}
		rest, more := strings.CutSuffix(text, `\`)
		if line += rest; more {
			continue
		}
		if words := apacheWords(line); len(words) > 0 {
			f(words, begin)
		}
		line = ""
	}
}

// holds reports whether the condition of a section is met.
func (a *apacheReader) holds(words []string) bool {
	arg := strings.Join(words[1:], " ")
	not := strings.HasPrefix(arg, "!")
	arg = strings.TrimSpace(strings.TrimPrefix(arg, "!"))
	switch words[0] {
	case "<ifdefine":
		_, is := a.defines[arg]
		return is != not
	case "<ifmodule":
		if a.Modules == nil {
			return !not
		}
		if base, file := strings.CutSuffix(arg, ".c"); file {
			arg = strings.TrimPrefix(base, "mod_") + "_module"
		}
		return slices.Contains(a.Modules, arg) != not
	case "<macro":
		a.note("Apache's macros (%s) are not followed: look yourself whether they use certificates", arg)
		return false
	}
	return true // <If>, <IfVersion>, <IfFile> and what is no condition
}

// directive reads one statement.
func (a *apacheReader) directive(words []string, file string, line, depth int) {
	args := words[1:]
	first := ""
	if len(args) > 0 {
		first = args[0]
	}
	switch words[0] {
	case "<virtualhost":
		a.scope = a.virtual(args, at(file, line))
	case "</virtualhost>":
		a.scope = &a.main
	case "include", "includeoptional":
		for _, f := range a.glob(absolute(a.Root, first)) {
			a.file(f, depth+1)
		}
	default:
		if !a.global(words[0], first, args) {
			a.setting(words[0], first, args, at(file, line))
		}
	}
}

// global reads what concerns the whole server, and says whether it was that.
func (a *apacheReader) global(name, first string, args []string) bool {
	switch name {
	case "define":
		if len(args) > 0 {
			a.defines[first] = strings.Join(args[1:], " ")
		}
	case "undefine":
		delete(a.defines, first)
	case "serverroot":
		a.Root = absolute("", first)
	case "listen":
		if l, ok := listen(first); ok {
			a.listens = append(a.listens, l)
		}
	case "mdomain", "<mdomain":
		for _, n := range args {
			a.managed = append(a.managed, strings.ToLower(n))
		}
	default:
		return false
	}
	return true
}

// setting reads what concerns a virtual host.
func (a *apacheReader) setting(name, first string, args []string, where string) {
	s := a.scope
	switch name {
	case "servername":
		_, bare, found := strings.Cut(first, "://")
		if !found {
			bare = first
		}
		host, _, _ := strings.Cut(bare, ":")
		s.names = append(s.names, strings.ToLower(host))
	case "serveralias":
		for _, n := range args {
			s.names = append(s.names, strings.ToLower(n))
		}
	case "sslengine":
		s.engine, s.own = strings.ToLower(first), true
	case "sslcertificatefile":
		s.certs = append(s.certs, first)
	case "sslcertificatekeyfile":
		s.keys = append(s.keys, first)
	case "sslcertificatechainfile":
		a.note("%s: SSLCertificateChainFile %s: take the line out when Certfarm writes the files: the chain is in SSLCertificateFile", where, first)
	}
}

// virtual begins a virtual host.
func (a *apacheReader) virtual(args []string, where string) *apacheHost {
	v := &apacheHost{at: where}
	for _, arg := range args {
		arg = strings.TrimSuffix(arg, ">")
		if l, ok := listen(arg); ok {
			v.ports = append(v.ports, l)
		} else if arg != "" {
			v.every = true
		}
	}
	a.hosts = append(a.hosts, v)
	return v
}

// place is what a host uses, with what it has from the main server.
func (a *apacheReader) place(v *apacheHost) {
	certs, keys := v.certs, v.keys
	engine := cmp.Or(v.engine, a.main.engine)
	if engine != "on" && engine != "optional" && !strings.Contains(engine, ":") {
		return
	}
	if certs == nil && v != &a.main {
		if i := slices.IndexFunc(v.names, func(n string) bool { return slices.Contains(a.managed, n) }); i >= 0 {
			a.note("%s: the certificate of %s is mod_md's own: give the virtual host SSLCertificateFile and take MDomain out to adopt it", v.at, v.names[i])
			return
		}
		certs, keys = a.main.certs, a.main.keys
	}
	p := Place{Server: "apache", At: v.at, Names: slices.Clone(v.names), Listens: slices.Clone(v.ports)}
	if v.every {
		p.Listens = append(p.Listens, a.listens...)
	}
	p.Pairs = a.pairs(v.at, certs, keys)
	a.add(p)
}

// pairs are the files of certificates and their keys, which stand in the same order;
// a certificate without one has it in its own file.
func (a *apacheReader) pairs(where string, certs, keys []string) (all []Files) {
	for i, cert := range certs {
		key := cert
		if i < len(keys) {
			key = keys[i]
		}
		if strings.Contains(cert+key, "${") || strings.Contains(cert+key, "pkcs11:") {
			a.note("%s: SSLCertificateFile %s is no file that can be told from the configuration", where, cert)
			return nil
		}
		all = append(all, Files{Chain: absolute(a.Root, cert), Key: absolute(a.Root, key)})
	}
	return all
}

// variables puts defined values in place of ${name}; what is not defined stays.
func (a *apacheReader) variables(word string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(word, "${")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		name, after, closed := strings.Cut(rest, "}")
		value, known := a.defines[name]
		if !closed || !known {
			b.WriteString("${")
			word = rest
			continue
		}
		b.WriteString(value)
		word = after
	}
}

// apacheWords takes a line apart: words, quoted ones with \" and \\ in them. Lines
// that begin with # are comments; elsewhere # is part of a word.
func apacheWords(line string) (words []string) {
	line = strings.TrimSpace(line)
	if strings.HasPrefix(line, "#") {
		return nil
	}
	for line = strings.TrimLeft(line, " \t"); line != ""; line = strings.TrimLeft(line, " \t") {
		quote := line[0]
		if quote != '"' && quote != '\'' {
			end := strings.IndexAny(line, " \t")
			if end < 0 {
				end = len(line)
			}
			words, line = append(words, line[:end]), line[end:]
			continue
		}
		var word string
		word, line = apacheQuoted(line)
		words = append(words, word)
	}
	if len(words) > 1 && strings.HasPrefix(words[0], "<") {
		last := len(words) - 1
		words[last] = strings.TrimSuffix(words[last], ">")
	}
	return words
}

// apacheQuoted is the quoted word that a line begins with, and what is behind it.
func apacheQuoted(line string) (word, rest string) {
	quote := line[0]
	var b strings.Builder
	i := 1
	for ; i < len(line) && line[i] != quote; i++ {
		if line[i] == '\\' && i+1 < len(line) && (line[i+1] == quote || line[i+1] == '\\') {
			i++
		}
		b.WriteByte(line[i])
	}
	return b.String(), line[min(i+1, len(line)):]
}
