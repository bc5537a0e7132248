package rollout

import (
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// leastTries is how often an act is tried before its failing counts, however
// short the deadlines are.
const leastTries = 3

// Record returns r after an answer. An answer to another act than the one in
// flight is ignored: it comes from the past.
func Record(r farm.Rollout, a farm.Answer, now time.Time) farm.Rollout {
	s := find(r.Steps, a.Target)
	if r.Outcome != farm.Running || s == nil || s.Doing == "" || s.Doing != a.Do || s.Attempt != a.Attempt {
		return r
	}
	r = clone(r)
	s = find(r.Steps, a.Target)
	s.Doing, s.Did = "", a.Do
	if a.Error == "" {
		succeed(s, a, now)
	} else {
		fail(s, r.Policy, a, now)
	}
	if s.Leave != "" && s.State != farm.Staged {
		end(s)
	}
	return r
}

// end ends a step that is left alone: nothing of ours is on its target any more,
// and a fault of the node is nobody's concern.
func end(s *farm.Step) {
	s.State, s.Doing, s.Again = s.Leave, "", time.Time{}
	if s.Fault == farm.NodeFault {
		s.Fault = farm.NoFault
	}
}

// Leave takes a target out of a rollout that runs, since it is gone from
// farm.yaml. What was only staged is taken away; what was activated, or is being
// activated, is left as it is. Why is for people.
func Leave(r farm.Rollout, target, why string) farm.Rollout {
	s := find(r.Steps, target)
	if r.Outcome != farm.Running || s == nil || s.State == farm.Gone || s.State == farm.Stuck {
		return r
	}
	r = clone(r)
	s = find(r.Steps, target)
	s.Leave, s.Error = farm.Gone, why
	if staged := s.Doing == farm.DoStage || s.State == farm.Staged; !staged || s.Touched {
		end(s)
	}
	return r
}

func succeed(s *farm.Step, a farm.Answer, now time.Time) {
	s.Tries, s.Failing, s.Again = 0, time.Time{}, time.Time{}
	if s.Fault == farm.NoFault && s.Leave == "" {
		s.Error = ""
	}
	switch a.Do {
	case farm.DoStage:
		s.State, s.Receipt, s.NoUndo, s.Lag, s.Staged = farm.Staged, a.Receipt, a.NoUndo, a.Lag, now
	case farm.DoActivate:
		s.State, s.Activated = farm.Active, now
	case farm.DoVerify:
		if s.State != farm.Verified { // active, or staged where the answer to the activation was lost
			s.State, s.Verified = farm.Verified, now
		}
		s.Seen = now
	case farm.DoRestore, farm.DoDiscard:
		s.State = farm.Restored
	}
}

func fail(s *farm.Step, p farm.Policy, a farm.Answer, now time.Time) {
	s.Tries++
	if s.Failing.IsZero() {
		s.Failing = now
	}
	s.Again = now.Add(pause(a.Do, s.Tries, p))
	if s.Fault == farm.NoFault && s.Leave == "" {
		s.Error = a.Error
	}
	if a.Leave {
		leave(s)
		return
	}
	before := s.State
	enough := s.Tries >= leastTries || a.Do == farm.DoVerify // looks are many: only time counts
	giveUp(s, a, enough && !now.Before(failingSince(s, a.Do).Add(p.HealthyDeadline)))
	if s.State != before {
		s.Again = time.Time{} // what comes next is another act, at once, or nothing
	}
}

// leave ends a step whose target serves a valid certificate that is not ours. The
// deployer was not asked to change anything: at Stage nothing is there to be taken
// away, and what an activation did not switch is only staged.
func leave(s *farm.Step) {
	s.Tries, s.Failing, s.Again = 0, time.Time{}, time.Time{}
	switch s.State {
	case farm.Planned:
		s.State = farm.Left
	case farm.Staged:
		s.Leave, s.Touched = farm.Left, false
	}
}

// giveUp ends a step whose act failed and is not worth another try; over says
// that there is no time left for one.
func giveUp(s *farm.Step, a farm.Answer, over bool) {
	switch a.Do {
	case farm.DoStage:
		if a.Silent && s.Tries >= 2 {
			s.State = farm.Absent
		} else {
			blame(s, a, over || a.Final)
		}
	case farm.DoActivate:
		blame(s, a, over || a.Final)
	case farm.DoVerify:
		blame(s, a, over)
	case farm.DoRestore:
		if over {
			stick(s, a)
		}
	case farm.DoDiscard:
		// What is live was never touched, and the next Stage sweeps what is left.
		if s.Tries >= leastTries {
			s.State = farm.Restored
		}
	}
}

// stick ends a step that could not be put back. What keeps it is what a person
// must mend; what it was to be put back for comes after.
func stick(s *farm.Step, a farm.Answer) {
	s.State = farm.Stuck
	if s.Error != a.Error {
		s.Error = a.Error + "; at first: " + s.Error
	}
}

// failingSince is when the time began in which the act has to work. A target
// that went live has it from then on, or from the first look where that is not
// known, and readers may take its lag to see it.
func failingSince(s *farm.Step, do farm.Verb) time.Time {
	switch {
	case do == farm.DoVerify && s.State == farm.Active:
		return s.Activated.Add(s.Lag)
	case do == farm.DoVerify && s.State == farm.Staged:
		return s.Failing.Add(s.Lag)
	}
	return s.Failing
}

// blame ends a step that failed: at once for a version fault, else when there is
// no time left to try again.
func blame(s *farm.Step, a farm.Answer, over bool) {
	switch {
	case a.Fault == farm.VersionFault:
		s.State, s.Fault = farm.Failed, farm.VersionFault
	case over:
		s.State, s.Fault, s.Lost = farm.Failed, farm.NodeFault, a.Lost
	}
}

// pause is how long to wait before the same act is tried again: looks follow
// each other quickly, everything else doubles from a second.
func pause(do farm.Verb, tries int, p farm.Policy) time.Duration {
	first := time.Second
	if do == farm.DoVerify {
		first = 250 * time.Millisecond
	}
	most := max(first, min(p.HealthyDeadline/4, 15*time.Second))
	return min(first<<min(tries-1, 10), most)
}
