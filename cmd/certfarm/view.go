package main

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/certfarm/certfarm/internal/farm"
)

// picture is the moving view of rollouts on a terminal. It redraws a few lines in
// place by itself: a library for progress bars (mpb) draws one bar a line and a
// bar a task, while a rollout to 100 targets is to fit 80 columns, a cell each.
type picture struct {
	ui    *ui
	began time.Time
	lines int // drawn last time, above the cursor
	tail  []farm.Event
}

// mostTail is how many of the last events stand under the picture.
const mostTail = 4

func (p *picture) event(e farm.Event) {
	p.tail = append(p.tail, e)
	p.tail = p.tail[max(0, len(p.tail)-mostTail):]
}

func (p *picture) draw(views []siteView) {
	width, height := size(p.ui.err)
	tail := p.tail
	lines := p.ui.render(views, p.ui.now().Sub(p.began), width)
	if room := height - 2 - len(lines); room < len(tail)+1 {
		tail = nil
	}
	if len(tail) > 0 {
		lines = append(lines, "")
	}
	for _, e := range tail {
		lines = append(lines, p.ui.tint(p.ui.err, faint, "  ")+cut(p.ui.eventLine(e, 8), width-2))
	}
	p.put(crop(lines, height-1))
}

// end leaves the last picture, without the tail.
func (p *picture) end(views []siteView) {
	width, _ := size(p.ui.err)
	p.put(append(p.ui.render(views, p.ui.now().Sub(p.began), width), ""))
	p.lines = 0
}

// put draws over what was drawn before: up, clear to the end of the screen, write.
func (p *picture) put(lines []string) {
	var b strings.Builder
	if p.lines > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", p.lines)
	}
	b.WriteString("\r\x1b[J")
	for _, l := range lines {
		b.WriteString(l + "\n")
	}
	fmt.Fprint(p.ui.err, b.String())
	p.lines = len(lines)
}

// crop keeps what fits the screen: what was drawn above its top cannot be drawn
// over.
func crop(lines []string, height int) []string {
	if len(lines) <= height || height < 2 {
		return lines
	}
	return append(lines[:height-1:height-1], fmt.Sprintf("  … and %d lines more", len(lines)-height+1))
}

// cut shortens a line to a width, colours and all.
func cut(line string, width int) string {
	if lipgloss.Width(line) <= width {
		return line
	}
	return lipgloss.NewStyle().MaxWidth(max(1, width-1)).Render(line) + "…"
}

// render is the picture: for each site what it does, its waves with a cell for
// each target, and what is wrong.
func (u *ui) render(views []siteView, since time.Duration, width int) (lines []string) {
	for i, v := range views {
		clock := ""
		if i == 0 {
			clock = fmt.Sprintf("%02d:%02d", int(since.Minutes()), int(since.Seconds())%60)
		}
		lines = append(lines, u.head(v, clock, width))
		if v.rollout == nil || len(views) > 1 && v.over {
			continue
		}
		lines = append(lines, u.waves(*v.rollout, width)...)
		lines = append(lines, u.troubles(*v.rollout, width)...)
	}
	return lines
}

func (u *ui) head(v siteView, clock string, width int) string {
	phase, t := phaseOf(v)
	left := v.progress.Name + "  " + oneLine(phase)
	left = cut(left, width-len(clock)-2)
	gap := strings.Repeat(" ", max(1, width-lipgloss.Width(left)-len(clock)))
	name, rest, _ := strings.Cut(left, "  ")
	return strings.TrimRight(u.tint(u.err, bold, name)+"  "+u.tint(u.err, t, rest)+gap+u.tint(u.err, faint, clock), " ")
}

// phaseOf says in words what a site does.
func phaseOf(v siteView) (string, tone) {
	p := v.progress
	if v.rollout != nil {
		if text, t := phaseOfRollout(p.Rest, p.Waits != "", *v.rollout); text != "" {
			return text, t
		}
	}
	switch {
	case p.Waits != "":
		text := "waits: " + p.Waits
		if !p.Again.IsZero() && v.over {
			text += ", until " + date(p.Again)
		}
		return text, busy
	case p.Rest:
		return p.Sync + ", " + p.Health, plain
	case p.Sync == "":
		return "looking", faint
	}
	return cmp.Or(p.Verdict, "ordering a certificate"), busy
}

func phaseOfRollout(rests, waits bool, r farm.Rollout) (string, tone) {
	switch {
	case r.Outcome != farm.Running && rests:
		_, t := outcomeWord(r)
		return string(r.Outcome) + ": " + r.Why, t
	case r.Back != "":
		return "going back: " + r.Back, bad
	case r.Paused:
		return "paused: `certfarm rollout resume " + r.Site + "`", warn
	case r.Outcome == farm.Running && !waits:
		return cmp.Or(r.Reason, "rolling out"), busy
	}
	return "", plain
}

// A look is how a step is shown: a sign, a word, and a colour that says no more
// than they do.
type look struct {
	sign string
	tone tone
}

// lookOf is the table of signs.
func lookOf(s farm.State) look {
	switch s {
	case farm.Staged:
		return look{"◌", plain}
	case farm.Active:
		return look{"◐", busy}
	case farm.Verified:
		return look{"●", good}
	case farm.Absent:
		return look{"–", warn}
	case farm.Failed:
		return look{"✗", bad}
	case farm.Restored:
		return look{"↺", warn}
	case farm.Stuck:
		return look{"!", bad}
	case farm.Left:
		return look{"?", warn}
	case farm.Gone:
		return look{"×", faint}
	}
	return look{"·", faint}
}

// states are in the order of the legend.
func states() []farm.State {
	return []farm.State{
		farm.Planned, farm.Staged, farm.Active, farm.Verified, farm.Absent, farm.Failed, farm.Restored, farm.Stuck, farm.Left, farm.Gone,
	}
}

// waves draws each wave: its name, a cell for each target, how many are verified.
func (u *ui) waves(r farm.Rollout, width int) (lines []string) {
	wide := 0
	for _, w := range r.Waves {
		wide = max(wide, lipgloss.Width(w.Name))
	}
	wide = min(wide, 14)
	for i, w := range r.Waves {
		var steps []farm.Step
		verified := 0
		for _, s := range r.Steps {
			if s.Wave == i {
				steps = append(steps, s)
				if s.State == farm.Verified {
					verified++
				}
			}
		}
		count := fmt.Sprintf("%d/%d", verified, len(steps))
		for j, row := range u.cells(steps, width-wide-4-len(count)-3) {
			name := ""
			if j == 0 {
				name = cut(w.Name, wide)
			}
			line := fmt.Sprintf("  %s%s  %s", u.tint(u.err, faint, name), strings.Repeat(" ", wide-lipgloss.Width(name)), row)
			if j == 0 {
				line += strings.Repeat(" ", max(1, width-lipgloss.Width(line)-len(count))) + u.tint(u.err, faint, count)
			}
			lines = append(lines, line)
		}
	}
	for _, row := range u.legend(r, width-wide-4) {
		lines = append(lines, "  "+strings.Repeat(" ", wide)+"  "+row)
	}
	return lines
}

// cells draws a cell for each step, with the node's name where there is room.
func (u *ui) cells(steps []farm.Step, width int) (rows []string) {
	var named []string
	long := 0
	for _, s := range steps {
		text := lookOf(s.State).sign + " " + place(s.Target)
		long += lipgloss.Width(text) + 2
		named = append(named, u.cell(s, text))
	}
	if long <= width+2 {
		return []string{strings.Join(named, "  ")}
	}
	for len(steps) > 0 {
		n := min(len(steps), max(1, width))
		var b strings.Builder
		for _, s := range steps[:n] {
			b.WriteString(u.cell(s, lookOf(s.State).sign))
		}
		rows, steps = append(rows, b.String()), steps[n:]
	}
	return rows
}

// cell colours a step; one at which something is being done is bright.
func (u *ui) cell(s farm.Step, text string) string {
	t := lookOf(s.State).tone
	if s.Doing != "" && (t == faint || t == plain) {
		t = bold
	}
	return u.tint(u.err, t, text)
}

// legend counts the targets by state: sign, number and word, in as many rows as
// it takes.
func (u *ui) legend(r farm.Rollout, width int) (rows []string) {
	count := map[farm.State]int{}
	for _, s := range r.Steps {
		count[s.State]++
	}
	row := ""
	for _, s := range states() {
		if count[s] == 0 {
			continue
		}
		l := lookOf(s)
		part := u.tint(u.err, l.tone, fmt.Sprintf("%s %d %s", l.sign, count[s], s))
		switch {
		case row == "":
			row = part
		case lipgloss.Width(row)+3+lipgloss.Width(part) <= width:
			row += "   " + part
		default:
			rows, row = append(rows, row), part
		}
	}
	return append(rows, row)
}

// mostTroubles is how many targets are named with what is wrong.
const mostTroubles = 5

// troubles names the targets that something is wrong with.
func (u *ui) troubles(r farm.Rollout, width int) (lines []string) {
	var all []farm.Step
	for _, s := range r.Steps {
		bad := s.State == farm.Failed || s.State == farm.Stuck || s.State == farm.Absent || s.State == farm.Left
		if s.Error != "" && (bad || s.Fault != farm.NoFault || !s.Failing.IsZero()) {
			all = append(all, s)
		}
	}
	for _, s := range all[:min(len(all), mostTroubles)] {
		l := lookOf(s.State)
		line := fmt.Sprintf("  %s %s: %s", l.sign, place(s.Target), oneLine(s.Error))
		lines = append(lines, u.tint(u.err, cmp.Or(l.tone, warn), cut(line, width)))
	}
	if more := len(all) - mostTroubles; more > 0 {
		lines = append(lines, fmt.Sprintf("  and %s", farm.Count(more, "more target")))
	}
	return lines
}
