package farm

import (
	"slices"
	"time"
)

// Notifications say who is told of what happens in a farm. The zero value: nobody, and
// the log alone has it.
type Notifications struct {
	URL       string        `json:"url,omitzero"`       // of the dashboard, for links; empty: there are none
	Wait      time.Duration `json:"wait,omitzero"`      // how long more of the same is waited for before people are told
	Again     time.Duration `json:"again,omitzero"`     // the least time between two messages of one notice
	Receivers []Receiver    `json:"receivers,omitzero"` // by name
	Routes    []Route       `json:"routes,omitzero"`
	Ping      *Ping         `json:"ping,omitzero"` // nil: nobody outside waits for a sign of life
}

// A Receiver is somebody who is told, and how: by a Kind, whose options and secrets
// mean something to it alone.
type Receiver struct {
	Name    string               `json:"name,omitzero"`
	Kind    string               `json:"kind,omitzero"`
	Options []byte               `json:"options,omitzero"` // JSON, checked by the kind
	Secrets map[string]SecretRef `json:"secrets,omitzero"` // by the kind's name for them
}

// A Route says what goes to some receivers. What a list names must match; an empty
// list matches all.
type Route struct {
	To       []string `json:"to,omitzero"`       // names of receivers
	Severity Severity `json:"severity,omitzero"` // the least
	Sites    []string `json:"sites,omitzero"`    // as in farm.yaml
	Tags     []string `json:"tags,omitzero"`     // of the site, one of them; what concerns no site has none
	Events   []string `json:"events,omitzero"`   // kinds of events, or their first words: "rollout", "order.failed"
	Quiet    []Window `json:"quiet,omitzero"`    // when only pages go out; the rest follows after it
}

// A Ping is a sign of life to somebody outside, who tells people when it stays away.
type Ping struct {
	URL          SecretRef     `json:"url,omitzero"`
	Every        time.Duration `json:"every"`
	AllowPrivate []string      `json:"allow_private,omitzero"` // networks that the URL may lie in although they are not public
}

// Severity is how loudly people are told.
type Severity string

// The severities, the least first.
const (
	ForInfo   Severity = "info"   // good to know
	ForTicket Severity = "ticket" // look at it in the day
	ForPage   Severity = "page"   // someone must look now, at night, too
)

// Severities lists them, the least first.
var Severities = []Severity{ForInfo, ForTicket, ForPage}

// Below reports that s is less than another severity.
func (s Severity) Below(o Severity) bool {
	return slices.Index(Severities, s) < slices.Index(Severities, o)
}

// Severity is how loudly people are told of an event of the level.
func (l Level) Severity() Severity {
	switch l {
	case Alarm:
		return ForPage
	case Warn:
		return ForTicket
	}
	return ForInfo
}

// Receiver returns the receiver of a name.
func (n Notifications) Receiver(name string) (Receiver, bool) {
	i := slices.IndexFunc(n.Receivers, func(r Receiver) bool { return r.Name == name })
	if i < 0 {
		return Receiver{}, false
	}
	return n.Receivers[i], true
}

// Hearing is how a receiver, or the place that is pinged, was reached lately.
type Hearing struct {
	Receiver string    `json:"receiver"`
	Heard    time.Time `json:"heard,omitzero" doc:"when it last took a message"`
	Failed   time.Time `json:"failed,omitzero" doc:"when it last did not"`
	Error    string    `json:"error,omitempty" doc:"why not; empty: it took the last one"`
	Tries    int       `json:"tries,omitzero" doc:"how often in a row it did not"`
	Next     time.Time `json:"next,omitzero" doc:"when it is tried again"`
	Lost     int       `json:"lost,omitzero" doc:"messages that were given up since it last heard"`
}
