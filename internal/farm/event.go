package farm

import "time"

// An Event is one line of the journal. The dashboard, the notifier and the
// audit read only this.
type Event struct {
	ID      string    `json:"id,omitzero"`
	Farm    string    `json:"farm,omitzero"`
	At      time.Time `json:"at,omitzero"`
	Kind    string    `json:"kind,omitzero"`  // "rollout.started", "step.verified", "order.failed" …
	Level   Level     `json:"level,omitzero"` // what it asks of a person
	Site    string    `json:"site,omitzero"`
	Node    string    `json:"node,omitzero"`
	Target  string    `json:"target,omitzero"`
	Rollout string    `json:"rollout,omitzero"`
	Order   string    `json:"order,omitzero"`
	Version string    `json:"version,omitzero"`
	About   string    `json:"about,omitzero"` // what it concerns beside these: an address, a name in DNS, an issuer, a receiver
	Actor   string    `json:"actor,omitzero"` // a person or "certfarm"
	Text    string    `json:"text,omitzero"`  // one sentence for people
	Hint    string    `json:"hint,omitzero"`  // what to do, where there is something
}

// Level is what an event asks of a person.
type Level string

// The levels.
const (
	Info  Level = "info"
	Warn  Level = "warning" // look at it in the day
	Alarm Level = "alarm"   // someone must look now
)
