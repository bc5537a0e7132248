package notify

import (
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// News is the cause of what happened and asks for nothing: it is over as it begins.
const News = "news"

// The most that a notice keeps, so that a storm costs no more than a squall.
const (
	maxParts = 500
	maxLines = 12
)

// A Notice is one cause, and all the things that it befell within a short while.
type Notice struct {
	ID     string          `json:"id"`
	Farm   string          `json:"farm"`
	Cause  string          `json:"cause"`
	Opened time.Time       `json:"opened"`
	Grown  time.Time       `json:"grown"` // when the newest part came
	Parts  []Affected      `json:"parts,omitempty"`
	More   int             `json:"more,omitzero"` // parts beyond those that are kept
	Told   map[string]Mark `json:"told,omitempty"`
}

// An Affected is one thing that a cause befell: a part of its notice.
type Affected struct {
	Object   string        `json:"object"` // tells the parts of a cause apart
	Kind     string        `json:"kind"`   // of the event that began it
	Severity farm.Severity `json:"severity"`
	Site     string        `json:"site,omitempty"`
	Tags     []string      `json:"tags,omitempty"` // of the site
	Node     string        `json:"node,omitempty"`
	Target   string        `json:"target,omitempty"`
	About    string        `json:"about,omitempty"`
	Rollout  string        `json:"rollout,omitempty"`
	Text     string        `json:"text"`
	Hint     string        `json:"hint,omitempty"`
	Lines    []string      `json:"lines,omitempty"` // what else happened on the way
	Since    time.Time     `json:"since"`
	Ended    time.Time     `json:"ended,omitzero"` // zero: it is still so
}

// Open reports that it is still so.
func (p Affected) Open() bool { return p.Ended.IsZero() }

// A Mark is what a receiver was told of a notice.
type Mark struct {
	Messages int           `json:"messages"`          // how many
	At       time.Time     `json:"at"`                // when last
	Severity farm.Severity `json:"severity"`          // the most that was said
	Objects  []string      `json:"objects,omitempty"` // that it knows to be wrong
	Over     bool          `json:"over"`              // it knows that all is over
}

// open are the parts that are still so.
func (n Notice) open() (all []Affected) {
	for _, p := range n.Parts {
		if p.Open() {
			all = append(all, p)
		}
	}
	return all
}

// ended is when the last part ended; zero: one is open.
func (n Notice) ended() (at time.Time) {
	for _, p := range n.Parts {
		if p.Open() {
			return time.Time{}
		}
		if p.Ended.After(at) {
			at = p.Ended
		}
	}
	return at
}

// Take folds an event into what is remembered. tags are those of the event's site. What
// nobody wants to know is not remembered.
func Take(all []Notice, e farm.Event, tags []string, rules farm.Notifications) []Notice {
	c := causeOf(e)
	p := Affected{
		Kind: e.Kind, Severity: e.Level.Severity(), Site: e.Site, Tags: tags, Node: e.Node, Target: e.Target, About: e.About,
		Rollout: e.Rollout, Text: e.Text, Hint: e.Hint, Since: e.At,
	}
	switch {
	case c.over:
		end(all, c.name, c.of(e), e.At)
		return takeNews(all, p, e, rules)
	case c.name == "":
		return takeNews(all, p, e, rules)
	}
	p.Object = c.of(e)
	if c.name == "drift" && isAway(all, p) {
		return all // a target that is away serves nothing: it is told once
	}
	if c.name == "reach" {
		all = forgetDrift(all, p.Object)
	}
	for i := range all {
		if all[i].Cause == c.name && all[i].renew(p) {
			return all
		}
	}
	p.Lines, all = before(all, p.Rollout)
	return p.into(all, e, c.name, rules.Again)
}

// isAway reports that people are told already that a target cannot be reached.
func isAway(all []Notice, p Affected) bool {
	return slices.ContainsFunc(all, func(n Notice) bool {
		return n.Cause == "reach" && slices.ContainsFunc(n.open(), func(o Affected) bool { return o.Object == p.Object })
	})
}

// forgetDrift takes out, where nobody was told of it yet, that a target serves nothing: it
// cannot be reached.
func forgetDrift(all []Notice, target string) []Notice {
	return without(all, func(n Notice, p Affected) bool { return n.Cause == "drift" && len(n.Told) == 0 && p.Object == target })
}

// without are the notices without some of their parts; a notice without any is none.
func without(all []Notice, drop func(Notice, Affected) bool) (rest []Notice) {
	for _, n := range all {
		n.Parts = slices.DeleteFunc(slices.Clone(n.Parts), func(p Affected) bool { return drop(n, p) })
		if len(n.Parts) > 0 {
			rest = append(rest, n)
		}
	}
	return rest
}

// end notes that a cause is over for an object.
func end(all []Notice, name, object string, at time.Time) {
	for i := range all {
		for j := range all[i].Parts {
			if p := &all[i].Parts[j]; all[i].Cause == name && p.Object == object && p.Open() {
				p.Ended = at
			}
		}
	}
}

// renew says of a part that is there what is new of it: it is worse, or wrong again.
func (n *Notice) renew(p Affected) bool {
	for i := range n.Parts {
		was := &n.Parts[i]
		if was.Object != p.Object {
			continue
		}
		if was.Severity.Below(p.Severity) { // it never becomes less: who was woken is told the end
			was.Severity = p.Severity
		}
		was.Text, was.Hint, was.Kind, was.Ended, was.Rollout = p.Text, p.Hint, p.Kind, time.Time{}, p.Rollout
		return true
	}
	return false
}

// into puts a part into the notice of its cause that grew a short while ago, or into a
// new one.
func (p Affected) into(all []Notice, e farm.Event, name string, while time.Duration) []Notice {
	for i := range all {
		n := &all[i]
		if n.Cause != name || e.At.Sub(n.Grown) > while || n.over() {
			continue
		}
		n.Grown = e.At
		if len(n.Parts) >= maxParts && name == News {
			n.More++
			return all
		}
		if len(n.Parts) >= maxParts {
			continue // what is wrong is never forgotten: the rest is another notice
		}
		n.Parts = append(n.Parts, p)
		return all
	}
	return append(all, Notice{ID: name + "-" + e.ID, Farm: e.Farm, Cause: name, Opened: e.At, Grown: e.At, Parts: []Affected{p}})
}

// over reports that somebody was told that all of it is over: what comes then is new.
func (n Notice) over() bool {
	for _, m := range n.Told {
		if m.Over {
			return true
		}
	}
	return false
}

// takeNews keeps what happened and asks for nothing, where somebody wants to know it: as
// a line of the rollout that went back, or by itself.
func takeNews(all []Notice, p Affected, e farm.Event, rules farm.Notifications) []Notice {
	for i := range all {
		for j := range all[i].Parts {
			w := &all[i].Parts[j]
			if all[i].Cause == "rollout" && w.Open() && e.Rollout != "" && w.Rollout == e.Rollout {
				w.Lines = line(w.Lines, e.Text)
				return all
			}
		}
	}
	wanted := slices.ContainsFunc(rules.Routes, func(r farm.Route) bool { return matches(r, p, p.Severity) })
	if !wanted {
		return all
	}
	p.Object, p.Ended = e.ID, e.At
	return p.into(all, e, News, rules.Wait)
}

// before takes what was news of a rollout so far, and not told yet, out of the notices:
// they are lines of the part that says that it went back.
func before(all []Notice, rollout string) (lines []string, rest []Notice) {
	rest = without(all, func(n Notice, p Affected) bool {
		of := n.Cause == News && len(n.Told) == 0 && rollout != "" && p.Rollout == rollout
		if of {
			lines = line(lines, p.Text)
		}
		return of
	})
	return lines, rest
}

func line(lines []string, text string) []string {
	if len(lines) >= maxLines {
		lines = lines[1:]
	}
	return append(lines, text)
}

// matches reports that a route wants a part of a severity.
func matches(r farm.Route, p Affected, s farm.Severity) bool {
	site, _, _ := strings.Cut(p.Site, "@") // a node's part of a per-node site is the site's
	if s.Below(r.Severity) {
		return false
	}
	if len(r.Sites) > 0 && !slices.Contains(r.Sites, site) && !slices.Contains(r.Sites, p.Site) {
		return false
	}
	if len(r.Tags) > 0 && !slices.ContainsFunc(r.Tags, func(t string) bool { return slices.Contains(p.Tags, t) }) {
		return false
	}
	return len(r.Events) == 0 || slices.ContainsFunc(r.Events, func(kind string) bool {
		return p.Kind == kind || strings.HasPrefix(p.Kind, strings.TrimSuffix(kind, ".")+".")
	})
}
