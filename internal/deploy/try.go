package deploy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
)

// A Try tries a target with throw-away certificates in its shadow place:
//
//	reach ── live ── stage ── activate ── inspect ── replace ── restore ── discard ── clean up
//
// What is live is looked at and never written. The place is taken away whatever
// happens, also when the context ends.
type Try struct {
	Kinds   Kinds
	Kind    string
	Options []byte // of the target, found right by Check
	Setup   Setup  // of the target; its records are not used
	Trial   Trial
	Now     func() time.Time
}

// A Verdict is what came of a check.
type Verdict string

// The verdicts.
const (
	CheckOK       Verdict = "ok"
	CheckFailed   Verdict = "failed"
	CheckNotTried Verdict = "not-tried"
)

// A Check is one thing that was tried, or that was not.
type Check struct {
	Name    string  `json:"check"`
	Verdict Verdict `json:"verdict" enum:"ok,failed,not-tried"`
	Saw     string  `json:"saw" doc:"what was seen, or why it was not tried"`
	Hint    string  `json:"hint,omitempty" doc:"what to do"`
}

// clearFor is how long taking the shadow place away may take.
const clearFor = time.Minute

// trying is a Try under way.
type trying struct {
	Try
	checks []Check
	live   Deployer
	place  Place
	shadow Deployer
	known  map[string]farm.Bundle
	broken string // the check that failed: those after it are not tried
}

// Run tries the target and tells all checks in order. A target whose kind has no
// shadow place is reached and looked at, and nothing more.
func (t Try) Run(ctx context.Context) []Check {
	x := &trying{Try: t, known: map[string]farm.Bundle{}}
	x.step("reach", func() (string, error) { return x.reach(ctx) })
	x.step("live", func() (string, error) { return x.look(ctx) })
	if err := x.open(); err != nil {
		x.checks = append(x.checks, x.unopened(err))
		return x.checks
	}
	x.steps(ctx)
	x.tellUntried()
	return x.checks
}

func (x *trying) steps(ctx context.Context) {
	if x.broken == "" {
		defer func() {
			x.broken = ""
			x.step("clean up", func() (string, error) { return x.clear(ctx) })
		}()
	}
	var first, next Receipt
	var old, young []farm.Bundle
	x.step("stage", func() (saw string, err error) {
		first, old, err = x.stage(ctx, 1)
		return "written beside what would be live, and read back", err
	})
	x.step("activate", func() (string, error) {
		return x.did("switched", "config test passed"), x.shadow.Activate(ctx, []Receipt{first})
	})
	x.step("inspect", func() (string, error) { return "leaf and key are those that were staged", x.holds(ctx, old) })
	x.step("replace", func() (saw string, err error) {
		if next, young, err = x.stage(ctx, 2); err != nil {
			return "", err
		}
		if err := x.shadow.Activate(ctx, []Receipt{next}); err != nil {
			return "", err
		}
		return "another certificate took its place", x.holds(ctx, young)
	})
	x.step("restore", func() (string, error) {
		if err := x.shadow.Restore(ctx, []Receipt{next}); err != nil {
			return "", err
		}
		return "the one before is back", x.holds(ctx, old)
	})
	x.step("discard", func() (string, error) {
		if err := x.shadow.Discard(ctx, next); err != nil {
			return "", err
		}
		return "what was staged is gone, and what was live stayed", x.holds(ctx, old)
	})
}

func (x *trying) add(c Check) {
	x.checks = append(x.checks, c)
	if c.Verdict == CheckFailed && x.broken == "" {
		x.broken = c.Name
	}
}

// step does one check, unless one before it failed.
func (x *trying) step(name string, do func() (saw string, err error)) {
	if x.broken != "" {
		x.add(Check{Name: name, Verdict: CheckNotTried, Saw: x.broken + " failed"})
		return
	}
	saw, err := do()
	c := Check{Name: name, Verdict: CheckOK, Saw: saw}
	if err != nil {
		c = Check{Name: name, Verdict: CheckFailed, Saw: err.Error(), Hint: hintOf(err)}
	}
	if errors.Is(err, ErrLeft) {
		c.Verdict = CheckNotTried
	}
	x.add(c)
}

// reach makes the deployer of the target itself and asks it something.
func (x *trying) reach(ctx context.Context) (string, error) {
	var err error
	if x.live, err = x.Kinds.Open(x.Kind, x.Options, x.Setup); err != nil {
		return "", err
	}
	_, err = x.live.Inspect(ctx)
	if errors.Is(err, host.ErrUnreachable) || errors.Is(err, host.ErrHostKey) || ctx.Err() != nil {
		return "", err
	}
	return "it answers", nil
}

// look tells what is live, which must be readable: it is kept before a change.
func (x *trying) look(ctx context.Context) (string, error) {
	in, err := x.live.Inspect(ctx)
	switch {
	case err != nil:
		return "", err
	case in.Mismatch:
		return "", errors.New("what is live cannot be used: a part is missing, does not open, or the key is not the leaf's")
	case in.Placeholder:
		return "the placeholder is live", nil
	case len(in.Leaves) == 0:
		return "nothing is live yet", nil
	}
	var all []string
	for _, l := range in.Leaves {
		all = append(all, farm.Short(l))
	}
	return "it can be read: " + strings.Join(all, ", "), nil
}

// open makes the deployer of the shadow place.
func (x *trying) open() (err error) {
	if x.place, err = x.Kinds.Shadow(x.Kind, x.Options, x.Trial); err != nil {
		return err
	}
	s := x.Setup
	s.Look = nil
	s.Records.Bundle = func(_ context.Context, leaf string) (farm.Bundle, error) {
		b, ok := x.known[leaf]
		if !ok {
			return b, errors.New("it is none of the trial's")
		}
		return b, nil
	}
	x.shadow, err = x.place.Open(s)
	return err
}

func (x *trying) unopened(err error) Check {
	c := Check{Name: "stage", Verdict: CheckFailed, Saw: err.Error()}
	if errors.Is(err, ErrNoShadow) {
		c.Verdict = CheckNotTried
	} else if x.broken != "" {
		c.Verdict, c.Saw = CheckNotTried, x.broken+" failed"
	}
	return c
}

// stage puts a new throw-away certificate there, with all leaves that the place has.
func (x *trying) stage(ctx context.Context, epoch int64) (Receipt, []farm.Bundle, error) {
	if epoch == 1 {
		if err := x.place.Empty(ctx, x.Setup); err != nil { // what a trial left that was killed
			return Receipt{}, nil, err
		}
		if err := x.place.Prepare(ctx, x.Setup); err != nil {
			return Receipt{}, nil, err
		}
	}
	types := x.place.Leaves
	if len(types) == 0 {
		types = []farm.KeyType{farm.EC256}
	}
	var all []farm.Bundle
	for _, kind := range types {
		b, err := Throwaway(x.Trial.Names, kind, x.Now())
		if err != nil {
			return Receipt{}, nil, err
		}
		x.known[b.Leaf] = b
		all = append(all, b)
	}
	r, err := x.shadow.Stage(ctx, Stage{Site: x.Trial.Mark, Names: x.Trial.Names, Bundles: all, Epoch: epoch})
	return r, all, err
}

// did is what an activation did, as far as the place has commands.
func (x *trying) did(what, test string) string {
	if slices.ContainsFunc(x.place.Touches, func(t string) bool { return strings.HasPrefix(t, "config test") }) {
		what += ", " + test
	}
	return what
}

// holds says whether the place holds these leaves, with their keys.
func (x *trying) holds(ctx context.Context, want []farm.Bundle) error {
	in, err := x.shadow.Inspect(ctx)
	if err != nil {
		return err
	}
	for _, b := range want {
		if !slices.Contains(in.Leaves, b.Leaf) || in.Mismatch || len(in.Leaves) != len(want) {
			return fmt.Errorf("it holds %.8q, and %s was put there: %w", in.Leaves, farm.Short(b.Leaf), encode.ErrMismatch)
		}
	}
	return nil
}

// clear takes the place away, also when the time for the trial is over.
func (x *trying) clear(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clearFor)
	defer cancel()
	return "what the trial made is gone", x.place.Clear(ctx, x.Setup)
}

func (x *trying) tellUntried() {
	for _, u := range x.place.Untried {
		x.checks = append(x.checks, Check{Name: u.What, Verdict: CheckNotTried, Saw: u.Why})
	}
}

// hintOf is what to do about a failed check, where its error does not say it.
func hintOf(err error) string {
	_, ran := errors.AsType[*host.ExitError](err)
	switch {
	case errors.Is(err, host.ErrHostKey):
		return "compare the key with the node's own (ssh-keygen -lf on the node), and pin that in farm.yaml"
	case errors.Is(err, host.ErrUnreachable):
		return "check address, port, user and key of the node; the network may be in the way"
	case errors.Is(err, fs.ErrPermission):
		return "give the user that farm.yaml names the right to read and write there, in the folder of the files and in the store"
	case ran:
		return "run the command on the node as that user: with become: sudo, `certfarm snippet sudoers NODE` prints the rule that it needs"
	}
	return ""
}
