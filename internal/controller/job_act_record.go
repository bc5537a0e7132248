package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/rollout"
	"github.com/certfarm/certfarm/internal/store"
)

// An answeredAct is an answer with its rollout, which has the one step that the answer
// is about.
type answeredAct struct {
	farm.Answer
	rollout farm.Rollout
}

// applyAct records the answers and lets their rollouts decide again. What the answers of
// one job take is read and written for all of them together.
func (c *Controller) applyAct(ctx context.Context, tx *store.Tx, f farm.Finished) error {
	answers, _ := f.Result.Value.([]farm.Answer)
	var ids []store.StepID
	for _, a := range answers {
		ids = append(ids, store.StepID{Rollout: a.Rollout, Target: a.Target})
	}
	rollouts, err := tx.RolloutsFor(ctx, f.Job.Farm, ids)
	if err != nil {
		return err
	}
	var all []answeredAct
	for i, a := range answers {
		r, there := rollouts[ids[i]]
		if !there {
			return fmt.Errorf("step %s of rollout %s: %w", a.Target, a.Rollout, store.ErrNotFound)
		}
		all = append(all, answeredAct{a, r})
	}
	if err := c.record(ctx, tx, f.Job.Farm, all); err != nil {
		return err
	}
	decide, err := deciding(ctx, tx, f.Job.Farm, all)
	if err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(decide)) {
		if err := arm(ctx, tx, f.Job.Farm, "advance", id, decide[id]); err != nil {
			return err
		}
	}
	return nil
}

// A recording is what becomes of answers: what is to be written.
type recording struct {
	steps  []store.StepOf
	saw    map[string][]farm.Sight // by target
	left   []farm.Step             // of targets that serve a stranger's certificate
	events []farm.Event
}

// add adds what becomes of an answer.
func (r *recording) add(a answeredAct, now time.Time) {
	is := rollout.Record(a.rollout, a.Answer, now)
	before, after := step(a.rollout, a.Target), step(is, a.Target)
	if before.Attempt != a.Attempt || before.Doing != a.Do {
		return // from the past
	}
	r.steps = append(r.steps, store.StepOf{Rollout: is.ID, Step: after})
	if len(a.Sights) > 0 {
		r.saw[a.Target] = a.Sights
	}
	if a.Leave && (after.State == farm.Left || after.Leave == farm.Left) {
		r.left = append(r.left, after)
	}
	if before.State != after.State {
		r.events = append(r.events, stepEvent(is, after, a.Answer))
	}
}

// record writes the steps that answers changed, and tells of them.
func (c *Controller) record(ctx context.Context, tx *store.Tx, farmName string, all []answeredAct) error {
	r := recording{saw: map[string][]farm.Sight{}}
	for _, a := range all {
		r.add(a, tx.Now())
	}
	if err := tx.PutSteps(ctx, farmName, r.steps); err != nil {
		return err
	}
	if err := keepSights(ctx, tx, farmName, r.saw); err != nil {
		return err
	}
	for _, s := range r.left {
		if err := c.keepForeign(ctx, tx, farmName, s); err != nil {
			return err
		}
	}
	for _, e := range r.events {
		if err := tell(ctx, tx, e); err != nil {
			return err
		}
	}
	return nil
}

// keepSights keeps what acts saw of targets. One that is gone is left out.
func keepSights(ctx context.Context, tx *store.Tx, farmName string, saw map[string][]farm.Sight) error {
	places, err := tx.PlacesOf(ctx, farmName, slices.Sorted(maps.Keys(saw)))
	if err != nil {
		return err
	}
	var seen []farm.Place
	for _, target := range slices.Sorted(maps.Keys(places)) {
		p := places[target]
		p.Sights, p.Looked = saw[target], tx.Now()
		seen = append(seen, p)
	}
	return tx.PutPlaces(ctx, seen)
}

// liveTogether is how long the look at what is live waits for the rollout's other targets
// that are about to be: they are decided on at one time then.
const liveTogether = 250 * time.Millisecond

// deciding says which rollouts have something to decide after some answers, which are
// written, and when.
func deciding(ctx context.Context, tx *store.Tx, farmName string, all []answeredAct) (map[string]time.Time, error) {
	decide := map[string]time.Time{}
	unsure := map[string]bool{}
	for _, a := range all {
		if surely(a) {
			decide[a.Rollout] = tx.Now()
		} else {
			unsure[a.Rollout] = true
		}
	}
	maps.DeleteFunc(unsure, func(id string, _ bool) bool { return !decide[id].IsZero() })
	doing, err := tx.DoingOf(ctx, farmName, slices.Sorted(maps.Keys(unsure)))
	if err != nil {
		return nil, err
	}
	for _, a := range all {
		if !unsure[a.Rollout] {
			continue
		}
		is, wait := decisive(a, doing[a.Rollout])
		if at := tx.Now().Add(wait); is && (decide[a.Rollout].IsZero() || at.Before(decide[a.Rollout])) {
			decide[a.Rollout] = at
		}
	}
	return decide, nil
}

// surely reports that a rollout has something to decide after an answer, whatever else
// is in flight.
func surely(a answeredAct) bool {
	went := a.Do == farm.DoStage || a.Do == farm.DoActivate || a.Do == farm.DoVerify
	return a.Error != "" || !went || a.rollout.Back != "" || a.rollout.Superseded
}

// decisive reports that a rollout has something to decide after an answer that went well,
// by what is still in flight, and how long that may wait. It has not where others are
// awaited anyway: nothing goes live before everything is staged, and where everything goes
// live at once, only the last look ends it. A thousand rollouts to many nodes would else
// decide nothing, many times.
func decisive(a answeredAct, doing map[farm.Verb]int) (is bool, wait time.Duration) {
	switch {
	case a.Do == farm.DoStage:
		return doing[farm.DoStage] == 0, 0
	case !allAtOnce(a.rollout, doing):
		return true, 0
	case a.Do == farm.DoVerify:
		return doing[farm.DoVerify]+doing[farm.DoActivate] == 0, 0
	case doing[farm.DoActivate] > 0:
		return true, liveTogether
	}
	return true, 0
}

// allAtOnce reports that all of a rollout's steps go live together, and none is watched
// for longer than until it is seen.
func allAtOnce(r farm.Rollout, doing map[farm.Verb]int) bool {
	steps := 0
	for _, n := range doing {
		steps += n
	}
	p := r.Policy
	return len(r.Waves) == 1 && p.MaxParallel >= steps && p.Canary == (farm.Share{}) && p.Soak <= 0
}

func step(r farm.Rollout, target string) farm.Step {
	for _, s := range r.Steps {
		if s.Target == target {
			return s
		}
	}
	return farm.Step{}
}

func stepEvent(r farm.Rollout, s farm.Step, a farm.Answer) farm.Event {
	node, _, _ := strings.Cut(s.Group, "/")
	e := farm.Event{
		Farm: r.Farm, Kind: "step." + string(s.State), Site: r.Site, Node: node, Target: s.Target,
		Rollout: r.ID, Version: r.To.ID, Text: s.Target + " is " + string(s.State),
	}
	switch s.State {
	case farm.Verified:
		e.Text = fmt.Sprintf("%s serves the new certificate, seen in %d handshakes", s.Target, handshakes(a.Sights))
		if away := away(a.Sights); len(away) > 0 {
			e.Level, e.Text = farm.Warn, e.Text+"; switched off, and not waited for: "+list(away)
		}
	case farm.Failed:
		e.Level, e.Text = farm.Warn, fmt.Sprintf("%s: %s fault: %s", s.Target, s.Fault, s.Error)
	case farm.Absent:
		e.Level, e.Text = farm.Warn, s.Target+" is silent everywhere: the others go on; it is brought up to date when it is back"
	case farm.Stuck:
		e.Level, e.Text = farm.Alarm, s.Target+" could not be put back: "+a.Error
		e.Hint = "it is tried again by itself; look at the node"
	case farm.Restored:
		e.Text = s.Target + " is back to what it had"
	case farm.Left:
		e.Level, e.Text = farm.Warn, s.Target+" is left alone: "+s.Error
		e.Hint = "`certfarm rollout approve " + r.Site + "` replaces it, `certfarm import " + r.Site + " …` makes it ours"
	case farm.Gone:
		e.Text = s.Target + " is left alone: " + s.Error
	}
	return e
}

// away lists the endpoints at which nobody took a connection.
func away(sights []farm.Sight) (all []string) {
	for _, s := range sights {
		if s.Away {
			all = append(all, s.Endpoint.Address)
		}
	}
	return all
}

func handshakes(sights []farm.Sight) (n int) {
	for _, s := range sights {
		n += s.Samples
	}
	return n
}
