package rollout_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/rollout"
)

// What a target may serve.
const (
	old = "old"
	neu = "new"
)

// A place is a target as it truly is, whatever the rollout believes of it.
type place struct {
	serves string
	staged bool // something of ours lies beside what is live
	gone   bool // from farm.yaml
	theirs bool // what is served is a valid certificate of somebody else
	dead   bool // for good: answers nothing, serves nothing
}

// A luck is what becomes of one act.
type luck string

const (
	ok     luck = "ok"     // it works
	fails  luck = "fails"  // nothing happens, but it may work later
	final  luck = "final"  // nothing happens, and it will not work later
	lost   luck = "lost"   // it happens, but the answer is an error
	hollow luck = "hollow" // the answer is good, but nothing happened
	leave  luck = "leave"  // somebody's valid certificate is there: nothing happens
	faulty luck = "faulty" // the new version is served, and clients refuse it
	silent luck = "silent" // neither reached nor serving, this time
	dies   luck = "dies"   // the target is gone for good
)

// A world is a rollout and the targets that it is about.
type world struct {
	r      farm.Rollout
	frozen bool
	now    time.Time
	places []place // in the order of the steps
}

func newWorld(r farm.Rollout, now time.Time) *world {
	w := &world{r: r, now: now}
	for range r.Steps {
		w.places = append(w.places, place{serves: old})
	}
	return w
}

func (w *world) clone() *world {
	c := *w
	c.places = slices.Clone(w.places)
	return &c
}

// find returns a target's step and what it really is.
func (w *world) find(target string) (farm.Step, *place) {
	i := slices.IndexFunc(w.r.Steps, func(s farm.Step) bool { return s.Target == target })
	return w.r.Steps[i], &w.places[i]
}

// perform does what is in flight on a target, as luck will have it, and returns
// the answer.
func (w *world) perform(target string, l luck, text string) farm.Answer {
	s, p := w.find(target)
	a := farm.Answer{Target: target, Do: s.Doing, Attempt: s.Attempt}
	if l == dies {
		p.dead = true
	}
	switch {
	case p.dead:
		a.Error, a.Silent = "no route to host", s.Doing == farm.DoStage
		return a
	case l == silent:
		a.Error, a.Silent = "no route to host", true
		return a
	case p.theirs && (s.Doing == farm.DoStage || s.Doing == farm.DoActivate), l == leave && p.serves == old:
		p.theirs, a.Error, a.Leave = true, "serves somebody's certificate", true
		return a
	case l == fails, l == final, l == leave:
		a.Error, a.Final = text, l == final
		return a
	case l != hollow:
		p.effect(s.Doing)
	}
	if s.Doing == farm.DoVerify && p.serves != neu {
		a.Error = "serves the certificate of before"
		return a
	}
	switch l {
	case lost:
		a.Error = "answer lost"
	case faulty:
		a.Error, a.Fault = text, farm.VersionFault
	}
	if s.Doing == farm.DoStage && a.Error == "" {
		a.Receipt = []byte("receipt of " + target)
	}
	return a
}

func (p *place) effect(do farm.Verb) {
	switch do {
	case farm.DoStage:
		p.staged = true
	case farm.DoActivate:
		p.serves = neu
	case farm.DoRestore:
		p.serves, p.staged = old, false
	case farm.DoDiscard:
		p.staged = false
	}
}

// decide asks what is next, checks it, and puts it in flight.
func (w *world) decide() (rollout.Decision, error) {
	before := w.r
	d := rollout.Next(w.r, w.frozen, w.now)
	w.r = rollout.Begin(w.r, d, w.now)
	for _, err := range []error{checkActs(before, d, w.now), w.checkReasonToWait(before, d), w.checkLive(d), w.checkBegun(d), w.checkEnd()} {
		if err != nil {
			return d, err
		}
	}
	return d, nil
}

// checkTwice refuses a decision that a controller which dies would not take again.
func (w *world) checkTwice() error {
	d, again := rollout.Next(w.r, w.frozen, w.now), rollout.Next(w.r, w.frozen, w.now)
	if !reflect.DeepEqual(d, again) {
		return fmt.Errorf("decided twice, differently: %+v and %+v", d, again)
	}
	return nil
}

// take takes a target out of farm.yaml.
func (w *world) take(target string) {
	_, p := w.find(target)
	w.r, p.gone = rollout.Leave(w.r, target, "gone from farm.yaml"), true
}

// allowed is the state that a step must be in when an act on it begins. Restore
// and discard have a rule of their own.
var allowed = map[farm.Verb][]farm.State{
	farm.DoStage:    {farm.Planned},
	farm.DoActivate: {farm.Staged},
	farm.DoVerify:   {farm.Staged, farm.Active, farm.Verified},
	farm.DoRestore:  {farm.Staged, farm.Active, farm.Verified, farm.Failed},
	farm.DoDiscard:  {farm.Staged},
}

func checkActs(r farm.Rollout, d rollout.Decision, now time.Time) error {
	begun := map[string]bool{}
	for _, act := range d.Acts {
		for _, target := range act.Targets {
			i := slices.IndexFunc(r.Steps, func(s farm.Step) bool { return s.Target == target })
			s := r.Steps[i]
			switch {
			case begun[target] || s.Doing != "":
				return fmt.Errorf("%s: two acts in flight, %s and %s", target, s.Doing, act.Do)
			case s.Again.After(now) && s.Did == act.Do:
				return fmt.Errorf("%s: %s begins before it may", target, act.Do)
			case !slices.Contains(allowed[act.Do], s.State):
				return fmt.Errorf("%s: %s although it is %s", target, act.Do, s.State)
			case (act.Do == farm.DoRestore || s.State == farm.Staged && act.Do == farm.DoVerify) && !s.Touched:
				return fmt.Errorf("%s: %s although it was never touched", target, act.Do)
			case act.Do == farm.DoDiscard && s.Touched:
				return fmt.Errorf("%s: discard although it was touched", target)
			case act.Do == farm.DoRestore && !mayGoBack(r, s, now):
				return fmt.Errorf("%s: restored to what must not be served", target)
			case act.Do != farm.DoDiscard && s.Leave != "":
				return fmt.Errorf("%s: %s although it is to be left alone", target, act.Do)
			case act.Do == farm.DoActivate:
				if err := checkOrder(r, s); err != nil {
					return err
				}
			}
			begun[target] = true
		}
	}
	return nil
}

// checkOrder refuses an activation before all are staged, or before the waves
// ahead have come to their end.
func checkOrder(r farm.Rollout, s farm.Step) error {
	for _, other := range r.Steps {
		if other.State == farm.Planned {
			return fmt.Errorf("%s goes live before %s is staged", s.Target, other.Target)
		}
		if other.Wave < s.Wave && (other.State == farm.Staged || other.State == farm.Active) {
			return fmt.Errorf("%s of wave %d goes live, %s of wave %d is %s", s.Target, s.Wave, other.Target, other.Wave, other.State)
		}
	}
	if w := r.Waves[s.Wave]; r.Back != "" {
		return fmt.Errorf("%s of wave %s goes live on the way back", s.Target, w.Name)
	}
	return nil
}

// checkReasonToWait refuses a decision that nothing will ever wake.
func (w *world) checkReasonToWait(before farm.Rollout, d rollout.Decision) error {
	flying := slices.ContainsFunc(w.r.Steps, func(s farm.Step) bool { return s.Doing != "" })
	person := w.frozen || before.Paused || slices.ContainsFunc(before.Waves, func(w farm.Wave) bool { return w.Approve && w.Approved == "" })
	switch {
	case d.Why == "":
		if len(d.Acts) == 0 {
			return errors.New("does nothing, and does not say why")
		}
	case !d.Until.IsZero() && !d.Until.After(w.now):
		return fmt.Errorf("waits for the past: %s", d.Until)
	case len(d.Acts) == 0 && d.Until.IsZero() && d.Outcome == farm.Running && !flying && !person:
		return fmt.Errorf("waits for nobody: %s", d.Why)
	}
	return nil
}

// checkBegun refuses a rollout that does not hold what was decided.
func (w *world) checkBegun(d rollout.Decision) error {
	switch {
	case w.r.Outcome != d.Outcome:
		return fmt.Errorf("decided to end as %q, ended as %q", d.Outcome, w.r.Outcome)
	case w.r.Ended.IsZero() != (d.Outcome == farm.Running):
		return fmt.Errorf("outcome %q, ended %s", d.Outcome, w.r.Ended)
	case d.Back != "" && w.r.Back == "":
		return fmt.Errorf("forgets that it goes back: %s", d.Back)
	}
	return nil
}

// checkLive refuses more reload groups live and unverified than the policy
// allows.
func (w *world) checkLive(d rollout.Decision) error {
	if !slices.ContainsFunc(d.Acts, func(a rollout.Act) bool { return a.Do == farm.DoActivate }) {
		return nil
	}
	live, verified := map[string]bool{}, false
	for _, s := range w.r.Steps {
		verified = verified || s.State == farm.Verified
		pending := s.State == farm.Staged || s.State == farm.Active ||
			s.State == farm.Failed && (s.Doing != "" || mayGoBack(w.r, s, w.now))
		if s.Touched && pending {
			live[s.Group] = true
		}
	}
	most := w.r.Policy.MaxParallel
	if canary := w.r.Policy.Canary.Of(len(w.r.Steps)); canary > 0 && !verified {
		most = min(most, canary)
	}
	if len(live) > most {
		return fmt.Errorf("%d reload groups are live and unverified, %d allowed", len(live), most)
	}
	return nil
}

// mayGoBack is the rule of direction, in the design's words: back only if the
// old version is neither revoked nor compromised and has life left
// (> max(2 × soak, 10 %)), and the target can.
func mayGoBack(r farm.Rollout, s farm.Step, now time.Time) bool {
	good := !r.Forward && !s.NoUndo
	for _, f := range s.From {
		left, whole := f.NotAfter.Sub(now), f.NotAfter.Sub(f.NotBefore)
		good = good && f.State == farm.VersionGood && left > max(2*r.Policy.Soak, whole/10)
	}
	return good
}

// checkEnd holds what is believed at the end against what is served.
func (w *world) checkEnd() error {
	if w.r.Outcome == farm.Running {
		return nil
	}
	var errs []error
	count := map[farm.State]int{}
	left := 0
	for i, s := range w.r.Steps {
		count[s.State]++
		if s.Touched && s.State != farm.Verified && s.State != farm.Restored && s.State != farm.Gone {
			left++
		}
		errs = append(errs, w.checkStep(s, w.places[i]))
	}
	switch o := w.r.Outcome; {
	case o == farm.Done && (count[farm.Verified] == 0 || count[farm.Verified]+count[farm.Gone] < len(w.r.Steps)),
		o == farm.DonePartly && (count[farm.Verified]+count[farm.Left]+count[farm.Gone] == 0 || count[farm.Verified] == len(w.r.Steps)),
		o == farm.RolledBack && count[farm.Verified]+left > 0,
		o == farm.RolledBackPart && count[farm.Verified]+left == 0:
		errs = append(errs, fmt.Errorf("outcome %s with %v", o, count))
	}
	if w.r.Why == "" || w.r.Ended != w.now {
		errs = append(errs, fmt.Errorf("ended %s at %s, why %q", w.r.Outcome, w.r.Ended, w.r.Why))
	}
	return errors.Join(errs...)
}

func (w *world) checkStep(s farm.Step, p place) error {
	switch {
	case p.gone && s.State == farm.Stuck: // and still is
		return nil
	case p.gone != (s.State == farm.Gone):
		return fmt.Errorf("%s is %s, gone from farm.yaml: %t", s.Target, s.State, p.gone)
	case p.gone && s.Touched: // nobody looks at it any more
		return nil
	case (s.State == farm.Left || s.State == farm.Gone) && (p.staged && !p.dead && s.Receipt != nil && s.Did != farm.DoDiscard):
		return fmt.Errorf("%s is %s, and what was staged is still there", s.Target, s.State)
	case s.Doing != "":
		return fmt.Errorf("ended with %s in flight on %s", s.Doing, s.Target)
	case s.State == farm.Staged || s.State == farm.Active:
		return fmt.Errorf("ended with %s %s", s.Target, s.State)
	case s.State == farm.Stuck && !s.Touched:
		return fmt.Errorf("%s is stuck and was never touched", s.Target)
	case s.State == farm.Failed && s.Touched && mayGoBack(w.r, s, w.now):
		return fmt.Errorf("%s failed, was touched and not put back", s.Target)
	case s.State == farm.Verified && p.serves != neu,
		s.State == farm.Restored && p.serves != old,
		!s.Touched && p.serves != old:
		return fmt.Errorf("%s is said to be %s, but serves the %s certificate", s.Target, s.State, p.serves)
	}
	return nil
}
