package notify

import (
	"fmt"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// State is what a message says of its notice.
type State string

// The states.
const (
	Began   State = "began"   // something is wrong
	Grew    State = "grew"    // more of it, or worse
	Over    State = "over"    // nothing of it is wrong any more
	Told    State = "news"    // it happened, and asks for nothing more
	Testing State = "testing" // a person tries the receiver
)

// Facts is what is known of a site when people are told of it.
type Facts struct {
	Site    string    `json:"site"`
	Leaf    string    `json:"leaf,omitempty"`   // fingerprint of what its targets should serve
	From    time.Time `json:"from,omitzero"`    // since when that is valid
	Until   time.Time `json:"until,omitzero"`   // and until when: the earliest of what targets hold
	Targets int       `json:"targets"`          // how many it has
	InStep  int       `json:"in_step"`          // how many of them serve what they should
	Next    string    `json:"next,omitempty"`   // what happens next by itself
	NextAt  time.Time `json:"next_at,omitzero"` // when
	Do      string    `json:"do,omitempty"`     // the command by which a person helps
}

// pageBelow is the share of its life that a certificate has left below which what is
// wrong with its site wakes a person.
const pageBelow = 0.12

// pressing reports that so little life is left that it cannot wait for the day.
func (f Facts) pressing(now time.Time) bool {
	life := f.Until.Sub(f.From)
	return !f.From.IsZero() && life > 0 && float64(f.Until.Sub(now)) < pageBelow*float64(life)
}

// A Decision is what is to be sent for a notice now, what is remembered of it then, and
// when it is to be asked for again.
type Decision struct {
	Notice   Notice
	Messages []Message
	Done     bool      // nothing more can come of it: it may be forgotten
	Again    time.Time // zero: when an event comes
}

// Decide says who is to be told what of a notice. facts are those of the sites of its
// parts, as far as they are known.
func Decide(n Notice, rules farm.Notifications, facts map[string]Facts, now time.Time) Decision {
	d := Decision{Notice: n, Done: true}
	d.Notice.Told = map[string]Mark{}
	for name, m := range n.Told {
		if _, there := rules.Receiver(name); there {
			d.Notice.Told[name] = m
		}
	}
	for _, r := range rules.Receivers {
		v := n.seenBy(r.Name, rules, facts, now)
		if len(v.parts) == 0 {
			continue
		}
		d.tell(v, rules)
	}
	if ended := n.ended(); ended.IsZero() {
		d.Done = false
	} else if until := ended.Add(rules.Wait); now.Before(until) {
		d.Done = false
		d.wake(until)
	}
	return d
}

// wake asks for the notice again at a time.
func (d *Decision) wake(at time.Time) {
	if d.Again.IsZero() || at.Before(d.Again) {
		d.Again = at
	}
}

// A view is what one receiver is to know of a notice.
type view struct {
	Notice
	receiver string
	parts    []Affected    // that its routes let through
	open     []Affected    // those that are still so
	severity farm.Severity // the most of the open ones; of all if none is
	held     time.Time     // until when quiet hours hold back what is no page; zero: they do not
	facts    map[string]Facts
	now      time.Time
}

// seenBy is what a receiver is to know of a notice.
func (n Notice) seenBy(receiver string, rules farm.Notifications, facts map[string]Facts, now time.Time) view {
	v := view{Notice: n, receiver: receiver, facts: facts, now: now}
	was := n.Told[receiver]
	knows := was.Messages > 0 && !was.Over
	var first passage
	for _, p := range n.Parts {
		p = p.pressing(facts, now)
		w := letThrough(p, receiver, rules.Routes, now)
		first = first.or(w)
		known := knows && slices.Contains(was.Objects, p.Object) // whatever the routes say by now
		if (w.open || known) && !aboutItself(n.Cause, p, receiver) {
			v.parts = append(v.parts, p)
		}
	}
	if knows && len(v.parts) == 0 { // the end is told when all of it has ended
		v.parts = n.Parts
	}
	v.open = Notice{Parts: v.parts}.open()
	v.severity = worst(v.open)
	if len(v.open) == 0 {
		v.severity = worst(v.parts)
	}
	if v.severity.Below(farm.ForPage) {
		v.held = first.quiet
	}
	return v
}

// pressing is the part with the severity that it has while its site has little time left.
func (p Affected) pressing(facts map[string]Facts, now time.Time) Affected {
	if p.Open() && facts[p.Site].pressing(now) && !p.Severity.Below(farm.ForTicket) {
		p.Severity = farm.ForPage
	}
	return p
}

// A passage is whether routes lead a part to a receiver, and until when quiet hours hold
// it back on the way that is open first; zero: they do not.
type passage struct {
	open  bool
	quiet time.Time
}

// or is the passage that is open earlier.
func (a passage) or(b passage) passage {
	if !a.open || b.open && b.quiet.Before(a.quiet) {
		return b
	}
	return a
}

// letThrough finds the passage of a part.
func letThrough(p Affected, receiver string, routes []farm.Route, now time.Time) (w passage) {
	for _, r := range routes {
		if !slices.Contains(r.To, receiver) || !matches(r, p, p.Severity) {
			continue
		}
		one := passage{open: true}
		if end := farm.Closes(r.Quiet, now); end.After(now) {
			one.quiet = end
		}
		w = w.or(one)
	}
	return w
}

// aboutItself reports that a receiver would be told that it does not hear.
func aboutItself(cause string, p Affected, receiver string) bool {
	return cause == "receiver" && p.Object == receiver
}

func worst(parts []Affected) farm.Severity {
	s := farm.ForInfo
	for _, p := range parts {
		if s.Below(p.Severity) {
			s = p.Severity
		}
	}
	return s
}

// tell decides for one receiver.
func (d *Decision) tell(v view, rules farm.Notifications) {
	was := d.Notice.Told[v.receiver]
	state, at := v.due(was, rules)
	if state == "" {
		return
	}
	if v.held.After(at) {
		at = v.held
	}
	if v.now.Before(at) {
		d.Done = false
		d.wake(at)
		return
	}
	m := Mark{Messages: was.Messages + 1, At: v.now, Severity: v.severity, Over: state == Over || state == Told}
	for _, p := range v.open {
		m.Objects = append(m.Objects, p.Object)
	}
	if state == Told { // each is told once
		m.Objects = slices.Clone(was.Objects)
		for _, p := range v.fresh(was) {
			m.Objects = append(m.Objects, p.Object)
		}
	}
	d.Notice.Told[v.receiver] = m
	d.Messages = append(d.Messages, v.message(state, was, rules))
}

// due is what the receiver is to be told next, and from when on; nothing: it knows all.
func (v view) due(was Mark, rules farm.Notifications) (State, time.Time) {
	knows := was.Messages > 0 && !was.Over
	fresh := len(v.fresh(was)) > 0
	switch {
	case v.Cause == News && fresh:
		// It is waited for more as long as more comes, and not for ever.
		at := v.Grown.Add(rules.Wait)
		if last := v.Opened.Add(rules.Again); last.Before(at) {
			at = last
		}
		return Told, at
	case v.Cause == News:
		return "", time.Time{}
	case knows && len(v.open) == 0:
		return Over, v.lastEnd().Add(rules.Wait)
	case len(v.open) == 0:
		return "", time.Time{} // it was over before it was told
	case !knows:
		return Began, latest(was.At, v.since()).Add(rules.Wait)
	case was.Severity.Below(v.severity):
		return Grew, v.now
	case fresh:
		return Grew, was.At.Add(rules.Again)
	}
	return "", time.Time{}
}

// since is when the first of the open parts began.
func (v view) since() time.Time {
	return slices.MinFunc(v.open, func(a, b Affected) int { return a.Since.Compare(b.Since) }).Since
}

// lastEnd is when the last of the parts ended.
func (v view) lastEnd() time.Time {
	return slices.MaxFunc(v.parts, func(a, b Affected) int { return a.Ended.Compare(b.Ended) }).Ended
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// fresh are the parts that the receiver does not know: of the open ones, but for news.
func (v view) fresh(was Mark) (all []Affected) {
	among := v.open
	if v.Cause == News {
		among = v.parts
	}
	for _, p := range among {
		if !slices.Contains(was.Objects, p.Object) {
			all = append(all, p)
		}
	}
	return all
}

// message is what is said now. Its id is the same however often it is decided.
func (v view) message(state State, was Mark, rules farm.Notifications) Message {
	m := Message{
		ID: fmt.Sprintf("%s-%s-%d", v.ID, v.receiver, was.Messages+1), Notice: v.ID, Farm: v.Farm, Receiver: v.receiver,
		State: state, Severity: v.severity, Cause: v.Cause, At: v.now, Began: v.Opened, More: v.More,
	}
	switch state {
	case Told:
		m.Parts = v.fresh(was)
	case Over:
		m.Parts = v.parts
	default:
		m.Parts = v.open
		for _, p := range v.parts {
			if !p.Open() && slices.Contains(was.Objects, p.Object) {
				m.Mended = append(m.Mended, p.Object)
			}
		}
	}
	m.compose(v.facts, rules.URL)
	return m
}
