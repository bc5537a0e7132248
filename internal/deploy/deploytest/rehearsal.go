package deploytest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
)

// A Rehearsal runs rules outside `go test`: it is the T of each, and keeps what
// they say.
type Rehearsal struct {
	ctx  context.Context
	only []string
	told func(Outcome)

	mu      sync.Mutex
	details []string
	skipped string
	failed  bool
}

// ended is what Fatalf and Skipf end a rule with.
type ended struct{}

// Run runs one rule to its end.
func (r *Rehearsal) Run(name string, rule func(*Rehearsal)) bool {
	if len(r.only) > 0 && !slices.Contains(r.only, name) {
		return true
	}
	if r.ctx.Err() != nil {
		r.told(Outcome{Rule: name, Result: NotRun, Details: []string{"the run was stopped"}})
		return false
	}
	under := &Rehearsal{ctx: r.ctx}
	began := time.Now()
	under.guarded(rule)
	o := Outcome{Rule: name, Result: Kept, Details: under.details, Took: time.Since(began)}
	switch {
	case under.failed && r.ctx.Err() != nil:
		o.Result = NotRun // it was cut short: what it says is about that
		o.Details = []string{"the run was stopped"}
	case under.failed:
		o.Result = Broken
	case under.skipped != "":
		o.Result, o.Details = NotForIt, []string{under.skipped}
	}
	r.told(o)
	return !under.failed
}

func (r *Rehearsal) guarded(rule func(*Rehearsal)) {
	defer func() {
		if v := recover(); v != nil {
			if _, ours := v.(ended); !ours {
				panic(v)
			}
		}
	}()
	rule(r)
}

// Context is T's.
func (r *Rehearsal) Context() context.Context { return r.ctx }

// Helper is T's.
func (r *Rehearsal) Helper() {}

// Failed is T's.
func (r *Rehearsal) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// maxDetails is how much one rule may say: one that fails at every call says it
// each time.
const maxDetails = 20

// Errorf is Verdict's.
func (r *Rehearsal) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = true
	if len(r.details) < maxDetails {
		r.details = append(r.details, fmt.Sprintf(format, args...))
	}
}

// Fatalf is Verdict's.
func (r *Rehearsal) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	panic(ended{})
}

// Skipf is Verdict's.
func (r *Rehearsal) Skipf(format string, args ...any) {
	r.mu.Lock()
	r.skipped = fmt.Sprintf(format, args...)
	r.mu.Unlock()
	panic(ended{})
}

// renewed is a deployer that can be exchanged for one of another place.
type renewed struct {
	deploy.Deployer
	told func(deploy.Stage)
}

func (d *renewed) set(to deploy.Deployer, told func(deploy.Stage)) { d.Deployer, d.told = to, told }

// Stage is deploy.Deployer's; it tells what is staged.
func (d *renewed) Stage(ctx context.Context, s deploy.Stage) (deploy.Receipt, error) {
	d.told(s)
	return d.Deployer.Stage(ctx, s)
}

// commands are the config test and the reload among options, as one line each.
func commands(options []byte) (test, reload string) {
	var o struct{ Test, Reload []string }
	if json.Unmarshal(options, &o) != nil {
		return "", "" // options of another sort
	}
	return strings.Join(o.Test, " "), strings.Join(o.Reload, " ")
}
