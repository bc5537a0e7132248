// Package rollout decides what a rollout does next. It touches nothing: the
// rollout and the time go in, a decision comes out. Four pure functions are
// the whole of it:
//
//	Next(r, frozen, now)  what is to be done now, or until when to wait
//	Begin(r, d, now)      r with that in flight
//	Record(r, a, now)     r after an answer
//	Leave(r, target, why) r without a target that was taken out of farm.yaml
//
// What holds at all times: nothing goes live before everything is staged; a
// wave begins only when those before it are verified and soaked; at most
// MaxParallel reload groups are live and not yet verified; a step has at most
// one act in flight, and an answer to another one is ignored; every step that
// may have changed its target is verified, put back, or said to be stuck before
// the rollout ends; what serves somebody's valid certificate, and what is gone
// from farm.yaml, is not changed.
package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// A Decision is what a rollout wants now: acts to begin, or a time to wait for,
// or its end.
type Decision struct {
	Acts    []Act
	Back    string       // set: the rollout goes back from now on, and why
	Until   time.Time    // when to ask again; zero: after the next answer, or when a person acts
	Outcome farm.Outcome // set: the rollout ends so
	Why     string
}

// An Act is one verb on some targets.
type Act struct {
	Do      farm.Verb
	Targets []string
}

// Next says what r should do at the given time. Frozen stops all activations.
func Next(r farm.Rollout, frozen bool, now time.Time) Decision {
	if r.Outcome != farm.Running {
		return Decision{Outcome: r.Outcome, Why: r.Why}
	}
	v := look(r, now)
	if why := v.back(); why != "" {
		return v.retreat(why)
	}
	d := v.isolate()
	why := v.hopeless()
	if why == "" && !r.Superseded {
		return v.forward(d, frozen)
	}
	d.add(v.discard())
	d.add(v.verify(unsure))
	switch {
	case why != "":
		return v.end(d, farm.Halted, why)
	case slices.ContainsFunc(v.Steps, unsure):
		return d.orWait(v.nextTry(), "a newer version waits until what is live is verified")
	}
	return v.end(d, farm.Superseded, "a newer version takes over")
}

// Begin returns r with the decision's acts in flight.
func Begin(r farm.Rollout, d Decision, now time.Time) farm.Rollout {
	r = clone(r)
	for _, act := range d.Acts {
		for _, target := range act.Targets {
			s := find(r.Steps, target)
			if act.Do != s.Did {
				s.Tries, s.Failing = 0, time.Time{}
			}
			s.Doing, s.Attempt, s.Again = act.Do, s.Attempt+1, time.Time{}
			s.Touched = s.Touched || act.Do == farm.DoActivate
		}
	}
	r.Back = cmp.Or(r.Back, d.Back)
	if d.Outcome != farm.Running {
		r.Outcome, r.Why, r.Ended = d.Outcome, d.Why, now
	}
	return r
}

// A view is a rollout with what Next needs to know of it as a whole.
type view struct {
	farm.Rollout
	now     time.Time
	urgency urgency
}

func look(r farm.Rollout, now time.Time) view {
	return view{Rollout: r, now: now, urgency: urgencyOf(r, now)}
}

// forward is the way on: stage everything, then wave by wave.
func (v view) forward(d Decision, frozen bool) Decision {
	if v.Paused {
		d.add(v.verify(active))
		return d.orWait(v.nextTry(), "paused")
	}
	if due, waiting := v.due(planned); waiting {
		d.addAct(farm.DoStage, due)
		return d.orWait(v.nextTry(), "nothing goes live before everything is staged")
	}
	d.add(v.verify(active))
	for i := range v.Waves {
		if busy := v.wave(&d, i, frozen); busy {
			return d
		}
	}
	return v.finish(d)
}

// finish ends a rollout that has nothing more to do on the way forward.
func (v view) finish(d Decision) Decision {
	count := map[farm.State]int{}
	for _, s := range v.Steps {
		count[s.State]++
	}
	verified, gone := count[farm.Verified], count[farm.Gone]
	others, kept := len(v.Steps)-verified-gone, gone+count[farm.Left]
	switch {
	case kept > 0 && kept+count[farm.Absent] == len(v.Steps):
		return v.end(d, farm.DonePartly, "no target was changed: "+v.blame())
	case verified == 0 && !slices.ContainsFunc(v.Steps, left):
		return v.end(d, farm.RolledBack, "no target could be brought up to date: "+v.blame())
	case verified == 0 && v.wayBack():
		return v.end(d, farm.RolledBackPart, "no target could be brought up to date: "+v.blame())
	case verified == 0:
		return v.end(d, farm.Halted, "no target could be brought up to date, and there is no way back: "+v.blame())
	case others > 0:
		return v.end(d, farm.DonePartly, fmt.Sprintf("%d of %d targets verified; %s", verified, len(v.Steps), v.blame()))
	case gone > 0:
		return v.end(d, farm.Done, "every target that farm.yaml still has is verified; "+v.blame())
	}
	return v.end(d, farm.Done, "every target is verified")
}

// end finishes with the outcome once nothing is in flight or left to undo.
func (v view) end(d Decision, o farm.Outcome, why string) Decision {
	if len(d.Acts) > 0 || slices.ContainsFunc(v.Steps, v.unsettled) {
		return d.orWait(v.nextTry(), why)
	}
	return Decision{Outcome: o, Why: why, Back: d.Back}
}

// unsettled reports that something must still come of the step before the
// rollout may end, whichever way it goes.
func (v view) unsettled(s farm.Step) bool {
	return s.Doing != "" || s.State == farm.Staged || s.State == farm.Active || s.State == farm.Failed && v.undo(s) != ""
}

// unsure reports that the step's target may be live and nobody has seen what it
// serves: it was activated and not verified, or the answer was lost.
func unsure(s farm.Step) bool {
	return s.Touched && (s.State == farm.Staged || s.State == farm.Active)
}

// left reports that the step's target may serve something else than it had, and
// that this is the rollout's to answer for.
func left(s farm.Step) bool {
	return s.Touched && s.State != farm.Restored && s.State != farm.Gone
}

func planned(s farm.Step) bool { return s.State == farm.Planned }

func active(s farm.Step) bool { return s.State == farm.Active }

// blame names what is not verified, and why.
func (v view) blame() string {
	var parts []string
	for _, s := range v.Steps {
		if s.State == farm.Verified || s.Error == "" || s.Fault == farm.NoFault && s.State == farm.Restored {
			continue
		}
		part := fmt.Sprintf("%s %s", s.Target, s.State)
		if s.Error != "" {
			part += " (" + s.Error + ")"
		}
		if left := v.expires(s); s.State != farm.Restored && s.Fault == farm.NodeFault && !left.IsZero() {
			part += ", serves a certificate that expires " + left.UTC().Format("2006-01-02 15:04 MST")
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "; ")
}

func (v view) expires(s farm.Step) (t time.Time) {
	for _, f := range s.From {
		if t.IsZero() || f.NotAfter.Before(t) {
			t = f.NotAfter
		}
	}
	return t
}

func (d *Decision) add(acts []Act) { d.Acts = append(d.Acts, acts...) }

func (d *Decision) addAct(do farm.Verb, targets []string) {
	if len(targets) > 0 {
		d.Acts = append(d.Acts, Act{do, targets})
	}
}

// orWait sets when to ask again, and why nothing else happens.
func (d Decision) orWait(until time.Time, why string) Decision {
	d.Until, d.Why = earliest(d.Until, until), why
	return d
}

// nextTry is the earliest time at which a step that failed may be tried again.
func (v view) nextTry() (t time.Time) {
	for _, s := range v.Steps {
		if s.Doing == "" && s.Again.After(v.now) {
			t = earliest(t, s.Again)
		}
	}
	return t
}

// due lists the steps that match and may begin an act now; waiting says that
// some match at all.
func (v view) due(match func(farm.Step) bool) (targets []string, waiting bool) {
	for _, s := range v.Steps {
		if !match(s) {
			continue
		}
		waiting = true
		if s.Doing == "" && !s.Again.After(v.now) {
			targets = append(targets, s.Target)
		}
	}
	return targets, waiting
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func find(steps []farm.Step, target string) *farm.Step {
	for i := range steps {
		if steps[i].Target == target {
			return &steps[i]
		}
	}
	return nil
}

func clone(r farm.Rollout) farm.Rollout {
	r.Steps, r.Waves = slices.Clone(r.Steps), slices.Clone(r.Waves)
	return r
}
