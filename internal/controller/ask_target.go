package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// A TargetTest is what came of trying a target with a throw-away certificate.
type TargetTest struct {
	Target   string         `json:"target"`
	Kind     string         `json:"kind"`
	At       time.Time      `json:"at"`
	Checks   []deploy.Check `json:"checks" doc:"in the order in which they were tried"`
	Failed   int            `json:"failed"`
	NotTried int            `json:"not_tried"`
}

// testMark names what a test makes on targets, and testName is what its certificate
// is for: a name that nobody has (RFC 6761 §6.4).
const (
	testMark = "certfarm-test"
	testName = testMark + ".invalid"
)

// testFor is how long one test may take.
const testFor = 5 * time.Minute

// TestTarget tries a target with a throw-away certificate in a place beside what is
// live, and takes it away again. With reload the server is reloaded, too. What is
// live stays as it is.
func (c *Controller) TestTarget(ctx context.Context, farmName, name, by string, reload bool) (TargetTest, error) {
	t, err := c.testable(ctx, farmName, name)
	if err != nil {
		return TargetTest{}, err
	}
	id := farmName + "\x00" + name
	if _, runs := c.tests.LoadOrStore(id, by); runs {
		return TargetTest{}, &Refusal{"target " + name + " is being tested already", "wait until that test has ended"}
	}
	defer c.tests.Delete(id)
	ctx, cancel := context.WithTimeout(ctx, testFor)
	defer cancel()
	r := TargetTest{Target: name, Kind: t.Kind, At: c.Now()}
	setup, err := c.setup(ctx, farmName, t)
	if err != nil {
		r.Checks = []deploy.Check{{Name: "reach", Verdict: deploy.CheckFailed, Saw: err.Error()}}
	} else {
		r.Checks = deploy.Try{
			Kinds: c.Kinds, Kind: t.Kind, Options: t.Options, Setup: setup, Now: time.Now, // a certificate is judged by the clocks of servers
			Trial: deploy.Trial{Mark: testMark, Names: []string{testName}, Reload: reload},
		}.Run(ctx)
	}
	for _, k := range r.Checks {
		switch k.Verdict {
		case deploy.CheckFailed:
			r.Failed++
		case deploy.CheckNotTried:
			r.NotTried++
		case deploy.CheckOK:
		}
	}
	return r, c.tellTest(context.WithoutCancel(ctx), farmName, t, by, r)
}

// testable is a target on which something may be tried now.
func (c *Controller) testable(ctx context.Context, farmName, name string) (t farm.Target, err error) {
	return t, c.Store.View(ctx, func(tx *store.Tx) error {
		p, err := tx.Place(ctx, farmName, name)
		if err != nil {
			return err
		}
		t = p.Target
		if p.Released {
			return &Refusal{"target " + name + " is gone from farm.yaml and left alone", "bring it back into farm.yaml first"}
		}
		held, err := tx.Word(ctx, farmName, wordHeld+t.Node)
		if err == nil && t.Node != "" && held != "" {
			return &Refusal{fmt.Sprintf("node %s is held by %s: nothing is changed on it", t.Node, held), "`certfarm node release " + t.Node + "`"}
		}
		return err
	})
}

// tellTest writes into the journal that somebody tried a target.
func (c *Controller) tellTest(ctx context.Context, farmName string, t farm.Target, by string, r TargetTest) error {
	e := farm.Event{
		Farm: farmName, Site: t.Site, Node: t.Node, Target: t.Name, Kind: "target.tested", Actor: by,
		Text: "was tried with a throw-away certificate beside what is live: all that could be tried is well",
	}
	if i := slices.IndexFunc(r.Checks, func(k deploy.Check) bool { return k.Verdict == deploy.CheckFailed }); i >= 0 {
		e.Level, e.Hint = farm.Warn, r.Checks[i].Hint
		e.Text = "was tried with a throw-away certificate beside what is live: " + r.Checks[i].Name + " failed: " + r.Checks[i].Saw
	}
	return c.Store.Update(ctx, func(tx *store.Tx) error { return tell(ctx, tx, e) })
}

// A Bench is what trying a target at length takes, beside its kind.
type Bench struct {
	Target farm.Target
	Setup  deploy.Setup
}

// BenchOf gives a target with the line to it, for the contract suite on a person's
// own machines. Nothing is done on it.
func (c *Controller) BenchOf(ctx context.Context, farmName, name string) (Bench, error) {
	t, err := c.testable(ctx, farmName, name)
	if err != nil {
		return Bench{}, err
	}
	s, err := c.setup(ctx, farmName, t)
	if err != nil {
		return Bench{}, fmt.Errorf("target %s: %w", name, err)
	}
	return Bench{t, s}, nil
}
