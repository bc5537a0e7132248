package notify

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// The most that a message names; the rest is counted.
const (
	shownParts = 20
	shownSites = 5
)

// A Message is what one receiver is told at one time. As JSON it is what a webhook gets.
type Message struct {
	ID       string        `json:"id"`     // the same however often it is sent
	Notice   string        `json:"notice"` // what all messages of one notice share
	Farm     string        `json:"farm"`
	Receiver string        `json:"receiver"`
	State    State         `json:"state"`
	Severity farm.Severity `json:"severity"`
	Cause    string        `json:"cause"`
	At       time.Time     `json:"at"`
	Began    time.Time     `json:"began"`
	Title    string        `json:"title"` // one line
	Text     string        `json:"text"`  // all of it, in lines
	Parts    []Affected    `json:"parts,omitempty"`
	More     int           `json:"more,omitzero"`    // parts that are not named
	Mended   []string      `json:"mended,omitempty"` // objects that are right again
	Sites    []Facts       `json:"sites,omitempty"`
	Link     string        `json:"link,omitempty"` // to the dashboard
}

// compose writes the message's words, and keeps of its parts those that are named.
func (m *Message) compose(facts map[string]Facts, dashboard string) {
	slices.SortStableFunc(m.Parts, func(a, b Affected) int {
		return slices.Index(farm.Severities, b.Severity) - slices.Index(farm.Severities, a.Severity)
	})
	sites := m.sites()
	m.Title = m.title(sites)
	for _, name := range sites {
		if f, ok := facts[name]; ok && len(m.Sites) < shownSites {
			m.Sites = append(m.Sites, f)
		}
	}
	if dashboard != "" {
		m.Link = dashboard + "/farms/" + url.PathEscape(m.Farm) + "/"
		if len(sites) == 1 {
			m.Link += "sites/" + url.PathEscape(sites[0])
		}
	}
	if over := len(m.Parts) - shownParts; over > 0 {
		m.More, m.Parts = m.More+over, m.Parts[:shownParts]
	}
	m.Text = m.text(len(sites))
}

// sites are those that the parts concern, each once.
func (m *Message) sites() (all []string) {
	for _, p := range m.Parts {
		if p.Site != "" && !slices.Contains(all, p.Site) {
			all = append(all, p.Site)
		}
	}
	return all
}

// title is the first line: how it stands, what it is, and where.
func (m *Message) title(sites []string) string {
	state := map[State]string{Began: strings.ToUpper(string(m.Severity)), Grew: strings.ToUpper(string(m.Severity)), Over: "OVER", Told: "NEWS", Testing: "TEST"}[m.State]
	n := len(m.Parts) + m.More
	if m.State == Told && n == 1 {
		return fmt.Sprintf("[%s] %s: %s", state, m.Farm, m.Parts[0].said())
	}
	return fmt.Sprintf("[%s] %s: %d %s%s", state, m.Farm, n, title(m.Cause, n > 1), where(m.Parts, sites))
}

// where names the nodes, or else the sites, as far as a line has room.
func where(parts []Affected, sites []string) string {
	var nodes []string
	for _, p := range parts {
		if p.Node != "" && !slices.Contains(nodes, p.Node) {
			nodes = append(nodes, p.Node)
		}
	}
	text := ""
	if len(nodes) > 0 {
		text = " on " + some(nodes)
	}
	if len(sites) > 0 {
		text += " (" + some(sites) + ")"
	}
	return text
}

// some names the first three.
func some(names []string) string {
	const most = 3
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// said is the part's text, with the site that it is about where the text may not say it.
func (p Affected) said() string {
	if p.Site == "" || strings.Contains(p.Text, p.Site) {
		return p.Text
	}
	return p.Site + ": " + p.Text
}

// text is all that the message says, in lines: what is wrong and where, what is still
// served and until when, what happens next by itself, and what a person can do.
func (m *Message) text(sites int) string {
	lines := []string{m.Title, ""}
	for _, p := range m.Parts {
		lines = append(lines, m.ofPart(p)...)
	}
	if m.More > 0 {
		lines = append(lines, fmt.Sprintf("- and %d more", m.More))
	}
	if len(m.Mended) > 0 {
		lines = append(lines, "Right again meanwhile: "+some(m.Mended)+".")
	}
	for _, f := range m.Sites {
		lines = append(lines, "")
		lines = append(lines, f.lines(m.At)...)
	}
	if rest := sites - len(m.Sites); rest > 0 && len(m.Sites) > 0 {
		lines = append(lines, "", fmt.Sprintf("and %d more sites", rest))
	}
	if m.Link != "" {
		lines = append(lines, "", m.Link)
	}
	return strings.Join(lines, "\n")
}

func (m *Message) ofPart(p Affected) []string {
	text := fmt.Sprintf("- %s (since %s)", p.said(), stamp(p.Since))
	switch {
	case m.State == Told:
		text = fmt.Sprintf("- %s  %s", stamp(p.Since), p.said())
	case !p.Open():
		text = fmt.Sprintf("- %s: over at %s, after %s", p.Object, stamp(p.Ended), roughly(p.Ended.Sub(p.Since)))
	}
	lines := []string{text}
	if m.State == Over {
		return lines
	}
	for _, l := range p.Lines {
		lines = append(lines, "    "+l)
	}
	if p.Hint != "" {
		lines = append(lines, "    To do: "+p.Hint)
	}
	return lines
}

// lines are what is known of a site.
func (f Facts) lines(now time.Time) (all []string) {
	all = append(all, fmt.Sprintf("Site %s: %d of %d targets serve what they should.", f.Site, f.InStep, f.Targets))
	switch {
	case f.Until.IsZero():
		all = append(all, "  No certificate is served yet.")
	case !now.Before(f.Until):
		all = append(all, fmt.Sprintf("  What is served EXPIRED at %s, %s ago.", stamp(f.Until), roughly(now.Sub(f.Until))))
	default:
		all = append(all, fmt.Sprintf("  What is served (%s) is valid until %s: %s left.", farm.Short(f.Leaf), stamp(f.Until), roughly(f.Until.Sub(now))))
	}
	switch {
	case f.Next != "" && !f.NextAt.IsZero():
		all = append(all, fmt.Sprintf("  Next, by itself at %s: %s", stamp(f.NextAt), f.Next))
	case f.Next != "":
		all = append(all, "  Next: "+f.Next)
	}
	if f.Do != "" {
		all = append(all, "  To look or help: "+f.Do)
	}
	return all
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// roughly is a length of time as one would say it.
func roughly(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day:
		return fmt.Sprintf("%d days", d/day)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", d/time.Minute)
	}
	return fmt.Sprintf("%d seconds", d/time.Second)
}

// Trial is what a receiver is sent when a person tries it.
func Trial(farmName, receiver, by, id, dashboard string, now time.Time) Message {
	m := Message{
		ID: id, Notice: id, Farm: farmName, Receiver: receiver, State: Testing, Severity: farm.ForInfo, Cause: "test", At: now, Began: now,
		Title: fmt.Sprintf("[TEST] %s: %s tries the receiver %s", farmName, by, receiver),
	}
	m.Text = m.Title + "\n\nNothing is wrong. Whoever reads this is told what farm.yaml routes here."
	if dashboard != "" {
		m.Link = dashboard + "/farms/" + url.PathEscape(farmName) + "/"
		m.Text += "\n\n" + m.Link
	}
	return m
}
