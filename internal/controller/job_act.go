package controller

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/store"
)

// What one act takes on is bounded, so that its answers are not held up. What is
// switched takes a moment, and each time costs a reload; the other verbs take longer.
const (
	switchesAtOnce = 1024
	actsAtOnce     = 64
)

func atMost(verb farm.Verb) int {
	if verb == farm.DoActivate || verb == farm.DoRestore {
		return switchesAtOnce
	}
	return actsAtOnce
}

// An act is one step's act in flight, with all that doing it takes.
type act struct {
	farm.Rollout
	step     farm.Step
	place    farm.Place
	version  farm.Version
	from     []farm.Version
	roots    string
	deployer deploy.Deployer
	kin      kin
	keys     map[string][]byte // of the version, and of others: sealed, by name
	stale    bool              // what is live was looked at so long ago that it is looked at again before it is switched
	lease    deploy.Lease
	group    *group    // what the acts that are done together have in common
	job      string    // that does it
	began    time.Time // with the others of its group; zero: it begins by itself
}

// workAct does one verb for every step of a reload group that waits for it.
func (c *Controller) workAct(ctx context.Context, j farm.Job) farm.Result {
	verb, group, _ := strings.Cut(j.Subject, " ")
	if farm.Verb(verb) == farm.DoActivate {
		if wait, err := c.company(ctx, j, group); err != nil || wait > 0 {
			return farm.Result{Err: err, Again: c.Now().Add(wait)}
		}
	}
	acts, err := c.acts(ctx, j, farm.Verb(verb), group)
	if err != nil {
		return farm.Result{Err: err}
	}
	if len(acts) == 0 {
		return farm.Result{}
	}
	var answers []farm.Answer
	switch farm.Verb(verb) {
	case farm.DoActivate, farm.DoRestore:
		answers = c.together(ctx, farm.Verb(verb), acts)
	default:
		answers = c.oneByOne(ctx, farm.Verb(verb), acts)
	}
	result := farm.Result{Value: answers}
	if len(acts) == atMost(farm.Verb(verb)) {
		result.Again = c.Now()
	}
	return result
}

// acts loads what is in flight for the verb and group.
func (c *Controller) acts(ctx context.Context, j farm.Job, verb farm.Verb, group string) (acts []act, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		doing, err := tx.InFlight(ctx, j.Farm, group, verb, atMost(verb))
		if err != nil {
			return err
		}
		var mayDo []store.InFlight
		for _, d := range doing {
			only, err := observing(ctx, tx, j.Farm, d.Site)
			if err != nil {
				return err
			}
			if !only { // else it is of a backup, and ends when its site was looked at
				mayDo = append(mayDo, d)
			}
		}
		acts, err = loading{c: c, tx: tx, farm: j.Farm, verb: verb}.acts(ctx, mayDo)
		return err
	})
	for i := range acts {
		a := &acts[i]
		a.job, a.lease = j.ID, deploy.Lease{Owner: c.Owner, Epoch: j.Epoch, Nonce: j.Nonce, Rollout: a.ID}
	}
	return acts, err
}

// oneByOne does a verb for each act by itself.
func (c *Controller) oneByOne(ctx context.Context, verb farm.Verb, acts []act) []farm.Answer {
	do := map[farm.Verb]func(context.Context, act, *farm.Answer) error{
		farm.DoStage:    c.stage,
		farm.DoVerify:   c.verify,
		farm.DoDiscard:  c.discard,
		farm.DoActivate: func(ctx context.Context, a act, _ *farm.Answer) error { return c.switchAll(ctx, verb, []act{a}) },
		farm.DoRestore:  c.restore,
	}[verb]
	answers := make([]farm.Answer, len(acts))
	known := &group{}
	slots := make(chan struct{}, sideBySide(verb))
	var wg sync.WaitGroup
	for i, a := range acts {
		a.group = known
		slots <- struct{}{}
		wg.Go(func() {
			answers[i] = c.answer(ctx, verb, a, do)
			<-slots
		})
		if i == 0 && verb == farm.DoStage {
			wg.Wait() // what it says of its group spares the others the same
		}
	}
	wg.Wait()
	return answers
}

// sideBySide is how many acts on targets of one reload group are done at a time.
// What writes beside what is live, or looks, is in nobody's way.
func sideBySide(verb farm.Verb) int {
	switch verb {
	case farm.DoStage, farm.DoVerify, farm.DoDiscard:
		return 32
	}
	return 1
}

// together activates or restores a whole reload group at once. Where that fails
// and there are several, each half is tried by itself, and so on, so that one bad
// certificate does not hold the others. A node that is not reached is not asked again
// for each half, nor are all halves of a group waited for that does not answer in time:
// they are tried again, and the lane is free meanwhile.
func (c *Controller) together(ctx context.Context, verb farm.Verb, acts []act) []farm.Answer {
	acts, answers := c.leftAlone(ctx, verb, acts)
	until := time.Now().Add(halving * patience(verb, acts...))
	return append(answers, c.halves(ctx, verb, acts, until)...)
}

// halving is how many deadlines are spent on finding out what is wrong in a group.
const halving = 3

func (c *Controller) halves(ctx context.Context, verb farm.Verb, acts []act, until time.Time) []farm.Answer {
	if len(acts) <= 1 {
		return c.oneByOne(ctx, verb, acts)
	}
	began := time.Now()
	within, cancel := context.WithTimeout(ctx, patience(verb, acts...))
	err := c.switchAll(within, verb, acts)
	cancel()
	settled := func(context.Context, act, *farm.Answer) error { return err }
	switch {
	case err != nil && !errors.Is(err, host.ErrUnreachable) && time.Now().Before(until) && ctx.Err() == nil:
		half := len(acts) / 2
		answers := c.halves(ctx, verb, acts[:half], until)
		return append(answers, c.halves(ctx, verb, acts[half:], until)...)
	case err == nil && verb == farm.DoRestore:
		settled = c.restored
	}
	var answers []farm.Answer
	for _, a := range acts {
		a.began = began
		answers = append(answers, c.answer(ctx, verb, a, settled))
	}
	return answers
}

// answer does one act within the policy's deadline and says what came of it.
func (c *Controller) answer(ctx context.Context, verb farm.Verb, a act, do func(context.Context, act, *farm.Answer) error) farm.Answer {
	ctx, cancel := context.WithTimeout(ctx, patience(verb, a))
	defer cancel()
	answer := farm.Answer{Rollout: a.ID, Target: a.step.Target, Do: verb, Attempt: a.step.Attempt}
	ctx, end := c.doing(ctx, verb, a)
	defer func() { end(answer) }()
	err := do(ctx, a, &answer)
	if err == nil {
		return answer
	}
	answer.Error = plain(err, a)
	answer.Fault = faultOf(err)
	answer.Final, answer.Lost = isFinal(err), errors.Is(err, host.ErrUnreachable)
	answer.Leave = isStranger(err)
	return answer
}

// plain is an error for people: a deadline says how long it was.
func plain(err error, a act) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Sprintf("no answer in time (its deadline is %s): %v", cmp.Or(a.place.Target.Deadline, a.Policy.Deadline), err)
	}
	return err.Error()
}

// A faultError is an error of which we know who is to blame.
type faultError struct {
	fault farm.Fault
	why   string
}

// Error says what is wrong.
func (e *faultError) Error() string { return e.why }

// switchAll activates or restores the receipts of one reload group.
func (c *Controller) switchAll(ctx context.Context, verb farm.Verb, acts []act) error {
	var receipts []deploy.Receipt
	for _, a := range acts {
		var r deploy.Receipt
		if err := json.Unmarshal(a.step.Receipt, &r); err != nil {
			return fmt.Errorf("receipt of %s: %w", a.step.Target, err)
		}
		receipts = append(receipts, r)
	}
	if err := c.open(ctx, &acts[0]); err != nil {
		return err
	}
	if verb == farm.DoRestore {
		return acts[0].deployer.Restore(ctx, receipts)
	}
	return acts[0].deployer.Activate(ctx, receipts)
}
