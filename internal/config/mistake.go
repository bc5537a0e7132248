package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
)

// A Mistake is one thing that is wrong in a farm.yaml, and where.
type Mistake struct {
	File    string `json:"file"`
	Line    int    `json:"line"`   // from 1
	Column  int    `json:"column"` // from 1, in characters
	Path    string `json:"path"`   // sites.shop.targets[0].kind; empty: the whole file
	Problem string `json:"problem"`
	Hint    string `json:"hint,omitempty"`
	Picture string `json:"picture"` // the line with a caret under the place; secrets are masked
}

// Error shows the mistake with its picture and hint, over several lines.
func (m Mistake) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: ", m.File, m.Line, m.Column)
	if m.Path != "" {
		b.WriteString(m.Path + ": ")
	}
	b.WriteString(m.Problem)
	if m.Picture != "" {
		b.WriteString("\n" + m.Picture)
	}
	if m.Hint != "" {
		b.WriteString("\n  hint: " + m.Hint)
	}
	return b.String()
}

// Mistakes are all that is wrong in a farm.yaml, in the order of its lines.
type Mistakes []Mistake

// shown is how many mistakes Error prints: as many as a person reads.
const shown = 20

// kept is how many mistakes are collected: a file with more is some other file.
const kept = 1000

// Error shows the first mistakes and says how many more there are.
func (ms Mistakes) Error() string {
	var parts []string
	for _, m := range ms[:min(len(ms), shown)] {
		parts = append(parts, m.Error())
	}
	if more := len(ms) - shown; more > 0 {
		parts = append(parts, fmt.Sprintf("and %s", farm.Count(more, "more mistake")))
	}
	return strings.Join(parts, "\n")
}

// tidy sorts by place and drops what was found twice: an anchor with a mistake
// is read once for every alias.
func (ms Mistakes) tidy() Mistakes {
	slices.SortStableFunc(ms, func(a, b Mistake) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	type what struct {
		line, column int
		problem      string
	}
	seen := map[what]bool{}
	return slices.DeleteFunc(ms, func(m Mistake) bool {
		w := what{m.Line, m.Column, m.Problem}
		twice := seen[w]
		seen[w] = true
		return twice
	})
}

// quote shows a text of the file in a sentence: on one line and not too long.
func quote(s string) string {
	const most = 60
	if rs := []rune(s); len(rs) > most {
		s = string(rs[:most]) + "…"
	}
	return fmt.Sprintf("%q", s)
}
