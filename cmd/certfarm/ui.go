package main

// The rules of this user interface:
//
//   - Results go to standard output, everything else to standard error. So
//     `certfarm get sites -o name | xargs …` works whatever is said beside it.
//   - With --json every command prints JSON lines, each an object with "type";
//     the last one is the result, or {"type":"error"}. Shapes are in docs/cli.md
//     and only grow.
//   - An error says what went wrong, where, and what to do. It is lower case and
//     without an exclamation mark. "Did you mean" only where one thing is meant.
//   - Nothing is told by colour alone. NO_COLOR, --no-color and TERM=dumb are
//     kept to, and so is a pipe.
//   - What moves (progress) is for terminals; a file gets plain lines with times.
//   - A question is asked on a terminal only. Elsewhere the command says which
//     flag answers it, and ends.
//   - A secret is never taken from a flag or the environment and never printed, but
//     for one that was generated: once, on a terminal, if that is asked for.
//   - Ctrl-C ends at once what waits; what runs in the controller goes on there.

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"golang.org/x/term"
)

// ui is where a command reads and writes.
type ui struct {
	in       io.Reader
	out, err io.Writer
	json     bool
	noColor  bool
	now      func() time.Time
}

// A tone is how a text is meant; the words must say it as well.
type tone string

// The tones are colours of the terminal's own palette, so that they are
// readable on light and dark ones.
const (
	plain tone = ""
	good  tone = "2" // green
	warn  tone = "3" // yellow
	bad   tone = "1" // red
	busy  tone = "6" // cyan
	faint tone = "faint"
	bold  tone = "bold"
)

// tint colours text for w, if w shows colours.
func (u *ui) tint(w io.Writer, t tone, text string) string {
	if t == plain || text == "" || !u.colors(w) {
		return text
	}
	switch t {
	case faint:
		return lipgloss.NewStyle().Faint(true).Render(text)
	case bold:
		return lipgloss.NewStyle().Bold(true).Render(text)
	}
	return lipgloss.NewStyle().Foreground(lipgloss.Color(string(t))).Render(text)
}

func (u *ui) colors(w io.Writer) bool {
	return !u.noColor && os.Getenv("NO_COLOR") == "" && !u.dumb() && isTerminal(w)
}

// dumb reports that the terminal does nothing but write.
func (u *ui) dumb() bool { return os.Getenv("TERM") == "dumb" }

// isTerminal reports that a person sees what is written, or types what is read.
func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// size is the width and height of the terminal, or of a common one.
func size(w io.Writer) (width, height int) {
	if f, ok := w.(*os.File); ok {
		if width, height, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return width, height
		}
	}
	return 80, 24
}

// say writes for the person beside the results.
func (u *ui) say(format string, args ...any) { fmt.Fprintf(u.err, format+"\n", args...) }

// print writes a line of the result.
func (u *ui) print(format string, args ...any) { fmt.Fprintf(u.out, format+"\n", args...) }

// A listing is a result with many things in JSON.
type listing struct {
	Type  string `json:"type"`
	Farm  string `json:"farm,omitempty"`
	Items any    `json:"items"`
}

// An object is a result, or a line of a stream, with one thing in JSON.
type object struct {
	Type string `json:"type"`
	Farm string `json:"farm,omitempty"`
	Item any    `json:"item"`
}

// object writes one line of JSON.
func (u *ui) object(v any) error {
	e := json.NewEncoder(u.out)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// done tells that an order was taken: a sentence for people, an object for
// programs.
func (u *ui) done(what string, item any, format string, args ...any) error {
	if u.json {
		return u.object(object{Type: what, Item: item})
	}
	u.print(format, args...)
	return nil
}

// A cell is a text of a table with its tone.
type cell struct {
	text string
	tone tone
}

// table writes even columns, as wide as they must be, three spaces apart.
func (u *ui) table(head []string, rows [][]cell) {
	wide := make([]int, len(head))
	measure := func(i int, text string) { wide[i] = max(wide[i], lipgloss.Width(text)) }
	for i, h := range head {
		measure(i, h)
	}
	for _, r := range rows {
		for i, c := range r {
			measure(i, c.text)
		}
	}
	line := func(cells []cell) {
		var b strings.Builder
		for i, c := range cells {
			b.WriteString(u.tint(u.out, c.tone, c.text))
			if i < len(cells)-1 {
				b.WriteString(strings.Repeat(" ", wide[i]-lipgloss.Width(c.text)+3))
			}
		}
		u.print("%s", strings.TrimRight(b.String(), " "))
	}
	var top []cell
	for _, h := range head {
		top = append(top, cell{h, faint})
	}
	line(top)
	for _, r := range rows {
		line(r)
	}
}

// A fact is a name and what it is, for describe.
type fact struct {
	name  string
	value string
	tone  tone
}

// facts writes names and values in two even columns; those that are empty are
// left out.
func (u *ui) facts(all []fact) {
	wide := 0
	for _, f := range all {
		wide = max(wide, len(f.name))
	}
	for _, f := range all {
		if f.value == "" {
			continue
		}
		pad := strings.Repeat(" ", wide-len(f.name)+3)
		lines := strings.Split(f.value, "\n")
		u.print("%s%s%s", u.tint(u.out, faint, f.name), pad, u.tint(u.out, f.tone, lines[0]))
		for _, l := range lines[1:] {
			u.print("%s%s", strings.Repeat(" ", wide+3), u.tint(u.out, f.tone, l))
		}
	}
}

// ask asks a question that is answered with yes or no; anything but yes is no.
func (u *ui) ask(question string) bool {
	fmt.Fprintf(u.err, "%s [y/N] ", question)
	answer, _ := bufio.NewReader(u.in).ReadString('\n') // the end of input is a no
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes"
}

// when shows a time as far as it matters: how long until then, or since.
func (u *ui) when(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	d := t.Sub(u.now()).Round(time.Second)
	switch {
	case d == 0:
		return "now"
	case d < 0:
		return span(-d) + " ago"
	}
	return "in " + span(d)
}

// date shows a time to the minute, in the time zone of the person.
func date(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.Local().Format("2006-01-02 15:04 MST")
}

// span shows a duration by its two largest parts.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 10*day:
		return fmt.Sprintf("%dd", d/day)
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}
