package lab

import (
	"errors"
	"fmt"
	"strings"
)

// A word is a part of a command line: a word in the sense of a shell, without
// its quotes, or an operator between two commands.
type word struct {
	text     string
	operator bool
}

func texts(words []word) []string {
	var all []string
	for _, w := range words {
		all = append(all, w.text)
	}
	return all
}

// splitLine splits a line as a POSIX shell does (POSIX.1-2024 XCU 2.2, 2.3). An
// expansion, a redirection, a pipe or a job is an error.
func splitLine(line string) ([]word, error) {
	s := splitter{rest: line}
	for s.rest != "" {
		if err := s.step(); err != nil {
			return nil, err
		}
	}
	s.end()
	return s.words, nil
}

// splitter is a line that is partly read.
type splitter struct {
	rest   string
	words  []word
	now    strings.Builder
	inside bool // a word has begun; it may be empty: ''
}

func (s *splitter) end() {
	if s.inside {
		s.words = append(s.words, word{text: s.now.String()})
	}
	s.now.Reset()
	s.inside = false
}

func (s *splitter) step() error {
	c := s.rest[0]
	s.rest = s.rest[1:]
	switch c {
	case ' ', '\t':
		s.end()
	case ';', '\n', '&', '|':
		return s.operator(c)
	case '\'':
		return s.single()
	case '"':
		return s.double()
	case '\\':
		if s.rest == "" {
			return errors.New("the line ends after a backslash")
		}
		s.add(s.rest[0])
		s.rest = s.rest[1:]
	case '$', '`', '<', '>', '(', ')', '*', '?':
		return fmt.Errorf("%q is not for plain commands; it must be quoted", c)
	default:
		s.add(c)
	}
	return nil
}

func (s *splitter) add(c byte) {
	s.inside = true
	s.now.WriteByte(c)
}

func (s *splitter) operator(c byte) error {
	s.end()
	op := string(c)
	if c == '&' || c == '|' {
		if !strings.HasPrefix(s.rest, op) {
			return fmt.Errorf("%q is not for plain commands; it must be quoted", c)
		}
		s.rest = s.rest[1:]
		op += op
	}
	s.words = append(s.words, word{text: op, operator: true})
	return nil
}

func (s *splitter) single() error {
	in, rest, ok := strings.Cut(s.rest, "'")
	if !ok {
		return errors.New("a quote is not closed")
	}
	s.inside = true
	s.now.WriteString(in)
	s.rest = rest
	return nil
}

func (s *splitter) double() error {
	s.inside = true
	for s.rest != "" {
		c := s.rest[0]
		s.rest = s.rest[1:]
		switch c {
		case '"':
			return nil
		case '$', '`':
			return fmt.Errorf("%q is not for plain commands; it must be quoted", c)
		case '\\':
			if s.rest != "" && strings.IndexByte("$`\"\\", s.rest[0]) >= 0 {
				c = s.rest[0]
				s.rest = s.rest[1:]
			}
		}
		s.now.WriteByte(c)
	}
	return errors.New("a quote is not closed")
}
