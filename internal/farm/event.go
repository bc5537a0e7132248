package farm

import "time"

// An Event is one line of the journal. The dashboard, the notifier and the
// audit read only this.
type Event struct {
	ID      string
	Farm    string
	At      time.Time
	Kind    string // "rollout.started", "step.verified", "order.failed" …
	Level   Level  // what it asks of a person
	Site    string `json:",omitempty"`
	Node    string `json:",omitempty"`
	Target  string `json:",omitempty"`
	Rollout string `json:",omitempty"`
	Order   string `json:",omitempty"`
	Version string `json:",omitempty"`
	Actor   string `json:",omitempty"` // a person or "certfarm"
	Text    string // one sentence for people
	Hint    string `json:",omitempty"` // what to do, where there is something
}

// Level is what an event asks of a person.
type Level string

// The levels.
const (
	Info  Level = "info"
	Warn  Level = "warning" // look at it in the day
	Alarm Level = "alarm"   // someone must look now
)
