package fence

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"time"
)

// What is remembered is bounded: a caller must not fill the node.
const (
	maxLanes   = 256
	maxAnswers = 256
	maxPlaces  = 8192
)

// A Mark is the highest lease of a lane that was here.
type Mark struct {
	Epoch int64
	Nonce string
	Owner string `json:",omitempty"`
}

// An Answered call is done once.
type Answered struct {
	ID, Sum string
	Answer  json.RawMessage
}

// Memory is what a node remembers of the calls that it did.
type Memory struct {
	Lanes    map[string]Mark      `json:",omitempty"`
	Floor    int64                `json:",omitempty"` // the highest epoch of a lane that was forgotten: what is unknown must be above it
	Answers  []Answered           `json:",omitempty"` // the newest last
	Switches []time.Time          `json:",omitempty"` // activations of the last hour
	Backs    []time.Time          `json:",omitempty"` // ways back of the last hour
	Kept     map[string]time.Time `json:",omitempty"` // by place: NotBefore of the oldest leaf that was made live
}

// Answered is the answer to a call that was done; same is false where another call
// had its id.
func (m *Memory) Answered(id, sum string) (answer json.RawMessage, known, same bool) {
	for _, a := range m.Answers {
		if a.ID == id {
			return a.Answer, true, a.Sum == sum
		}
	}
	return nil, false, false
}

// Begin notes a call that was allowed, before anything is done: a process that dies
// in the middle has used its turn, and its epoch was seen.
func (m *Memory) Begin(a Ask, now time.Time) {
	if m.Lanes == nil {
		m.Lanes = map[string]Mark{}
	}
	m.Lanes[a.Lane] = Mark{a.Epoch, a.Nonce, a.Owner}
	for len(m.Lanes) > maxLanes {
		low := slices.MinFunc(slices.Sorted(maps.Keys(m.Lanes)), func(x, y string) int { return cmp.Compare(m.Lanes[x].Epoch, m.Lanes[y].Epoch) })
		m.Floor = max(m.Floor, m.Lanes[low].Epoch)
		delete(m.Lanes, low)
	}
	m.Switches, m.Backs = young(m.Switches, now), young(m.Backs, now)
	switch a.Act {
	case Switch:
		m.Switches = append(m.Switches, now)
	case Back:
		m.Backs = append(m.Backs, now)
	case Look, Put, Drop, Make, Lose:
	}
}

// End notes what came of it.
func (m *Memory) End(a Ask, answer json.RawMessage, done bool) {
	m.Answers = append(m.Answers, Answered{a.ID, a.Sum, answer})
	m.Answers = m.Answers[max(0, len(m.Answers)-maxAnswers):]
	if !done || (a.Act != Switch && a.Act != Back) {
		return
	}
	if m.Kept == nil {
		m.Kept = map[string]time.Time{}
	}
	for place, oldest := range a.Kept {
		if oldest.IsZero() {
			delete(m.Kept, place) // back to nothing
		} else if _, known := m.Kept[place]; known || len(m.Kept) < maxPlaces {
			m.Kept[place] = oldest
		}
	}
}

// young drops what is older than an hour.
func young(times []time.Time, now time.Time) []time.Time {
	return slices.DeleteFunc(times, func(t time.Time) bool { return now.Sub(t) >= time.Hour })
}
