package adopt

import "strings"

// nginxParse takes a file apart by the rules of ngx_conf_read_token: quotes and
// comments begin a word or are part of it, a backslash keeps the next character, and
// ${name} does not open a block.
func nginxParse(file, text string, r *reader) []directive {
	l := &nginxText{text: text, line: 1}
	b := &nginxBlocks{stack: [][]directive{nil}, open: []directive{{}}}
	d := directive{file: file}
	for {
		word, sort := l.next()
		switch sort {
		case nginxEnd:
			return b.end(file, r)
		case nginxWord:
			if len(d.words) == 0 {
				d.line = l.began
			}
			d.words = append(d.words, word)
			continue
		case nginxClose:
			b.close()
		case nginxSemicolon:
			b.add(d)
		case nginxOpen:
			// Lua is not ours to read, and a lone { or a block too deep not to be believed.
			if len(d.words) == 0 || strings.HasSuffix(d.words[0], "_by_lua_block") || len(b.stack) > maxDepth {
				l.skipBlock()
				break
			}
			d.block = []directive{}
			b.stack, b.open = append(b.stack, []directive{}), append(b.open, d)
		}
		d = directive{file: file}
	}
}

// nginxBlocks are the blocks that are open, the innermost last: what is in each, and
// the directive that it belongs to. The first is the file.
type nginxBlocks struct {
	stack [][]directive
	open  []directive
}

// end is all that there is of a file, which should have no block open.
func (b *nginxBlocks) end(file string, r *reader) []directive {
	if len(b.stack) > 1 {
		r.note("%s ends within a block", file)
	}
	for len(b.stack) > 1 {
		b.close()
	}
	return b.stack[0]
}

// add puts a directive into the innermost block.
func (b *nginxBlocks) add(d directive) {
	if top := len(b.stack) - 1; len(d.words) > 0 {
		b.stack[top] = append(b.stack[top], d)
	}
}

// close ends the innermost block; a brace too many ends none.
func (b *nginxBlocks) close() {
	top := len(b.stack) - 1
	if top == 0 {
		return
	}
	d := b.open[top]
	d.block = b.stack[top]
	b.stack, b.open = b.stack[:top], b.open[:top]
	b.add(d)
}

// The sorts of what a file is made of.
const (
	nginxEnd = iota
	nginxWord
	nginxSemicolon
	nginxOpen
	nginxClose
)

type nginxText struct {
	text        string
	i           int
	line, began int // where it is, and where the last word began
}

func (l *nginxText) take() byte {
	c := l.text[l.i]
	l.i++
	if c == '\n' {
		l.line++
	}
	return c
}

// next is the next word or sign.
func (l *nginxText) next() (string, int) {
	for l.i < len(l.text) {
		c := l.text[l.i]
		switch c {
		case ' ', '\t', '\r', '\n':
			l.take()
		case '#':
			for l.i < len(l.text) && l.text[l.i] != '\n' {
				l.i++
			}
		case ';', '{', '}':
			l.take()
			return "", map[byte]int{';': nginxSemicolon, '{': nginxOpen, '}': nginxClose}[c]
		case '"', '\'':
			l.began = l.line
			l.take()
			return l.quoted(c), nginxWord
		default:
			l.began = l.line
			return l.bare(), nginxWord
		}
	}
	return "", nginxEnd
}

func (l *nginxText) quoted(quote byte) string {
	var b strings.Builder
	for l.i < len(l.text) {
		c := l.take()
		if c == quote {
			break
		}
		if c == '\\' && l.i < len(l.text) {
			c = l.escaped()
		}
		b.WriteByte(c)
	}
	return b.String()
}

// escaped is what a backslash and the next character mean.
func (l *nginxText) escaped() byte {
	switch c := l.take(); c {
	case 't':
		return '\t'
	case 'r':
		return '\r'
	case 'n':
		return '\n'
	default:
		return c
	}
}

func (l *nginxText) bare() string {
	var b strings.Builder
	for l.i < len(l.text) {
		c := l.text[l.i]
		variable := c == '{' && strings.HasSuffix(b.String(), "$")
		if strings.IndexByte(" \t\r\n;{", c) >= 0 && !variable {
			break
		}
		l.take()
		if c == '\\' && l.i < len(l.text) {
			next := l.text[l.i]
			if strings.IndexByte(`"'\ ;{}`, next) < 0 { // such as the \. of a pattern, which nginx keeps
				b.WriteByte(c)
			}
			c = l.take()
		}
		b.WriteByte(c)
	}
	return b.String()
}

// skipBlock goes past the brace that closes what was just opened. Braces within
// quotes do not count.
func (l *nginxText) skipBlock() {
	for depth := 1; depth > 0 && l.i < len(l.text); {
		switch c := l.take(); c {
		case '{':
			depth++
		case '}':
			depth--
		case '"', '\'':
			for l.i < len(l.text) && l.text[l.i] != c && l.text[l.i] != '\n' {
				if l.text[l.i] == '\\' && l.i+1 < len(l.text) {
					l.i++
				}
				l.take()
			}
			if l.i < len(l.text) {
				l.take()
			}
		}
	}
}
