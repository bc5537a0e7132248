package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/remote"
	"github.com/certfarm/certfarm/internal/farm"
)

// What agents are measured with.
const (
	agentCount  = 1000
	agentDead   = agentCount * 5 / 100 // have joined, and do not run
	agentFlaps  = agentCount * 2 / 100 // come for a moment, go, and come again
	agentRounds = 9
	agentWithin = 5 * time.Minute
)

// measureAgents has a thousand agents, each on a TLS connection of its own, make live
// at the same moment what was staged on them, by way of the store and the door; the
// floor is a server that has the same calls at hand as bytes and writes them to the
// same agents. Then the same with some of them dead, and some that come and go.
func measureAgents(ctx context.Context, dir string) (figures []figure, err error) {
	c, err := newCrowd(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	all, err := c.measure(ctx, agentCount, 0)
	if err != nil {
		return nil, err
	}
	some, err := c.measure(ctx, agentCount-agentDead, agentFlaps)
	if err != nil {
		return nil, err
	}
	all.name, some.name = "agents", "agents-some-dead"
	some.notes = append(some.notes, fmt.Sprintf("%d that do not run and %d that come and go are called with the others; nobody waits for them", agentDead, agentFlaps))
	return []figure{all, some}, nil
}

// A sender brings calls to agents, one each, and says when it began and what the first
// count answered, by node; the others are called, too, and not waited for.
type sender struct {
	name  string
	url   string
	here  func(ctx context.Context) (int, error) // agents that wait for a call
	bring func(ctx context.Context, calls []remote.Call, count int) (answers map[string]remote.Answer, began time.Time, err error)
}

// A side is a sender with agents of its own, and what was measured of it.
type side struct {
	sender
	*people
	stages, activates []float64     // ms, the p99 of each round
	took              time.Duration // of this process's processor time
}

// measure starts agents for both senders and has each call its own some rounds, in
// turns.
func (c *crowd) measure(ctx context.Context, running, flapping int) (f figure, err error) {
	ctx, cancel := context.WithTimeout(ctx, agentWithin)
	defer cancel()
	bare, own := &side{sender: c.bare}, &side{sender: c.own}
	for _, s := range []*side{bare, own} {
		if s.people, err = c.start(ctx, agentsSpec{Dir: c.dirOf(s.name), Server: s.url, Running: running, Flapping: flapping}); err != nil {
			return f, err
		}
		defer func() { err = errors.Join(err, s.end()) }()
	}
	for round := range agentRounds + 1 { // the first only warms up
		for _, s := range []*side{bare, own} {
			if err := s.round(ctx, running-flapping, round); err != nil {
				return f, fmt.Errorf("%s, round %d: %w", s.name, round, err)
			}
		}
	}
	memory, agents, err := own.resident()
	f = figure{unit: "ms", goal: atMost(2), value: median(own.activates), floor: median(bare.activates), notes: []string{
		fmt.Sprintf("from the call's way into the store until it is live on the node: p99 of %d agents, median of %d rounds", running-flapping, agentRounds),
		fmt.Sprintf("staging, with chain and key in the call: %.4g ms, and %.4g ms by the bare server", median(own.stages), median(bare.stages)),
		fmt.Sprintf("processor time for a round of two calls: %.2f s, and %.2f s of the bare server", own.took.Seconds()/agentRounds, bare.took.Seconds()/agentRounds),
		fmt.Sprintf("resident: %.0f MB with both servers, %.0f MB with these agents", memory, agents),
	}}
	return f, err
}

// round stages a certificate on every node and makes it live.
func (s *side) round(ctx context.Context, steady, round int) error {
	bundle, err := deploy.Throwaway([]string{agentsName}, farm.EC256, time.Now())
	if err != nil {
		return err
	}
	before, err := processorTime()
	if err != nil {
		return err
	}
	staged, stage, err := s.tell(ctx, steady, func(i int) remote.Call {
		call := agentCall(s.name, remote.DoStage, round, i)
		call.Stage = deploy.Stage{Site: "shop", Names: bundle.Names, Epoch: call.Lease.Epoch, Bundles: []farm.Bundle{bundle}}
		return call
	})
	if err != nil {
		return fmt.Errorf("stage: %w", err)
	}
	_, activate, err := s.tell(ctx, steady, func(i int) remote.Call {
		call := agentCall(s.name, remote.DoActivate, round, i)
		call.Receipts = []deploy.Receipt{staged[call.Node].Receipt}
		return call
	})
	if err != nil {
		return fmt.Errorf("activate: %w", err)
	}
	if round == 0 {
		return nil
	}
	after, err := processorTime()
	s.stages, s.activates, s.took = append(s.stages, stage), append(s.activates, activate), s.took+after-before
	return err
}

// tell calls every agent at once, and returns the answers and after how many ms 99 of
// 100 had done it.
func (s *side) tell(ctx context.Context, steady int, call func(i int) remote.Call) (map[string]remote.Answer, float64, error) {
	if err := await(ctx, s.sender, steady); err != nil {
		return nil, 0, err
	}
	calls := make([]remote.Call, agentCount)
	for i := range calls {
		calls[i] = call(i)
	}
	answers, began, err := s.bring(ctx, calls, steady)
	if err != nil {
		return nil, 0, err
	}
	var took []float64
	for _, one := range calls[:steady] {
		if text := answers[one.Node].Error; text != "" {
			return nil, 0, fmt.Errorf("%s: %s", one.Node, text)
		}
		at, err := s.done(ctx, one.ID)
		if err != nil {
			return nil, 0, err
		}
		took = append(took, at.Sub(began).Seconds()*1000)
	}
	slices.Sort(took)
	return answers, took[len(took)*99/100], nil
}

// await waits until so many agents hang on a server.
func await(ctx context.Context, by sender, count int) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		n, err := by.here(ctx)
		if err != nil || n >= count {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d agents came: %w", n, count, ctx.Err())
		case <-tick.C:
		}
	}
}

// agentCall is what an agent is asked, but for what is staged or made live.
func agentCall(by string, do remote.Verb, round, i int) remote.Call {
	node := agentName(i)
	return remote.Call{
		ID: fmt.Sprintf("%s-%s-%d-%s-%d", by, do, round, node, time.Now().UnixNano()), Do: do, Farm: benchFarm, Node: node,
		At: time.Now(), Deadline: time.Minute, Target: "shop/files@" + node, Kind: "files", Options: []byte(agentsOptions), Lane: "node " + node,
		Lease: deploy.Lease{Owner: "bench", Epoch: time.Now().UnixMilli(), Nonce: fmt.Sprintf("%s %d", by, round)},
	}
}
