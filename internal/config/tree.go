package config

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
	"go.yaml.in/yaml/v4"
)

// Limits, so that a hostile file costs little. A farm of 10,000 sites is 3 MB.
const (
	maxText  = 64 << 20   // bytes
	maxReads = 20_000_000 // values after aliases are followed
	maxDepth = 40         // mappings and lists inside each other
)

// tree reads the text as one YAML document, or tells what is wrong and returns
// nil. yaml/v4 reads, in time that grows with the text alone and with a limit on
// nesting; it seldom knows the column of a mistake, so goccy/go-yaml, whose
// errors are the best there are, is asked to explain what could not be read.
func (r *reader) tree(text []byte) *yaml.Node {
	if len(text) > maxText {
		return r.unreadable(1, 1, fmt.Sprintf("the file is larger than %d MiB", maxText>>20), "")
	}
	if line, column, bad := garbled(text); bad {
		return r.unreadable(line, column, "this is no UTF-8 text", "save the file as UTF-8, without control characters")
	}
	doc, err := load(text)
	if err != nil {
		return r.explain(text, err)
	}
	if doc == nil || len(doc.Content) == 0 || doc.Content[0].Tag == nullTag {
		return r.unreadable(1, 1, "the file is empty", "begin with a line such as `farm: shop`")
	}
	return doc.Content[0]
}

// load reads the only document of the text; a panic of the parser is its error.
func load(text []byte) (doc *yaml.Node, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the YAML parser gave up: %v", p)
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var first, second yaml.Node
	if err := dec.Decode(&first); err != nil {
		if isEOF(err) {
			return nil, nil
		}
		return nil, err
	}
	if err := dec.Decode(&second); err == nil {
		return nil, &yaml.ParserError{Message: "a second document begins", Line: second.Line}
	} else if !isEOF(err) {
		return nil, err
	}
	return &first, nil
}

// unreadable notes the one mistake of a text that is no YAML.
func (r *reader) unreadable(line, column int, problem, hint string) *yaml.Node {
	r.src.broken = true
	r.say(&place{val: &yaml.Node{Kind: yaml.ScalarNode, Line: line, Column: column}}, problem, hint)
	return nil
}

// explain tells why the text is no YAML, as exactly as anyone can.
func (r *reader) explain(text []byte, err error) *yaml.Node {
	line, column, problem := 1, 0, strings.TrimPrefix(err.Error(), "yaml: ")
	if p, ok := errors.AsType[*yaml.ParserError](err); ok {
		line, problem = max(1, p.Line), p.Message
	}
	if m := noAnchor.FindStringSubmatch(problem); m != nil {
		line, column = r.src.find("*" + m[1])
		problem = "nothing is marked &" + m[1]
	} else if l, c, better := second(text); better != "" {
		line, column, problem = l, c, better
	}
	if column == 0 {
		row := r.src.line(line)
		column = 1 + len(row) - len(strings.TrimLeft(row, " "))
	}
	return r.unreadable(line, column, "this is no YAML: "+problem, hintFor(problem))
}

// noAnchor is what yaml/v4 says of an alias of nothing; it does not say where.
var noAnchor = regexp.MustCompile(`unknown anchor '(.*)' referenced`)

// second asks goccy/go-yaml for its view. Its time and its stack grow with the
// square of some texts, so it is only asked about small and tame ones.
func second(text []byte) (line, column int, problem string) {
	const most, brackets, blank, wide = 64 << 10, 500, 100, 2000
	if len(text) > most || bytes.Count(text, []byte("["))+bytes.Count(text, []byte("{")) > brackets ||
		bytes.Contains(text, bytes.Repeat([]byte("\n"), blank)) {
		return 0, 0, ""
	}
	for line := range bytes.Lines(text) {
		if len(line) > wide {
			return 0, 0, ""
		}
	}
	defer func() {
		if recover() != nil {
			line, column, problem = 0, 0, ""
		}
	}()
	_, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
	var e interface {
		GetToken() *token.Token
		GetMessage() string
	}
	if !errors.As(err, &e) || e.GetToken() == nil || e.GetToken().Position == nil {
		return 0, 0, ""
	}
	p := e.GetToken().Position
	return p.Line, p.Column, e.GetMessage()
}

func hintFor(problem string) string {
	switch {
	case strings.Contains(problem, "second document"):
		return "a farm.yaml holds one farm; take out the line ---"
	case strings.Contains(problem, "cannot start any token"), strings.Contains(problem, "tab"):
		return "indent with spaces, not with tabs, and quote texts that begin with @, ` or %"
	case strings.Contains(problem, "mapping value"):
		return "quote a text that has a colon and a space in it"
	case strings.Contains(problem, "marked"):
		return "mark what is meant with &NAME, above the place where *NAME repeats it"
	case strings.Contains(problem, "end"), strings.Contains(problem, "',' or"):
		return "close the quote or the bracket that begins here"
	}
	return "check the indentation of this line and of the one before"
}

// lines makes every line end in \n, and takes the mark off that some editors put
// at the beginning.
func lines(text []byte) []byte {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	return bytes.ReplaceAll(text, []byte("\r"), []byte("\n"))
}

// garbled finds the first byte that is no UTF-8, a control character, or one of
// the characters that YAML takes for an end of line and no editor does.
func garbled(text []byte) (line, column int, bad bool) {
	line, column = 1, 1
	for i := 0; i < len(text); {
		c, size := utf8.DecodeRune(text[i:])
		isControl := unicode.IsControl(c) && c != '\n' && c != '\t'
		if c == utf8.RuneError && size <= 1 || isControl || c == '\u2028' || c == '\u2029' {
			return line, column, true
		}
		if column++; c == '\n' {
			line, column = line+1, 1
		}
		i += size
	}
	return 0, 0, false
}
