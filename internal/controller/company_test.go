package controller

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

// A crowd is rollouts with a target each in the reload groups n/x and m/x.
type crowd struct {
	t    *testing.T
	c    *Controller
	now  time.Time
	life time.Duration // of what is served
}

func newCrowd(t *testing.T) *crowd {
	w := &crowd{t: t, now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), life: 90 * 24 * time.Hour}
	clock := func() time.Time { return w.now }
	w.c = New(Config{Store: storetest.SQLite(t, store.Options{Now: clock}), Now: clock})
	return w
}

// rollout writes one whose steps have these acts in flight.
func (w *crowd) rollout(id string, onN, onM farm.Verb) {
	w.t.Helper()
	serves := []farm.VersionFacts{{ID: "old", NotBefore: w.now.Add(-time.Hour), NotAfter: w.now.Add(w.life - time.Hour)}}
	step := func(node string, do farm.Verb) farm.Step {
		return farm.Step{Target: id + "@" + node, Group: node + "/x", State: farm.Staged, Doing: do, Attempt: 1, From: serves}
	}
	if err := w.c.Store.Update(w.t.Context(), func(tx *store.Tx) error {
		return tx.PutRollout(w.t.Context(), farm.Rollout{ID: id, Farm: "f", Site: id, Steps: []farm.Step{step("n", onN), step("m", onM)}})
	}); err != nil {
		w.t.Fatal(err)
	}
}

// waits asks whether an activation on n waits.
func (w *crowd) waits(after time.Duration) bool {
	w.t.Helper()
	w.now = w.now.Add(after)
	wait, err := w.c.company(w.t.Context(), farm.Job{Farm: "f"}, "n/x")
	if err != nil || wait < 0 || wait > companySeldom {
		w.t.Fatal(wait, err)
	}
	return wait > 0
}

// An activation waits as long as more become ready, however long that takes, and
// goes when all are.
func TestAnActivationWaitsWhileMoreBecomeReady(t *testing.T) {
	w := newCrowd(t)
	w.rollout("last", "", farm.DoStage)
	for i := range 5 {
		w.rollout(fmt.Sprint(i), farm.DoActivate, "")
		if !w.waits(companyStalled - time.Second) {
			t.Errorf("it does not wait with %d ready", i+1)
		}
	}
	w.rollout("last", farm.DoActivate, farm.DoActivate)
	if w.waits(0) {
		t.Error("it waits though nothing is staged any more")
	}
}

// One node that hangs is not waited for, nor is anything for ever, nor where little
// life is left.
func TestAnActivationDoesNotWaitForEver(t *testing.T) {
	t.Run("a stall", func(t *testing.T) {
		w := newCrowd(t)
		w.rollout("hangs", "", farm.DoStage)
		w.rollout("ready", farm.DoActivate, "")
		if !w.waits(0) || !w.waits(companyStalled/2) || w.waits(companyStalled/2) {
			t.Error("it waits for something else than a stall")
		}
	})
	t.Run("a stream", func(t *testing.T) {
		w := newCrowd(t)
		w.rollout("later", "", farm.DoStage)
		begin := w.now
		for i := 0; ; i++ {
			w.rollout(fmt.Sprint(i), farm.DoActivate, "")
			if !w.waits(companyStalled / 2) {
				break
			}
		}
		if took := w.now.Sub(begin); took < companyLongest || took > companyLongest+companyStalled {
			t.Errorf("it went after %s", took)
		}
	})
	t.Run("little life", func(t *testing.T) {
		w := newCrowd(t)
		w.rollout("later", "", farm.DoStage)
		w.rollout("ready", farm.DoActivate, "")
		if !w.waits(0) {
			t.Error("it does not wait")
		}
		w.life = 2 * time.Hour
		w.rollout("pressing", farm.DoActivate, "")
		w.now = w.now.Add(55 * time.Minute)
		if w.waits(0) {
			t.Error("it waits though little life is left")
		}
	})
}

// A rollout decides after each answer but those that leave it nothing to decide.
func TestARolloutDecidesWhereThereIsSomething(t *testing.T) {
	all := farm.Rollout{Farm: "f", ID: "r", Waves: make([]farm.Wave, 1), Policy: farm.Policy{MaxParallel: 2}}
	change := func(f func(*farm.Rollout)) farm.Rollout {
		r := all
		f(&r)
		return r
	}
	for name, c := range map[string]struct {
		r      farm.Rollout
		answer farm.Answer
		other  farm.Verb
		want   bool
		wait   time.Duration
	}{
		"others are staged":        {all, farm.Answer{Do: farm.DoStage}, farm.DoStage, false, 0},
		"the last is staged":       {all, farm.Answer{Do: farm.DoStage}, "", true, 0},
		"one could not be staged":  {all, farm.Answer{Do: farm.DoStage, Error: "no"}, farm.DoStage, true, 0},
		"it goes back":             {change(func(r *farm.Rollout) { r.Back = "why" }), farm.Answer{Do: farm.DoStage}, farm.DoStage, true, 0},
		"it was overtaken":         {change(func(r *farm.Rollout) { r.Superseded = true }), farm.Answer{Do: farm.DoStage}, farm.DoStage, true, 0},
		"one is live":              {all, farm.Answer{Do: farm.DoActivate}, farm.DoActivate, true, liveTogether},
		"the last is live":         {all, farm.Answer{Do: farm.DoActivate}, farm.DoVerify, true, 0},
		"one of a wave is live":    {change(func(r *farm.Rollout) { r.Waves = make([]farm.Wave, 2) }), farm.Answer{Do: farm.DoActivate}, farm.DoActivate, true, 0},
		"one did not go live":      {all, farm.Answer{Do: farm.DoActivate, Error: "no"}, farm.DoActivate, true, 0},
		"others are looked at":     {all, farm.Answer{Do: farm.DoVerify}, farm.DoVerify, false, 0},
		"others go live":           {all, farm.Answer{Do: farm.DoVerify}, farm.DoActivate, false, 0},
		"the last look":            {all, farm.Answer{Do: farm.DoVerify}, "", true, 0},
		"a look found a fault":     {all, farm.Answer{Do: farm.DoVerify, Error: "no"}, farm.DoVerify, true, 0},
		"a look makes room":        {change(func(r *farm.Rollout) { r.Policy.MaxParallel = 1 }), farm.Answer{Do: farm.DoVerify}, farm.DoVerify, true, 0},
		"a look ends a wave":       {change(func(r *farm.Rollout) { r.Waves = make([]farm.Wave, 2) }), farm.Answer{Do: farm.DoVerify}, farm.DoVerify, true, 0},
		"a look begins a soak":     {change(func(r *farm.Rollout) { r.Policy.Soak = time.Minute }), farm.Answer{Do: farm.DoVerify}, farm.DoVerify, true, 0},
		"a look at the canary":     {change(func(r *farm.Rollout) { r.Policy.Canary.Count = 1 }), farm.Answer{Do: farm.DoVerify}, farm.DoVerify, true, 0},
		"one is back":              {all, farm.Answer{Do: farm.DoRestore}, farm.DoRestore, true, 0},
		"what was staged is taken": {all, farm.Answer{Do: farm.DoDiscard}, farm.DoDiscard, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := storetest.SQLite(t, store.Options{})
			var got map[string]time.Time
			var now time.Time
			err := s.Update(t.Context(), func(tx *store.Tx) (err error) {
				c.r.Steps = []farm.Step{{Target: "a", Group: "n/x"}, {Target: "b", Group: "m/x", Doing: c.other}}
				err = tx.PutRollout(t.Context(), c.r)
				if err == nil {
					c.answer.Rollout = c.r.ID
					now = tx.Now()
					got, err = deciding(t.Context(), tx, c.r.Farm, []answeredAct{{c.answer, c.r}})
				}
				return err
			})
			at, is := got[c.r.ID]
			if err != nil || is != c.want || is && at.Sub(now) != c.wait {
				t.Errorf("decides: %v (%v), want %v after %s", got, err, c.want, c.wait)
			}
		})
	}
}

// Where the way to a node is not found, it is looked for again.
func TestAGroupFindsTheWayOnce(t *testing.T) {
	c, acts := grouped(t, nil, 1)
	g := &group{}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.line(gone, c, "f", "n"); !errors.Is(err, context.Canceled) {
		t.Errorf("a call that was given up: %v", err)
	}
	l, err := g.line(t.Context(), c, acts[0].Farm, "n")
	if err != nil || l.node.Name != "n" || l.host == nil {
		t.Errorf("%+v, %v", l, err)
	}
	if again, err := g.line(gone, c, "f", "n"); err != nil || again.host != l.host {
		t.Errorf("the second time: %v, %v", again, err)
	}
}
