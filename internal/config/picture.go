package config

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v4"
)

// A source is the text of a farm.yaml, to draw pictures of its lines. What is
// hidden never comes into a picture.
type source struct {
	file   string
	lines  []string
	spans  map[int][]span      // secrets, by line from 1
	words  map[string]struct{} // words of secrets, hidden wherever they stand
	broken bool                // it is no YAML: what a line means is guessed
}

type span struct{ from, to int } // characters, from 0; to -1: the end of the line

const mask = "********"

// secretish are names of fields whose value is likely a secret.
var secretish = regexp.MustCompile(`(?i)pas|pwd|secret|secert|token|hmac|key|cred|auth`)

// secretLine is what such a field looks like in a text that cannot be read.
var secretLine = regexp.MustCompile(`(?i)((?:pas\w*|pwd|secret|token|hmac|key|cred\w*|auth\w*)["']?\s*[:=]\s*)[^\s{\[|>].*`)

// blob is what looks like a part of a key.
var blob = regexp.MustCompile(`[A-Za-z0-9+/_-]{24,}={0,2}`)

// ofKey is a line inside or at the end of a key in PEM, headers among them.
var ofKey = regexp.MustCompile(`^\s*([A-Za-z0-9+/=]*|[A-Za-z-]+: [^{}]*|-----END.*)\s*$`)

// credentials is a password in a URL.
var credentials = regexp.MustCompile(`://[^/\s@]+@`)

func newSource(file string, text []byte) *source {
	s := &source{file: file, spans: map[int][]span{}, words: map[string]struct{}{}}
	s.lines = strings.Split(string(text), "\n")
	s.hideKeys()
	return s
}

// hideKeys hides every private key in PEM, whether the text is YAML or not.
func (s *source) hideKeys() {
	in := false
	for i, l := range s.lines {
		begin := strings.Index(l, "-----BEGIN")
		if begin >= 0 && strings.Contains(l[begin:], "PRIVATE KEY") {
			s.spans[i+1] = append(s.spans[i+1], span{len([]rune(l[:begin])), -1})
			in = !strings.Contains(l, "-----END")
			continue
		}
		if in = in && ofKey.MatchString(l); in {
			s.spans[i+1] = append(s.spans[i+1], span{0, -1})
			in = !strings.Contains(l, "-----END")
		}
	}
}

// hide keeps the scalars under n out of all pictures.
func (s *source) hide(n *yaml.Node) {
	if n.Kind != yaml.ScalarNode {
		for _, inner := range n.Content {
			s.hide(inner)
		}
		return
	}
	for w := range strings.FieldsSeq(n.Value) {
		if len(w) >= 4 {
			s.words[w] = struct{}{}
		}
	}
	from := n.Column - 1
	to := -1
	rest := string(tail([]rune(s.line(n.Line)), from))
	for _, q := range []string{"", `"`, "'"} {
		if strings.HasPrefix(rest, q+n.Value+q) && n.Value != "" {
			to = from + len([]rune(q+n.Value+q))
		}
	}
	s.spans[n.Line] = append(s.spans[n.Line], span{from, to})
}

func (s *source) line(n int) string {
	if n < 1 || n > len(s.lines) {
		return ""
	}
	return s.lines[n-1]
}

// find is the first place of a text, or the beginning.
func (s *source) find(text string) (line, column int) {
	for i, l := range s.lines {
		if before, _, there := strings.Cut(l, text); there {
			return i + 1, len([]rune(before)) + 1
		}
	}
	return 1, 1
}

func tail(rs []rune, from int) []rune { return rs[min(max(from, 0), len(rs)):] }

// picture is a line with a caret under the column, cropped to what fits a
// terminal, with no character that a terminal would obey.
func (s *source) picture(line, column int) string {
	runes := []rune(s.line(line))
	caret := min(max(column-1, 0), len(runes))
	before := s.clean(string(s.veiled(line, runes, 0, caret)))
	after := s.clean(string(s.veiled(line, runes, caret, len(runes))))
	whole := s.clean(string(s.veiled(line, runes, 0, len(runes))))
	if before+after != whole { // what is hidden lies across the caret
		before, after = whole, ""
	}
	const left, right = 60, 40
	b, a := []rune(before), []rune(after)
	if len(b) > left {
		b = append([]rune("…"), b[len(b)-left:]...)
	}
	if len(a) > right {
		a = append(a[:right:right], '…')
	}
	number := fmt.Sprintf("%5d", line)
	return fmt.Sprintf("%s | %s%s\n%s | %s^", number, string(b), string(a),
		strings.Repeat(" ", len(number)), strings.Repeat(" ", len(b)))
}

// veiled is a part of a line with a mask for each hidden span in it.
func (s *source) veiled(line int, runes []rune, from, to int) []rune {
	var out []rune
	for i := from; i < to; i++ {
		begins, within := s.hidden(line, i)
		switch {
		case begins || within && i == from:
			out = append(out, []rune(mask)...)
		case !within:
			out = append(out, runes[i])
		}
	}
	return out
}

func (s *source) hidden(line, i int) (begins, within bool) {
	for _, sp := range s.spans[line] {
		if i >= sp.from && (sp.to < 0 || i < sp.to) {
			within = true
			begins = begins || i == sp.from
		}
	}
	return begins, within
}

func (s *source) clean(text string) string {
	for w := range s.words {
		text = strings.ReplaceAll(text, w, mask)
	}
	text = credentials.ReplaceAllString(text, "://"+mask+"@")
	if s.broken {
		text = secretLine.ReplaceAllString(text, "${1}"+mask)
		text = blob.ReplaceAllString(text, mask)
	}
	return printable(text)
}

// printable has no character that a terminal would obey.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
}
