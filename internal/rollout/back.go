package rollout

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// back says why everything must go back, or nothing.
func (v view) back() string {
	switch {
	case v.Back != "":
		return v.Back
	case !v.wayBack():
		return ""
	case v.Abort != "":
		return v.Abort
	}
	nodes, absent := 0, 0
	for _, s := range v.Steps {
		switch {
		case s.Fault == farm.VersionFault:
			return fmt.Sprintf("version fault on %s: %s", s.Target, s.Error)
		case s.Fault == farm.NodeFault:
			nodes++
		case s.State == farm.Absent:
			absent++
		}
	}
	return v.overBudget(nodes, absent)
}

// overBudget says why so many node faults and absent targets are too many, or
// nothing. Each target that is absent beyond absent_max counts as a node fault.
func (v view) overBudget(nodes, absent int) string {
	budget, most := v.Policy.FailureBudget.Of(len(v.Steps)), v.Policy.AbsentMax.Of(len(v.Steps))
	over := max(0, absent-most)
	if nodes+over <= budget || v.urgency != calm {
		return ""
	}
	faults := fmt.Sprintf("%s, %d allowed", farm.Count(nodes, "node fault"), budget)
	silent := fmt.Sprintf("%s absent, %d allowed", farm.Count(absent, "target"), most)
	switch {
	case over == 0:
		return faults + ": " + v.blame()
	case nodes == 0 && budget == 0:
		return silent + ": " + v.blame()
	}
	return silent + "; " + faults + ": " + v.blame()
}

// wayBack reports that there is something worth going back to: a target on
// which what was live before may be live again.
func (v view) wayBack() bool {
	return slices.ContainsFunc(v.Steps, func(s farm.Step) bool {
		return v.keeps(s) && (s.State != farm.Gone || !s.Touched)
	})
}

// keeps reports that what was live on a target before may be live again: it is
// neither revoked nor compromised nor faulty, and has life left. A target that
// held nothing goes back to its placeholder.
func (v view) keeps(s farm.Step) bool {
	if v.Forward || s.NoUndo {
		return false
	}
	for _, f := range s.From {
		left := f.NotAfter.Sub(v.now)
		if f.State != farm.VersionGood || left <= 2*v.Policy.Soak || f.Life(v.now) <= 0.10 {
			return false
		}
	}
	return true
}

// hopeless says why the rollout can neither go on nor back, or nothing: the
// version was found at fault before it was seen good anywhere, or a person ended
// it.
func (v view) hopeless() string {
	switch {
	case v.wayBack():
		return ""
	case v.Abort != "":
		return v.Abort + ", and there is no way back"
	}
	fault, verified := false, false
	for _, s := range v.Steps {
		fault = fault || s.Fault == farm.VersionFault
		verified = verified || s.State == farm.Verified
	}
	if fault && !verified {
		return "the version is at fault and there is no way back: " + v.blame()
	}
	return ""
}

// undo is the act that puts a step's target back, or nothing: a restore where
// something was activated, a discard where it was only staged.
func (v view) undo(s farm.Step) farm.Verb {
	switch s.State {
	case farm.Staged, farm.Active, farm.Verified, farm.Failed:
	default:
		return ""
	}
	switch {
	case s.Receipt == nil:
		return ""
	case !s.Touched:
		return farm.DoDiscard
	case v.keeps(s):
		return farm.DoRestore
	}
	return ""
}

// isolate puts back each target that failed by itself, and takes away what was
// staged where it is to be left alone.
func (v view) isolate() (d Decision) {
	return v.undoing(func(s farm.Step) bool { return s.State == farm.Failed || s.Leave != "" }, len(v.Steps))
}

// discard takes away what was staged and not activated.
func (v view) discard() []Act {
	return v.undoing(func(s farm.Step) bool { return s.State == farm.Staged && !s.Touched && s.Leave == "" }, 0).Acts
}

// retreat puts everything back, failing targets first. A version fault undoes
// all at once; otherwise targets that work are put back MaxParallel at a time.
func (v view) retreat(why string) Decision {
	d := v.undoing(func(s farm.Step) bool { return s.Fault != farm.NoFault }, len(v.Steps))
	room := v.Policy.MaxParallel
	if slices.ContainsFunc(v.Steps, func(s farm.Step) bool { return s.Fault == farm.VersionFault }) {
		room = len(v.Steps)
	}
	d.add(v.undoing(func(s farm.Step) bool { return s.Fault == farm.NoFault }, room).Acts)
	d.add(v.verify(func(s farm.Step) bool { return unsure(s) && v.undo(s) == "" })) // it stays, so it must be known
	d.Back = why
	pending, kept := false, []string(nil)
	for _, s := range v.Steps {
		switch {
		case s.Doing != "" || v.undo(s) != "" || unsure(s):
			pending = true
		case left(s):
			kept = append(kept, fmt.Sprintf("%s %s", s.Target, s.State))
		}
	}
	switch {
	case pending:
		return d.orWait(v.nextTry(), "going back: "+why)
	case len(kept) > 0:
		return Decision{Outcome: farm.RolledBackPart, Why: why + "; not put back: " + strings.Join(kept, ", "), Back: why}
	}
	return Decision{Outcome: farm.RolledBack, Why: why, Back: why}
}

// undoing begins to undo the steps that match, the latest wave first, with
// restores of at most room reload groups in flight: what one reload brings back
// counts as one.
func (v view) undoing(match func(farm.Step) bool, room int) (d Decision) {
	var restores, discards []string
	open := v.restoring(match)
	for _, s := range slices.Backward(v.Steps) {
		undo := v.undo(s)
		if !match(s) || s.Doing != "" || s.Did == undo && s.Again.After(v.now) {
			continue // another act's pause does not hold the way back
		}
		switch undo {
		case farm.DoDiscard:
			discards = append(discards, s.Target)
		case farm.DoRestore:
			if open[s.Group] || len(open) < room {
				open[s.Group], restores = true, append(restores, s.Target)
			}
		}
	}
	d.addAct(farm.DoRestore, restores)
	d.addAct(farm.DoDiscard, discards)
	return d
}

// restoring is the reload groups of the steps that match and are being restored.
func (v view) restoring(match func(farm.Step) bool) map[string]bool {
	groups := map[string]bool{}
	for _, s := range v.Steps {
		if match(s) && s.Doing == farm.DoRestore {
			groups[s.Group] = true
		}
	}
	return groups
}

// urgency is how much the rest of the old certificate's life allows.
type urgency int

const (
	calm     urgency = iota // the full policy
	hurried                 // below 1/6: no node holds another, nothing goes back for a node fault
	pressing                // below 1/12: windows and approvals give way too
)

// servesFrom reports that the step's target still serves what it did. One that is
// absent serves nobody, and what is left alone is not the rollout's to hurry for.
func servesFrom(s farm.Step) bool {
	switch s.State {
	case farm.Verified, farm.Absent, farm.Left, farm.Gone:
		return false
	}
	return true
}

// urgencyOf goes by the least life left among what the targets not yet verified
// serve. A first installation is calm: nothing is about to expire.
func urgencyOf(r farm.Rollout, now time.Time) urgency {
	life := 1.0
	for _, s := range r.Steps {
		for _, f := range s.From {
			if servesFrom(s) {
				life = min(life, f.Life(now))
			}
		}
	}
	switch {
	case life < 1.0/12:
		return pressing
	case life < 1.0/6:
		return hurried
	}
	return calm
}

// presses is when so little life will be left that windows and approvals give
// way, or zero: never.
func (v view) presses() time.Time { return Presses(v.Rollout) }

// Presses is when r becomes Pressing; zero: never.
func Presses(r farm.Rollout) (t time.Time) {
	for _, s := range r.Steps {
		for _, f := range s.From {
			if servesFrom(s) {
				t = earliest(t, f.NotAfter.Add(time.Second-f.NotAfter.Sub(f.NotBefore)/12))
			}
		}
	}
	return t
}

// Pressing reports that so little life is left that windows and approvals give
// way; the controller announces it.
func Pressing(r farm.Rollout, now time.Time) bool { return urgencyOf(r, now) == pressing }
