package rollout_test

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/rollout"
)

// TestAnyRollout draws farms, policies, answers, deaths of the controller, and
// people who meddle. Whatever happens, the rules of world_test.go hold, and once
// people let it go on, it ends.
func TestAnyRollout(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &chaos{T: t, world: newWorld(drawRollout(t), noon), trouble: rapid.IntRange(0, 5).Draw(t, "trouble")}
		meddling := rapid.IntRange(0, 60).Draw(t, "meddling")
		for n := 0; c.r.Outcome == farm.Running; n++ {
			if n == meddling {
				c.letGo()
			}
			if n > 5000 {
				t.Fatalf("does not end:\n%s", table(c.r))
			}
			if err := c.checkTwice(); err != nil {
				t.Fatal(err)
			}
			d, err := c.decide()
			if err != nil {
				t.Fatalf("%v\n%s", err, table(c.r))
			}
			c.happen(d, n < meddling)
		}
		c.after()
	})
}

// chaos is a world in which everything may happen.
type chaos struct {
	*rapid.T
	*world
	trouble int           // how seldom all is well
	said    []farm.Answer // so far
}

// happen draws what happens next: answers, time, people.
func (c *chaos) happen(d rollout.Decision, meddling bool) {
	var flying []farm.Step
	for _, s := range c.r.Steps {
		if s.Doing != "" {
			flying = append(flying, s)
		}
	}
	what := rapid.IntRange(0, 9).Draw(c.T, "what")
	switch {
	case meddling && what == 0:
		c.meddle()
	case meddling && what == 1:
		c.now = c.now.Add(time.Duration(rapid.Int64Range(0, int64(2*day)).Draw(c.T, "jump")))
	case what == 2 && len(c.said) > 0:
		c.ignored(rapid.SampledFrom(c.said).Draw(c.T, "late"))
	case len(flying) > 0 && (what < 8 || d.Until.IsZero()):
		c.answer(rapid.SampledFrom(flying).Draw(c.T, "step"))
	case !d.Until.IsZero():
		c.now = d.Until
	case meddling:
		c.meddle()
	}
}

// answer answers an act in flight. The controller may die before it records the
// answer: then the act is done again, under the same number.
func (c *chaos) answer(s farm.Step) {
	for rapid.IntRange(0, 9).Draw(c.T, "death") == 0 {
		c.perform(s.Target, c.luck(s.Doing), "bad luck")
	}
	a := c.perform(s.Target, c.luck(s.Doing), "bad luck")
	a.NoUndo, a.Lag = s.NoUndo, time.Duration(rapid.IntRange(0, 1).Draw(c.T, "lag"))*time.Second
	c.r = rollout.Record(c.r, a, c.now)
	c.said = append(c.said, a)
	c.ignored(a)
}

func (c *chaos) luck(do farm.Verb) luck {
	if rapid.IntRange(0, c.trouble).Draw(c.T, "fortune") == 0 {
		return ok
	}
	lucks := []luck{ok, fails, final, lost, dies}
	switch do {
	case farm.DoStage:
		lucks = append(lucks, silent, leave)
	case farm.DoActivate:
		lucks = append(lucks, hollow, leave)
	case farm.DoVerify:
		lucks = append(lucks, faulty)
	}
	return rapid.SampledFrom(lucks).Draw(c.T, "luck")
}

// ignored records an answer that was recorded before: nothing may come of it.
func (c *chaos) ignored(a farm.Answer) {
	if after := rollout.Record(c.r, a, c.now); !reflect.DeepEqual(after, c.r) {
		c.Fatalf("an old answer changes the rollout: %+v\n%s\n%s", a, table(c.r), table(after))
	}
}

func (c *chaos) meddle() {
	switch rapid.IntRange(0, 6).Draw(c.T, "people") {
	case 0:
		c.r.Paused = !c.r.Paused
	case 1:
		c.frozen = !c.frozen
	case 2:
		c.r.Abort = "a person"
	case 3:
		c.r.Superseded = true
	case 4:
		c.take(rapid.SampledFrom(c.r.Steps).Draw(c.T, "gone").Target)
	default:
		i := rapid.IntRange(0, len(c.r.Waves)-1).Draw(c.T, "wave")
		c.r.Waves[i].Approved = "a person"
	}
}

// letGo ends all that only people can end.
func (c *chaos) letGo() {
	c.r.Paused, c.frozen = false, false
	for i := range c.r.Waves {
		c.r.Waves[i].Approved = "a person"
	}
}

// after holds what has ended against more answers and more questions.
func (c *chaos) after() {
	for _, s := range c.r.Steps {
		c.ignored(farm.Answer{Target: s.Target, Do: s.Did, Attempt: s.Attempt})
	}
	if d := rollout.Next(c.r, false, c.now.Add(day)); d.Outcome != c.r.Outcome || len(d.Acts) > 0 || d.Why != c.r.Why {
		c.Fatalf("ended %s, and then %+v", c.r.Outcome, d)
	}
}

func drawRollout(t *rapid.T) farm.Rollout {
	count := func(name string, most int) int { return rapid.IntRange(0, most).Draw(t, name) }
	of := func(name string, all ...time.Duration) time.Duration { return rapid.SampledFrom(all).Draw(t, name) }
	s := rollout.Start{
		ID: "r1", Site: "shop", Now: noon, To: version("v2", 1),
		Changed: count("changed", 3) == 0, Forward: count("forward", 4) == 0,
		Policy: farm.Policy{
			MaxParallel: 1 + count("parallel", 3), Canary: farm.Share{Count: count("canary", 2)},
			Soak: of("soak", 0, 0, time.Second, time.Minute), HealthyDeadline: of("deadline", 0, time.Second, 20*time.Second),
			FailureBudget: farm.Share{Count: count("budget", 2)}, AbsentMax: farm.Share{Count: count("absent", 2)},
		},
	}
	if count("settle", 3) == 0 {
		s.To.NotBefore, s.Policy.Settle = noon, time.Hour
	}
	if count("window", 3) == 0 {
		s.Policy.Windows = []farm.Window{{From: 22 * time.Hour, To: 23 * time.Hour, Zone: "UTC"}}
	}
	if count("edge", 1) == 0 {
		s.Policy.Waves = []farm.WaveSpec{{Name: "edge", Match: map[string]string{"edge": "1"}, Approve: count("approve", 1) == 0}}
	}
	for i := range 1 + count("targets", 5) {
		target := rollout.Target{Target: farm.Target{Name: fmt.Sprint("t", i), Node: fmt.Sprint("n", count("node", 4)), LastWave: count("last", 5) == 0}}
		target.Labels = map[string]string{"edge": fmt.Sprint(count("edge?", 1))}
		if from := count("from", 5); from > 0 {
			v := version("v1", rapid.SampledFrom([]float64{0.5, 0.5, 0.17, 0.12, 0.09, 0.02, 0}).Draw(t, "life"))
			if from == 1 {
				v.State = farm.VersionRevoked
			}
			target.From = []farm.VersionFacts{v}
		}
		s.Targets = append(s.Targets, target)
	}
	r, err := rollout.New(s)
	if err != nil {
		t.Fatal(err)
	}
	for i := range r.Steps {
		r.Steps[i].NoUndo = r.Waves[r.Steps[i].Wave].Name == "last" // as Stage will say
	}
	return r
}
