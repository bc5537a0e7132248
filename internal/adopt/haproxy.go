package adopt

import (
	"path"
	"slices"
	"strings"
)

// HAProxy reads HAProxy's configuration: what binds with ssl load by crt and
// crt-list. Main may be a folder, whose .cfg files are all read.
func HAProxy(t Tree) Found {
	r := newReader(t)
	h := &haproxyReader{reader: r}
	mains := []string{t.Main}
	if _, file := t.Texts[t.Main]; !file {
		mains = slices.DeleteFunc(slices.Clone(h.glob(t.Main)), func(f string) bool { return path.Ext(f) != ".cfg" })
	}
	for _, name := range mains {
		if h.enter(name, 0) {
			h.file(name)
		}
	}
	return r.Found
}

type haproxyReader struct {
	*reader
	crtBase, keyBase string
}

func (h *haproxyReader) file(name string) {
	section := ""
	for i, line := range strings.Split(strings.ReplaceAll(h.Texts[name], "\r\n", "\n"), "\n") {
		words, odd := haproxyWords(line)
		if len(words) == 0 {
			continue
		}
		where := at(name, i+1)
		switch words[0] {
		case "global", "defaults", "frontend", "listen", "backend", "peers", "userlist", "resolvers", "cache", "program", "ring", "mailers", "crt-store", "log-forward", "fcgi-app", "http-errors":
			if section = words[0]; section == "crt-store" {
				h.note("%s: crt-store is not followed: write the targets of its files yourself", where)
			}
			continue
		}
		switch {
		case section == "global":
			h.global(words)
		case words[0] == "bind" && (section == "frontend" || section == "listen"):
			h.bind(words, odd, where)
		}
	}
}

func (h *haproxyReader) global(words []string) {
	if len(words) < 2 {
		return
	}
	switch words[0] {
	case "crt-base":
		h.crtBase = words[1]
	case "key-base":
		h.keyBase = words[1]
	case "stats":
		if i := slices.Index(words, "level"); words[1] == "socket" && len(words) > 2 && i > 0 && i+1 < len(words) && words[i+1] == "admin" && h.Socket == "" {
			h.Socket, _, _ = strings.Cut(strings.TrimPrefix(words[2], "unix@"), ",")
		}
	}
}

func (h *haproxyReader) bind(words []string, odd bool, where string) {
	if !slices.Contains(words, "ssl") {
		return
	}
	if odd {
		h.note("%s: the line has variables, whose values are the server's: write the targets of its files yourself", where)
		return
	}
	var listens []Listen
	for _, address := range strings.Split(words[1], ",") {
		for _, family := range []string{"ipv4@", "ipv6@", "quic4@", "quic6@", "tcp@"} {
			address = strings.TrimPrefix(address, family)
		}
		if l, ok := listen(address); ok {
			listens = append(listens, l)
		}
	}
	for i := 2; i+1 < len(words); i++ {
		switch words[i] {
		case "crt", "default-crt":
			h.crt(absolute(h.crtBase, words[i+1]), nil, listens, where)
			i++
		case "crt-list":
			h.list(words[i+1], listens)
			i++
		}
	}
}

// crt is a file, a folder, or the first part of the name of a file for each key type.
func (h *haproxyReader) crt(name string, names []string, listens []Listen, where string) {
	if !path.IsAbs(name) {
		h.note("%s: crt %s is relative to where HAProxy was started", where, name)
		return
	}
	files, known := h.Globs[name]
	if !known {
		h.glob(name)
		return
	}
	p := Place{Server: "haproxy", At: where, Names: names, Listens: listens}
	switch {
	case len(files) == 1 && files[0] == name:
		p.Pairs = []Files{{Chain: name, Key: h.keyOf(name)}}
		h.add(p)
	case len(files) > 0:
		h.folder(p, files)
	default:
		for _, sort := range []string{".ecdsa", ".rsa", ".dsa"} {
			if f := h.glob(name + sort); len(f) > 0 {
				p.Pairs = append(p.Pairs, Files{Chain: name + sort, Key: h.keyOf(name + sort)})
			}
		}
		if len(p.Pairs) == 0 && len(h.Wants) == 0 {
			h.note("%s: crt %s is not there", where, name)
		}
		h.add(p)
	}
}

// keyOf is the file with the key of a certificate: itself, or one beside it.
func (h *haproxyReader) keyOf(name string) string {
	key := name + ".key"
	if h.keyBase != "" {
		key = path.Join(h.keyBase, path.Base(name)+".key")
	}
	if len(h.glob(key)) > 0 {
		return key
	}
	return name
}

// folder takes every certificate of a folder; those of one name but for the key type
// are one place.
func (h *haproxyReader) folder(p Place, files []string) {
	sets := map[string][]Files{}
	var order []string
	for _, f := range files {
		ext := path.Ext(f)
		if strings.HasPrefix(path.Base(f), ".") || slices.Contains([]string{".key", ".ocsp", ".sctl", ".issuer", ".dh"}, ext) {
			continue
		}
		base := f
		if ext == ".ecdsa" || ext == ".rsa" || ext == ".dsa" {
			base = strings.TrimSuffix(f, ext)
		}
		if sets[base] == nil {
			order = append(order, base)
		}
		sets[base] = append(sets[base], Files{Chain: f, Key: h.keyOf(f)})
	}
	for _, base := range order {
		one := p
		one.Pairs = sets[base]
		h.add(one)
	}
}

// list reads a crt-list: a file, options in brackets, and names to answer for.
func (h *haproxyReader) list(name string, listens []Listen) {
	for _, file := range h.glob(absolute("", name)) {
		if !h.enter(file, 0) {
			continue
		}
		for i, line := range strings.Split(h.Texts[file], "\n") {
			if begin, end := strings.IndexByte(line, '['), strings.LastIndexByte(line, ']'); begin >= 0 && end > begin {
				line = line[:begin] + line[end+1:]
			}
			words, odd := haproxyWords(line)
			if len(words) == 0 || odd {
				continue
			}
			var names []string
			for _, w := range words[1:] {
				if !strings.HasPrefix(w, "!") {
					names = append(names, strings.ToLower(w))
				}
			}
			h.crt(absolute(h.crtBase, words[0]), names, listens, at(file, i+1))
		}
	}
}

// haproxyWords takes a line apart by the rules of HAProxy's manual, 2.2: a backslash
// keeps the next character, '…' is as it is, "…" has variables. Odd says that there
// are some, or that a quote does not end.
func haproxyWords(line string) (words []string, odd bool) {
	w := haproxyLine{line: line}
	for w.i < len(line) && !w.comment() {
		w.step()
	}
	w.end()
	return w.words, w.odd || w.quote != 0
}

// haproxyLine is a line that is being taken apart.
type haproxyLine struct {
	line    string
	i       int
	words   []string
	word    strings.Builder
	in, odd bool // within a word; a variable was met
	quote   byte // the quote that is open; 0: none
}

// comment reports that the rest of the line is one.
func (w *haproxyLine) comment() bool { return w.quote == 0 && w.line[w.i] == '#' }

// end ends a word, if there is one.
func (w *haproxyLine) end() {
	if w.in {
		w.words = append(w.words, w.word.String())
	}
	w.word.Reset()
	w.in = false
}

// step takes the next character.
func (w *haproxyLine) step() {
	c := w.line[w.i]
	w.i++
	switch {
	case w.quote != 0 && c == w.quote:
		w.quote = 0
	case w.quote == '\'':
		w.word.WriteByte(c)
	case c == '\\' && w.i < len(w.line):
		w.word.WriteByte(w.line[w.i])
		w.i++
		w.in = true
	case w.quote != 0:
		w.odd = w.odd || c == '$'
		w.word.WriteByte(c)
	case c == '"' || c == '\'':
		w.quote, w.in = c, true
	case strings.IndexByte(" \t\r", c) >= 0:
		w.end()
	default:
		w.word.WriteByte(c)
		w.in = true
	}
}
