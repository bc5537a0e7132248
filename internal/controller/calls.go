package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/deploy/remote"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
)

// Calls to agents go by way of the store: the job that asks may run in one controller
// and the agent hang on another. A call lies there sealed for as long as somebody
// waits for its answer.
//
//	job ─ Call ─▶ calls ─▶ the agent's poll, at any controller ─▶ agent
//	    ◀─────── answer ◀─ AgentAnswer ◀───────────────────────────┘
type calls struct {
	puts    *fold[store.CallRow, struct{}]
	drops   *fold[string, struct{}]
	answers *fold[store.CallRow, bool]
	asking  *lounge[string, store.CallRow]        // controllers' jobs, by id of the call
	polling *lounge[[2]string, []json.RawMessage] // agents, by farm and node
}

const (
	sealedCall  = "call"
	callWithin  = 10 * time.Minute // where the one who asks sets no deadline
	agentSilent = 75 * time.Second // an agent that was not heard of for that long is gone: it asks every 25 s
	askedAgain  = 10 * time.Second // how often who waits for an answer sees whether the agent is still there
	dropWithin  = 5 * time.Second
	handedOut   = 64       // calls that one poll is given
	handedBytes = 16 << 20 // and their size
)

func (c *Controller) newCalls() *calls {
	s := c.Store
	p := &calls{
		puts: newFold(func(ctx context.Context, all []store.CallRow) ([]struct{}, error) {
			return make([]struct{}, len(all)), s.PutCalls(ctx, all)
		}),
		drops: newFold(func(ctx context.Context, all []string) ([]struct{}, error) {
			return make([]struct{}, len(all)), s.DropCalls(ctx, all)
		}),
		answers: newFold(s.AnswerCalls),
	}
	p.asking = newLounge(s.Answered, func(ctx context.Context, b *lounge[string, store.CallRow]) error { return c.findAnswers(ctx, b) })
	p.polling = newLounge(s.Called, func(ctx context.Context, b *lounge[[2]string, []json.RawMessage]) error { return c.findCalls(ctx, b) })
	return p
}

// Call asks the agent of a node to do a call and waits for its answer (remote.Caller).
// An agent that was not heard of lately is not waited for.
func (c *Controller) Call(ctx context.Context, call remote.Call) (remote.Answer, error) {
	answer, err := c.call(ctx, call)
	if err != nil {
		return answer, fmt.Errorf("%w: %w", host.ErrUnreachable, err)
	}
	return answer, nil
}

func (c *Controller) call(ctx context.Context, call remote.Call) (a remote.Answer, err error) {
	if err := c.agentThere(ctx, call.Farm, call.Node); err != nil {
		return a, err
	}
	text, err := remote.Seal(call)
	if err != nil {
		return a, err
	}
	sealed, err := c.seal(call.Farm, sealedCall, call.ID, farm.NewSecret(text))
	if err != nil {
		return a, err
	}
	until, ok := ctx.Deadline()
	if !ok {
		until = time.Now().Add(callWithin)
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	p := c.agents.calls
	s := p.asking.sit(call.ID, nil)
	defer p.asking.leave(call.ID, s)
	row := store.CallRow{CallID: store.CallID{Farm: call.Farm, Node: call.Node, ID: call.ID}, Owner: c.Owner, Until: c.Now().Add(time.Until(until)), Sealed: sealed}
	if _, err := p.puts.run(ctx, row); err != nil {
		return a, err
	}
	got, err := c.awaitAnswer(ctx, call, s)
	if err != nil {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropWithin)
		defer cancel()
		_, _ = p.drops.run(last, call.ID) // else it ends by itself
		return a, err
	}
	opened, err := c.keyring().Open(secret.RecordID(call.Farm, sealedCall, call.ID+" answer"), got.Sealed)
	if err != nil {
		return a, err
	}
	return remote.OpenAnswer(opened.Reveal())
}

// awaitAnswer waits until the agent has answered, ctx ends, or the agent is gone.
func (c *Controller) awaitAnswer(ctx context.Context, call remote.Call, s *seat[store.CallRow]) (row store.CallRow, err error) {
	for {
		moment, cancel := context.WithTimeout(ctx, askedAgain)
		row, err = c.agents.calls.asking.wait(moment, s)
		over := moment.Err() != nil && ctx.Err() == nil
		cancel()
		switch {
		case err == nil:
			return row, nil
		case ctx.Err() != nil:
			return row, fmt.Errorf("its agent did not answer in time: %w", ctx.Err())
		case !over:
			return row, err
		}
		if err := c.agentThere(ctx, call.Farm, call.Node); err != nil {
			return row, err
		}
	}
}

// agentThere refuses where the agent of a node is known to be away. For a while after
// it joined, or this controller began, nobody is: agents come back one after another.
func (c *Controller) agentThere(ctx context.Context, farmName, node string) error {
	var a store.Agent
	err := c.Store.View(ctx, func(tx *store.Tx) (err error) {
		a, err = tx.Agent(ctx, farmName, node)
		return err
	})
	seen, now := c.agents.seen(a), c.Now()
	switch {
	case errors.Is(err, store.ErrNotFound):
		return fmt.Errorf("no agent has joined as node %s yet: `certfarm node token %s` lets one", node, node)
	case err != nil:
		return err
	case a.Banned != "":
		return fmt.Errorf("node %s is banned by %s", node, a.Banned)
	case a.Quarantined != "":
		return fmt.Errorf("node %s is in quarantine: %s", node, a.Quarantined)
	case now.Sub(later(later(seen, a.Joined), c.agents.since)) <= agentSilent:
		return nil
	case seen.IsZero():
		return fmt.Errorf("the agent of node %s has joined and not asked yet: is `certfarm agent run` running there?", node)
	}
	return fmt.Errorf("its agent was last heard of %s ago", now.Sub(seen).Round(time.Second))
}

// findAnswers gives the jobs that wait here what was answered.
func (c *Controller) findAnswers(ctx context.Context, b *lounge[string, store.CallRow]) error {
	var all []store.CallRow
	err := c.Store.View(ctx, func(tx *store.Tx) (err error) {
		all, err = tx.AnsweredCalls(ctx, c.Owner)
		return err
	})
	if err != nil || len(all) == 0 {
		return err
	}
	ids := make([]string, len(all))
	for i, row := range all {
		b.give(row.ID, row)
		ids[i] = row.ID
	}
	return c.Store.DropCalls(ctx, ids)
}

// AgentCalls waits for what an agent is to do that it does not have already; none is
// what comes when ctx ends.
func (c *Controller) AgentCalls(ctx context.Context, a store.Agent, have []string) ([]json.RawMessage, error) {
	key := [2]string{a.Farm, a.Node}
	s := c.agents.calls.polling.sit(key, have)
	defer c.agents.calls.polling.leave(key, s)
	got, err := c.agents.calls.polling.wait(ctx, s)
	if err != nil && ctx.Err() != nil {
		return nil, nil
	}
	return got, err
}

// findCalls gives the agents that wait here what they are to do.
func (c *Controller) findCalls(ctx context.Context, b *lounge[[2]string, []json.RawMessage]) error {
	var rows []store.CallRow
	err := c.Store.View(ctx, func(tx *store.Tx) error {
		open, err := tx.OpenCalls(ctx)
		if err != nil || len(open) == 0 {
			return err
		}
		rows, err = tx.Calls(ctx, wantedBy(b.seats(), open))
		return err
	})
	if err != nil {
		return err
	}
	forAgent, size := map[[2]string][]json.RawMessage{}, map[[2]string]int{}
	for _, r := range rows {
		key := [2]string{r.Farm, r.Node}
		if size[key] += len(r.Sealed); size[key] > handedBytes && len(forAgent[key]) > 0 {
			continue // the next poll has it
		}
		text, err := c.keyring().Open(secret.RecordID(r.Farm, sealedCall, r.ID), r.Sealed)
		if err != nil {
			c.Log.Warn("open a call to an agent", "node", r.Node, "error", err) // who waits for it gives up in time
			continue
		}
		forAgent[key] = append(forAgent[key], json.RawMessage(text.Reveal()))
	}
	for key, all := range forAgent {
		b.give(key, all)
	}
	return nil
}

// wantedBy are the ids of the open calls that agents wait for and do not have, by what
// each of them has.
func wantedBy(seats map[[2]string][]string, open []store.CallID) (ids []string) {
	given := map[[2]string]int{}
	for _, o := range open {
		key := [2]string{o.Farm, o.Node}
		have, waits := seats[key]
		if waits && given[key] < handedOut && !slices.Contains(have, o.ID) {
			ids = append(ids, o.ID)
			given[key]++
		}
	}
	return ids
}

// AgentAnswer takes an agent's answer. It reports whether somebody waited for it:
// the call is one to that node, and has no answer yet.
func (c *Controller) AgentAnswer(ctx context.Context, a store.Agent, id string, answer []byte) (bool, error) {
	sealed, err := c.seal(a.Farm, sealedCall, id+" answer", farm.NewSecret(answer))
	if err != nil {
		return false, err
	}
	return c.agents.calls.answers.run(ctx, store.CallRow{CallID: store.CallID{Farm: a.Farm, Node: a.Node, ID: id}, Sealed: sealed})
}

// seen is when an agent was last heard of, as far as it is known here.
func (a *agents) seen(row store.Agent) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if k, ok := a.byPin[row.Pin]; ok && k.at.After(row.Seen) {
		return k.at
	}
	return row.Seen
}
