package rollout

import (
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// wave adds what wave i wants done now, and reports whether the waves after it
// must wait.
func (v view) wave(d *Decision, i int, frozen bool) (busy bool) {
	name := v.Waves[i].Name
	staged, unsettled := v.steps(i)
	if staged > 0 {
		if why, until := v.gate(i, frozen); why != "" {
			*d = d.orWait(earliest(until, v.nextTry()), why)
			return true
		}
		d.addAct(farm.DoActivate, v.fit(i))
	}
	if unsettled {
		*d = d.orWait(v.nextTry(), "wave "+name)
		return true
	}
	return v.soak(d, i)
}

// steps counts the steps of wave i that wait to be activated, and says whether
// any of its steps has not come to its end.
func (v view) steps(i int) (staged int, unsettled bool) {
	for _, s := range v.Steps {
		if s.Wave != i {
			continue
		}
		if s.State == farm.Staged && s.Leave == "" {
			staged++
		}
		if s.State == farm.Planned || s.State != farm.Verified && v.unsettled(s) {
			unsettled = true
		}
	}
	return staged, unsettled
}

// gate says why wave i may not be activated yet, and when that may change by
// itself.
func (v view) gate(i int, frozen bool) (why string, until time.Time) {
	if frozen {
		return "frozen: no activation until `certfarm freeze --off`", time.Time{}
	}
	if t := v.To.NotBefore.Add(v.Policy.Settle); v.now.Before(t) {
		return "the certificate settles, for clients with slow clocks", t
	}
	if v.urgency == pressing {
		return "", time.Time{} // announced by the controller: windows and approvals give way
	}
	if w := v.Waves[i]; w.Approve && w.Approved == "" {
		return "wave " + w.Name + " waits for approval: `certfarm rollout approve`", v.presses()
	}
	if open, opens := farm.Open(v.Policy.Windows, v.now); !open {
		return "outside the maintenance window", earliest(opens, v.presses())
	}
	return "", time.Time{}
}

// fit lists the staged steps of wave i that may be activated now: whole reload
// groups, as many as there is room for.
func (v view) fit(i int) (targets []string) {
	open, room := map[string]bool{}, v.room()
	for _, s := range v.Steps {
		if v.exposed(s) {
			open[s.Group] = true
		}
	}
	for _, s := range v.Steps {
		if s.Wave != i || s.State != farm.Staged || s.Leave != "" || s.Doing != "" || s.Again.After(v.now) {
			continue
		}
		if !open[s.Group] && len(open) >= room {
			continue
		}
		open[s.Group] = true
		targets = append(targets, s.Target)
	}
	return targets
}

// room is how many reload groups may be live and not yet verified. Until
// something is verified at all, no more go than the canary allows.
func (v view) room() int {
	canary := v.Policy.Canary.Of(len(v.Steps))
	if canary == 0 || slices.ContainsFunc(v.Steps, func(s farm.Step) bool { return s.State == farm.Verified }) {
		return v.Policy.MaxParallel
	}
	return min(v.Policy.MaxParallel, canary)
}

// exposed reports that the step's target may be live with something that is not
// verified.
func (v view) exposed(s farm.Step) bool {
	switch s.State {
	case farm.Staged, farm.Active:
		return s.Touched
	case farm.Failed:
		return s.Touched && (s.Doing != "" || v.undo(s) != "")
	}
	return false
}

// verify looks at the targets that match.
func (v view) verify(match func(farm.Step) bool) []Act {
	targets, _ := v.due(match)
	if len(targets) == 0 {
		return nil
	}
	return []Act{{farm.DoVerify, targets}}
}

// soak watches all that is live until wave i has been good for long enough: it
// looks again in between, and once more at the end.
func (v view) soak(d *Decision, i int) (busy bool) {
	if v.Policy.Soak <= 0 {
		return false
	}
	end := v.soaked(i)
	var looks []string
	for _, s := range v.Steps {
		if s.Wave > i || s.State != farm.Verified || !s.Seen.Before(end) {
			continue
		}
		busy = true
		if s.Doing != "" {
			continue
		}
		if at := v.lookAt(s, end); at.After(v.now) {
			d.Until = earliest(d.Until, at)
		} else {
			looks = append(looks, s.Target)
		}
	}
	d.addAct(farm.DoVerify, looks)
	if busy {
		d.Why = "watching wave " + v.Waves[i].Name + " until " + end.UTC().Format("15:04:05 MST")
	}
	return busy
}

// soaked is when the soak of wave i ends: it counts from the target that was
// verified last.
func (v view) soaked(i int) (end time.Time) {
	for _, s := range v.Steps {
		if s.Wave == i && s.State == farm.Verified && s.Verified.Add(v.Policy.Soak).After(end) {
			end = s.Verified.Add(v.Policy.Soak)
		}
	}
	return end
}

// lookAt is when a soaking step is looked at again: four times in the soak, at
// least once a minute, and at its end.
func (v view) lookAt(s farm.Step, end time.Time) time.Time {
	if !s.Failing.IsZero() {
		return s.Again
	}
	every := min(max(v.Policy.Soak/4, time.Second), time.Minute)
	return earliest(s.Seen.Add(every), end)
}
