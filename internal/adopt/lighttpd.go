package adopt

import (
	"fmt"
	"strings"
)

// Lighttpd reads what `lighttpd -p -f FILE` prints: the configuration with its
// includes in place and its variables filled in. Main's text is that.
func Lighttpd(t Tree) Found {
	r := newReader(t)
	if !r.enter(t.Main, 0) {
		return r.Found
	}
	l := &lighttpdReader{reader: r, words: lighttpdWords(t.Texts[t.Main])}
	l.block(lighttpdScope{}, 0)
	for _, p := range l.places {
		if p.Listens == nil { // a name alone: it answers on every port with TLS
			p.Listens = l.sockets
		}
		r.add(p)
	}
	return r.Found
}

// A lighttpdScope is what conditions around a setting say, and what is set.
type lighttpdScope struct {
	names        []string
	socket       *Listen
	pem, key     string
	where        string
	engine       bool
	told, opened bool // pem, engine were set in this very block
}

type lighttpdReader struct {
	*reader
	words   []lighttpdWord
	i       int
	port    int
	places  []Place
	sockets []Listen
}

type lighttpdWord struct {
	text   string
	quoted bool
	line   int
}

func (l *lighttpdReader) peek(i int) lighttpdWord {
	if l.i+i < len(l.words) {
		return l.words[l.i+i]
	}
	return lighttpdWord{}
}

// block reads statements up to the brace that ends them.
func (l *lighttpdReader) block(s lighttpdScope, depth int) {
	own := s
	own.told, own.opened = false, false
	for l.i < len(l.words) {
		w := l.peek(0)
		switch {
		case w.text == "}" && !w.quoted:
			l.i++
			l.end(own)
			return
		case w.text == "{" && !w.quoted:
			l.i++
			if depth > maxDepth {
				l.note("%s has too many blocks in blocks", l.Main)
				l.i = len(l.words)
				return
			}
			l.block(own, depth+1)
		case strings.HasPrefix(w.text, "$") && !w.quoted:
			l.condition(own, depth)
		case l.peek(1).text == "=" && !l.peek(1).quoted:
			l.setting(&own)
		default:
			l.i++
		}
	}
	l.end(own)
}

// condition reads $FIELD["name"] OP "value" { … }.
func (l *lighttpdReader) condition(s lighttpdScope, depth int) {
	field, op, value := l.peek(0), l.peek(1), l.peek(2)
	l.i += 3
	if l.peek(0).text != "{" {
		return
	}
	l.i++
	switch {
	case strings.HasPrefix(field.text, `$HTTP["host"`) && op.text == "==":
		s.names = []string{strings.ToLower(value.text)}
	case strings.HasPrefix(field.text, `$HTTP["host"`):
		if rest, suffix := strings.CutPrefix(value.text, "."); op.text == "=$" && suffix {
			s.names = []string{"*." + rest}
		} else {
			s.names = nil
		}
	case strings.HasPrefix(field.text, `$SERVER["socket"`) && op.text == "==":
		if a, ok := listen(value.text); ok {
			s.socket = &a
		}
	}
	if depth > maxDepth {
		l.note("%s has too many blocks in blocks", l.Main)
		l.i = len(l.words)
		return
	}
	l.block(s, depth+1)
}

// setting reads NAME = VALUE.
func (l *lighttpdReader) setting(s *lighttpdScope) {
	name, value := l.peek(0), l.peek(2)
	l.i += 3
	switch name.text {
	case "server.port":
		if a, ok := listen(value.text); ok {
			l.port = a.Port
		}
	case "ssl.engine":
		s.engine, s.opened = value.text == "enable", true
	case "ssl.pemfile":
		s.pem, s.key, s.told, s.where = value.text, "", true, fmt.Sprintf("%s, line %d as printed", l.Main, name.line)
	case "ssl.privkey":
		s.key = value.text
	}
}

// here is the port of a scope that answers TLS: that of its socket, or the server's.
func (l *lighttpdReader) here(s lighttpdScope) *Listen {
	switch {
	case s.socket != nil:
		return s.socket
	case s.names == nil && s.engine && l.port > 0:
		return &Listen{Port: l.port}
	}
	return nil
}

// end keeps what a block has set itself.
func (l *lighttpdReader) end(s lighttpdScope) {
	if a := l.here(s); s.opened && s.engine && a != nil {
		l.sockets = append(l.sockets, *a)
	}
	if !s.told || s.pem == "" {
		return
	}
	p := Place{Server: "lighttpd", At: s.where, Names: s.names, Pairs: []Files{{Chain: s.pem, Key: s.pem}}}
	if s.key != "" {
		p.Pairs[0].Key = s.key
	}
	if !strings.HasPrefix(s.pem, "/") && !drive(s.pem) {
		l.note("%s: ssl.pemfile %s is relative to where lighttpd was started", s.where, s.pem)
		return
	}
	if a := l.here(s); a != nil {
		p.Listens = []Listen{*a}
	}
	l.places = append(l.places, p)
}

// lighttpdWords takes the text apart: words, "strings" with \" in them, and signs.
func lighttpdWords(text string) (all []lighttpdWord) {
	line := 1
	for i := 0; i < len(text); {
		begin, c := i, text[i]
		switch {
		case strings.IndexByte(" \t\r\n", c) >= 0:
			i++
		case c == '#':
			i += lengthUntil(text[i:], "\n")
		case c == '"':
			var word string
			word, i = lighttpdString(text, i+1)
			all = append(all, lighttpdWord{word, true, line})
		case strings.IndexByte(lighttpdSigns, c) >= 0:
			i++
			all = append(all, lighttpdWord{string(c), false, line})
		default:
			i += lengthUntil(text[i:], " \t\r\n"+lighttpdSigns)
			all = append(all, lighttpdWord{text[begin:i], false, line})
		}
		line += strings.Count(text[begin:i], "\n")
	}
	return all
}

// lighttpdSigns are words by themselves.
const lighttpdSigns = "{}(),"

// lengthUntil is how much of a text comes before any of some characters.
func lengthUntil(text, any string) int {
	if i := strings.IndexAny(text, any); i >= 0 {
		return i
	}
	return len(text)
}

// lighttpdString is the string that begins at i, behind its quote, and where the text
// goes on.
func lighttpdString(text string, i int) (string, int) {
	var b strings.Builder
	for ; i < len(text) && text[i] != '"'; i++ {
		if text[i] == '\\' && i+1 < len(text) {
			i++
		}
		b.WriteByte(text[i])
	}
	return b.String(), min(i+1, len(text))
}
