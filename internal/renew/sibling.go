package renew

import (
	"cmp"
	"fmt"
	"time"
)

// A SiblingState is what a member of a site with strategy per-node does, as far as
// others wait for it.
type SiblingState string

// The states of a sibling.
const (
	SiblingDone    SiblingState = "done"    // its targets are seen with its newest version, and nothing is due
	SiblingWaits   SiblingState = "waits"   // something is due, and nothing is under way
	SiblingRuns    SiblingState = "runs"    // an order or a rollout of it is under way
	SiblingFailed  SiblingState = "failed"  // its last order or rollout did not do what it was to
	SiblingAbsent  SiblingState = "absent"  // its node is silent, or held by a person
	SiblingStopped SiblingState = "stopped" // a person aborted its last rollout
)

// A Sibling is a member of a site, by its place among the others.
type Sibling struct {
	Name   string
	Wave   int
	State  SiblingState
	Why    string    // it failed, or is absent
	Issued time.Time // when it got its newest version; zero: it has none
}

// A Member asks whether it is its turn.
type Member struct {
	Sibling
	Parallel         int  // that may run at one time, ≥ 1
	Failures, Absent int  // of those before it
	Asked            bool // by a person: it need not wait for those before it to be renewed, too
	Forward          bool // its key is known to others: what failed before it is no reason to stay
}

// A Wait says why a member waits for others; the zero one: it does not.
type Wait struct {
	Why    string
	Failed bool     // somebody is to look: one that goes first failed
	Ahead  []string // that are to be renewed now, since one that comes after them is due
}

// Siblings decides whether it is a member's turn to order, or to be brought what it
// ordered: those of lower waves have a version of this cycle in place, or are forgiven
// by the policy; not more run at one time than may; and not more of those before it
// failed than may. Who failed waits for none that comes after it, so that two that
// fail do not wait for each other. Others are in the order in which they go.
func Siblings(me Member, others []Sibling) (h Wait) {
	failed, absent, runs := 0, 0, 0
	for _, o := range others {
		if o.Name == me.Name {
			continue
		}
		if o.State == SiblingRuns {
			runs++
		}
		if first := o.Wave < me.Wave; first || o.Wave == me.Wave && o.Name < me.Name {
			failed, absent = count(o, failed, absent)
			h = h.after(me, o, first, failed, absent)
		}
	}
	if h.Why == "" && runs >= me.Parallel {
		h.Why = fmt.Sprintf("%d at one time are under way already (max_parallel)", runs)
	}
	return h
}

// count adds one to those that failed, or are absent.
func count(o Sibling, failed, absent int) (int, int) {
	switch o.State {
	case SiblingFailed, SiblingStopped:
		failed++
	case SiblingAbsent:
		absent++
	}
	return failed, absent
}

// after adds to a wait what one that goes before says to it. That somebody failed is
// said before all else.
func (h Wait) after(me Member, o Sibling, first bool, failed, absent int) Wait {
	switch o.State {
	case SiblingFailed, SiblingStopped:
		return h.over(me, failed > me.Failures, o.Name+" goes first, and failed: "+o.Why)
	case SiblingAbsent:
		return h.over(me, absent > me.Absent, o.Name+" goes first, and is absent: "+o.Why)
	}
	switch older := !o.Issued.After(me.Issued); {
	case !first:
	case o.State != SiblingDone:
		h.Why = cmp.Or(h.Why, o.Name+" goes first, and is not there yet")
	case older && !me.Asked && !me.Issued.IsZero():
		h.Ahead = append(h.Ahead, o.Name)
		h.Why = cmp.Or(h.Why, o.Name+" goes first, and is renewed now")
	}
	return h
}

// over adds that more failed, or are absent, than may.
func (h Wait) over(me Member, over bool, why string) Wait {
	if over && !me.Forward && !h.Failed {
		h.Why, h.Failed = why, true
	}
	return h
}

// Interval is from one renewal to the next of certificates of a lifetime, where
// nothing goes wrong and the CA suggests nothing.
func Interval(life time.Duration) time.Duration {
	left, _ := left(life)
	return life - left
}
