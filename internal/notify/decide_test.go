package notify

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/certfarm/certfarm/internal/farm"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// rules has somebody who is paged and somebody who looks in the day, but not at night.
func rules() farm.Notifications {
	return farm.Notifications{
		URL: "https://certfarm.example.com", Wait: 30 * time.Second, Again: 5 * time.Minute,
		Receivers: []farm.Receiver{{Name: "oncall", Kind: "pagerduty"}, {Name: "team", Kind: "slack"}},
		Routes: []farm.Route{
			{To: []string{"oncall"}, Severity: farm.ForPage},
			{To: []string{"team"}, Severity: farm.ForTicket, Quiet: []farm.Window{{From: 22 * time.Hour, To: 6 * time.Hour, Zone: "UTC"}}},
		},
	}
}

// A desk is what the jobs remember, in a test.
type desk struct {
	rules   farm.Notifications
	facts   map[string]Facts
	notices []Notice
	sent    []Message
	now     time.Time
	events  int
	wakes   time.Time
}

func newDesk() *desk { return &desk{rules: rules(), now: noon} }

func (d *desk) event(e farm.Event) {
	d.events++
	e.ID, e.Farm, e.At = fmt.Sprintf("ev%d", d.events), "shop", d.now
	d.notices = Take(d.notices, e, nil, d.rules)
	d.decide()
}

func (d *desk) decide() {
	var kept []Notice
	d.wakes = time.Time{}
	for _, n := range d.notices {
		got := Decide(n, d.rules, d.facts, d.now)
		d.sent = append(d.sent, got.Messages...)
		if !got.Done {
			kept = append(kept, got.Notice)
		}
		if !got.Again.IsZero() && (d.wakes.IsZero() || got.Again.Before(d.wakes)) {
			d.wakes = got.Again
		}
	}
	d.notices = kept
}

// after lets time pass, and decides whenever that was asked for.
func (d *desk) after(t time.Duration) {
	until := d.now.Add(t)
	for !d.wakes.IsZero() && !d.wakes.After(until) {
		if d.wakes.After(d.now) {
			d.now = d.wakes
		}
		d.decide()
	}
	d.now = until
}

func (d *desk) titles() (all []string) {
	for _, m := range d.sent {
		all = append(all, m.Receiver+" "+m.Title)
	}
	return all
}

func down(node string) farm.Event {
	return farm.Event{Kind: "target.down", Level: farm.Warn, Site: "www", Node: node, Target: "www/nginx@" + node, Text: "www/nginx@" + node + " cannot be reached and serves nothing"}
}

func up(node string) farm.Event {
	return farm.Event{Kind: "target.up", Level: farm.Info, Site: "www", Node: node, Target: "www/nginx@" + node, Text: "www/nginx@" + node + " answers again"}
}

// A node fails: one message. More fail: the same notice. All are healed: it is over.
func TestStory(t *testing.T) {
	d := newDesk()
	d.facts = map[string]Facts{"www": {
		Site: "www", Leaf: strings.Repeat("ab", 32), From: noon.AddDate(0, 0, -30), Until: noon.AddDate(0, 0, 60), Targets: 4, InStep: 2,
		Next: "they are brought up to date when they answer", NextAt: noon.Add(time.Hour), Do: "certfarm describe site www",
	}}
	d.event(down("web-1"))
	d.after(10 * time.Second)
	d.event(down("web-2"))
	if len(d.sent) > 0 {
		t.Fatalf("it is waited for more: %q", d.titles())
	}
	d.after(time.Minute)
	d.event(down("web-3"))
	d.after(2 * time.Minute)
	if got, want := d.titles(), []string{"team [TICKET] shop: 2 targets cannot be reached on web-1, web-2 (www)"}; !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	d.after(5 * time.Minute)
	d.event(up("web-1"))
	d.event(up("web-2"))
	d.event(up("web-3"))
	d.after(time.Hour)
	want := []string{
		"team [TICKET] shop: 2 targets cannot be reached on web-1, web-2 (www)",
		"team [TICKET] shop: 3 targets cannot be reached on web-1, web-2, web-3 (www)",
		"team [OVER] shop: 3 targets cannot be reached on web-1, web-2, web-3 (www)",
	}
	if got := d.titles(); !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	for _, m := range d.sent {
		if m.Notice != d.sent[0].Notice {
			t.Errorf("%s is of another notice", m.ID)
		}
	}
	for _, says := range []string{
		"web-1 cannot be reached", "2 of 4 targets serve what they should", "valid until 2027-01-22 12:00 UTC: 59 days left",
		"Next, by itself at 2026-11-23 13:00 UTC: they are brought", "certfarm describe site www", "https://certfarm.example.com/farms/shop/sites/www",
	} {
		if !strings.Contains(d.sent[0].Text, says) {
			t.Errorf("the message does not say %q:\n%s", says, d.sent[0].Text)
		}
	}
	if len(d.notices) > 0 {
		t.Errorf("%d notices are remembered for ever", len(d.notices))
	}
}

// What asks for somebody now wakes them, in quiet hours, too; so does a ticket of a
// certificate that is about to expire. The rest waits for the morning.
func TestQuietHoursAreNotForPages(t *testing.T) {
	d := newDesk()
	d.now = noon.Add(12 * time.Hour)
	d.event(down("web-1"))
	d.after(time.Minute)
	d.event(farm.Event{Kind: "order.failed", Level: farm.Alarm, Site: "www", Text: "order failed"})
	d.after(time.Minute)
	if got := d.titles(); len(got) != 2 || !strings.HasPrefix(got[0], "oncall [PAGE]") || !strings.HasPrefix(got[1], "team [PAGE]") {
		t.Fatalf("at night: %q", got)
	}
	d.after(7 * time.Hour)
	if got := d.titles(); len(got) != 3 || !strings.HasPrefix(got[2], "team [TICKET]") || d.sent[2].At.Hour() != 6 {
		t.Fatalf("in the morning: %q", got)
	}

	d = newDesk()
	d.now = noon.Add(12 * time.Hour)
	d.facts = map[string]Facts{"www": {Site: "www", From: noon.AddDate(0, 0, -89), Until: noon.AddDate(0, 0, 1)}}
	d.event(down("web-1"))
	d.after(time.Minute)
	if got := d.titles(); len(got) != 2 {
		t.Fatalf("with little life left: %q", got)
	}
}

// A rollout that goes back is one message, with what led there.
func TestARolloutIsOneMessage(t *testing.T) {
	d := newDesk()
	d.rules.Routes[1].Severity = farm.ForInfo
	roll := func(kind string, level farm.Level, text string) farm.Event {
		return farm.Event{Kind: kind, Level: level, Site: "www", Rollout: "ro1", Node: "web-1", Text: text}
	}
	d.event(roll("rollout.started", farm.Info, "begins"))
	d.event(roll("step.failed", farm.Warn, "web-1: version fault"))
	d.event(roll("rollout.back", farm.Alarm, "going back"))
	d.event(roll("step.restored", farm.Info, "web-1 is restored"))
	d.event(roll("rollout.restored", farm.Alarm, "restored: wrong chain"))
	d.after(time.Minute)
	if got := d.titles(); len(got) != 2 {
		t.Fatalf("got %q", got)
	}
	for _, says := range []string{"restored: wrong chain", "version fault", "web-1 is restored"} {
		if !strings.Contains(d.sent[1].Text, says) {
			t.Errorf("the message does not say %q:\n%s", says, d.sent[1].Text)
		}
	}
	d.event(roll("rollout.done", farm.Info, "done"))
	d.after(time.Minute)
	if got := d.sent[2:]; len(got) != 3 || got[0].State != Over || got[1].State != Over && got[1].State != Told {
		t.Errorf("got %q", d.titles())
	}
}

func TestRoutes(t *testing.T) {
	p := Affected{Kind: "order.failed", Site: "www@web-1", Tags: []string{"prod", "eu"}}
	for want, r := range map[bool][]farm.Route{
		true: {
			{}, {Severity: farm.ForTicket}, {Sites: []string{"www"}}, {Sites: []string{"www@web-1"}}, {Tags: []string{"us", "eu"}},
			{Events: []string{"order"}}, {Events: []string{"rollout", "order.failed"}},
		},
		false: {
			{Severity: farm.ForPage}, {Sites: []string{"ww"}}, {Tags: []string{"us"}}, {Events: []string{"ord"}}, {Events: []string{"order.fail"}},
			{Sites: []string{"www"}, Tags: []string{"us"}},
		},
	} {
		for _, r := range r {
			if got := matches(r, p, farm.ForTicket); got != want {
				t.Errorf("%+v: %v", r, got)
			}
		}
	}
}

// A receiver is not told that it does not hear: that would begin without end.
func TestNobodyIsToldOfThemselves(t *testing.T) {
	d := newDesk()
	d.rules.Routes[0].Severity = farm.ForTicket
	d.event(farm.Event{Kind: Failing, Level: farm.Warn, About: "team", Text: "team does not hear"})
	d.after(time.Hour)
	if got := d.titles(); len(got) != 1 || !strings.HasPrefix(got[0], "oncall") {
		t.Errorf("got %q", got)
	}
}

// A node that is away serves nothing, too: that is one thing, in whatever order it is
// noticed. What it serves when it is back is another.
func TestWhatIsAwayIsToldOnce(t *testing.T) {
	drift := down("web-1")
	drift.Kind, drift.Text = "target.drift", "serves nothing"
	for _, both := range [][]farm.Event{{down("web-1"), drift}, {drift, down("web-1")}} {
		d := newDesk()
		d.event(both[0])
		d.event(both[1])
		d.after(time.Minute)
		if got := d.titles(); len(got) != 1 || !strings.Contains(got[0], "cannot be reached") {
			t.Fatalf("got %q", got)
		}
		d.event(up("web-1"))
		drift.Text = "serves an expired certificate"
		d.event(drift)
		d.after(time.Minute)
		if got := d.titles(); len(got) != 3 || !strings.Contains(got[2], "serves something else") && !strings.Contains(got[1], "serves something else") {
			t.Fatalf("got %q", got)
		}
	}
}

// A storm costs no more than a squall, and is over when it is over.
func TestStorm(t *testing.T) {
	d := newDesk()
	for i := range 3 * maxParts {
		e := down(fmt.Sprintf("web-%d", i))
		e.ID, e.Farm, e.At = fmt.Sprint(i), "shop", d.now
		d.notices = Take(d.notices, e, nil, d.rules)
	}
	d.decide()
	d.after(time.Minute)
	if len(d.sent) != 3 || len(d.sent[0].Text) > 8<<10 {
		t.Errorf("%d messages of %d bytes", len(d.sent), len(d.sent[0].Text))
	}
	for i := range 3 * maxParts {
		e := up(fmt.Sprintf("web-%d", i))
		e.At = d.now
		d.notices = Take(d.notices, e, nil, d.rules)
	}
	d.decide()
	d.after(time.Hour)
	if len(d.sent) != 6 || len(d.notices) > 0 {
		t.Errorf("%d messages, %d notices left", len(d.sent), len(d.notices))
	}
}

// Whatever happens: who is told that something is wrong is told when it is over, once,
// and nobody else is; between two messages of a notice is the time that was asked for,
// unless it became worse; nobody is told twice of the same; in the end nothing is
// remembered.
func TestWhateverHappens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDesk()
		d.now = noon.Add(time.Duration(rapid.IntRange(0, 23).Draw(t, "hour")) * time.Hour)
		open := map[string]farm.Event{}
		for range rapid.IntRange(1, 40).Draw(t, "events") {
			node := fmt.Sprintf("web-%d", rapid.IntRange(1, 4).Draw(t, "node"))
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0:
				d.event(down(node))
				open[node] = up(node)
			case 1:
				e := down(node)
				e.Level = farm.Alarm
				d.event(e)
				open[node] = up(node)
			case 2:
				d.event(up(node))
				delete(open, node)
			case 3:
				d.event(farm.Event{Kind: "leaf.not-revoked", Level: farm.Alarm, Site: "www", Text: "it is not revoked"})
			case 4:
				d.event(farm.Event{Kind: "order.failed", Level: farm.Alarm, Site: node, Text: "order failed"})
				open["order "+node] = farm.Event{Kind: "version.issued", Site: node, Text: "issued"}
			}
			d.after(time.Duration(rapid.IntRange(0, 600).Draw(t, "seconds")) * time.Second)
		}
		for _, name := range slices.Sorted(maps.Keys(open)) {
			d.event(open[name])
		}
		d.after(24 * time.Hour)
		if len(d.notices) > 0 {
			t.Fatalf("still remembered: %+v", d.notices)
		}
		judge(t, d.sent, d.rules)
	})
}

func judge(t *rapid.T, sent []Message, r farm.Notifications) {
	type line struct{ notice, receiver string }
	last, ids := map[line]Message{}, map[string]bool{}
	for _, m := range sent {
		at := line{m.Notice, m.Receiver}
		was, before := last[at]
		last[at] = m
		switch {
		case ids[m.ID]:
			t.Fatalf("%s is sent twice", m.ID)
		case m.State == Over && (!before || was.State == Over):
			t.Fatalf("%s tells the end of what was not told", m.ID)
		case m.State == Began && before && was.State != Over:
			t.Fatalf("%s begins what has begun", m.ID)
		case m.State == Grew && !was.Severity.Below(m.Severity) && m.At.Sub(was.At) < r.Again:
			t.Fatalf("%s comes %s after the one before", m.ID, m.At.Sub(was.At))
		case m.Receiver == "oncall" && m.Severity != farm.ForPage:
			t.Fatalf("%s is no page: %s", m.ID, m.Severity)
		case m.Severity != farm.ForPage && (m.At.Hour() >= 22 || m.At.Hour() < 6):
			t.Fatalf("%s wakes somebody at %s", m.ID, m.At)
		}
		ids[m.ID] = true
	}
	for at, m := range last {
		if m.State != Over && m.State != Told {
			t.Fatalf("%s was never told the end of %s", at.receiver, at.notice)
		}
	}
}
