package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/store"
)

// What rolling out is measured with.
const (
	rolloutNodes  = 100
	rolloutRounds = 5
	inARow        = 10 // nodes that are done one after another; the others take as long
)

// measureRollout compares a rollout of one certificate to 100 nodes (one wave,
// all at once, no soak), from its first transaction to its last, with bare
// deployments: the same kind's Stage and Activate, the same handshakes and
// Inspect, for all nodes at once, without waiting for each other, without a store
// and without a rollout. Both go through the same SSH connections, which are open
// already, and make the same remote calls, which are counted.
func measureRollout(ctx context.Context, dir string) ([]figure, error) {
	t, err := newRolloutTest(ctx, filepath.Join(dir, "rollout"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = t.lab.Close() }() // the figures are there
	var ours, bare []float64
	var notes []string
	for round := range rolloutRounds + 1 { // the first warms up
		var counted [2]int64
		var took [2]time.Duration
		for i, run := range []func(context.Context) (time.Duration, error){t.ours, t.bare} {
			before := t.hosts.calls.Load()
			if took[i], err = run(ctx); err != nil {
				return nil, err
			}
			counted[i] = t.hosts.calls.Load() - before
		}
		if round == 0 {
			continue
		}
		ours, bare = append(ours, took[0].Seconds()), append(bare, took[1].Seconds())
		notes = append(notes, fmt.Sprintf("round %d: ours %.2fs with %d remote calls, bare %.2fs with %d",
			round, took[0].Seconds(), counted[0], took[1].Seconds(), counted[1]))
	}
	row, err := t.row(ctx)
	if err != nil {
		return nil, err
	}
	all := figure{name: "rollout", unit: "s", value: median(ours), floor: median(bare), goal: atMost(1.3), notes: notes}
	faster := figure{name: "rollout-faster", unit: "s", value: median(ours), floor: row.Seconds(), goal: atLeast(10)}
	faster.ratio = faster.floor / faster.value
	faster.notes = []string{fmt.Sprintf("one after another: %d nodes measured, times %d", inARow, rolloutNodes/inARow)}
	return []figure{all, faster}, nil
}

// A rolloutTest is a lab of 100 nodes, each 20 ms away, whose server takes 100 ms
// to reload.
type rolloutTest struct {
	lab    *lab.Lab
	hosts  *hosts
	ended  ended
	config controller.Config
	peer   *peer
}

func newRolloutTest(ctx context.Context, dir string) (*rolloutTest, error) {
	t := &rolloutTest{hosts: &hosts{lines: map[string]linked{}}, ended: make(ended, 1)}
	policy := lab.LabPolicy()
	policy.Canary, policy.Soak, policy.MaxParallel = farm.Share{}, 0, rolloutNodes
	policy.Deadline, policy.HealthyDeadline, policy.Drift = 30*time.Second, 30*time.Second, farm.Report
	var err error
	if t.peer, err = newPeer(t, dir); err != nil {
		return nil, err
	}
	t.lab, err = lab.Start(ctx, lab.Options{
		Layout: lab.Layout{Dir: dir, Nodes: rolloutNodes, ReloadTime: 100 * time.Millisecond, RTT: 20 * time.Millisecond},
		File:   lab.FarmFile{Policy: policy},
		CA:     issuetest.Options{BadNonce: -1},
		Controlling: lab.Controlling{Adjust: func(c *controller.Config) {
			c.Hosts = t.hosts.through(c.Hosts)
			c.Notifier = t.ended
			c.Workers = 2 * rolloutNodes
			c.Pace.Look, c.Pace.Late = time.Hour, time.Hour // looks are no part of it
			t.config = *c
		}},
	})
	if err != nil {
		return nil, err
	}
	if _, err = t.lab.Apply(ctx); err == nil {
		_, err = t.done(ctx)
	}
	if err == nil {
		err = t.peer.meet(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, t.lab.Close())
	}
	return t, nil
}

// ours imports a new certificate and tells how long its rollout took. The lab's CA
// gives no more than four in a week.
func (t *rolloutTest) ours(ctx context.Context) (time.Duration, error) {
	d, err := t.peer.fresh()
	if err != nil {
		return 0, err
	}
	if _, err := t.lab.Controller.Import(ctx, t.lab.Farm, t.lab.Site, d.bundle.Chain, d.bundle.Key, "bench"); err != nil {
		return 0, err
	}
	return t.done(ctx)
}

// done waits for the end of a rollout, and until the controller rests again.
func (t *rolloutTest) done(ctx context.Context) (took time.Duration, err error) {
	var id string
	select {
	case id = <-t.ended:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	var r farm.Rollout
	err = t.config.Store.View(ctx, func(tx *store.Tx) error {
		r, err = tx.Rollout(ctx, t.lab.Farm, id)
		return err
	})
	if err == nil && r.Outcome != farm.Done {
		err = fmt.Errorf("the rollout ended as %s: %s", r.Outcome, r.Why)
	}
	if err != nil {
		return 0, err
	}
	return r.Ended.Sub(r.Created), t.rests(ctx)
}

// rests waits until no job runs or is due.
func (t *rolloutTest) rests(ctx context.Context) error {
	for {
		written := t.config.Store.Written()
		busy := false
		err := t.config.Store.View(ctx, func(tx *store.Tx) error {
			jobs, err := tx.Jobs(ctx, t.lab.Farm, 1)
			busy = len(jobs) > 0 && (jobs[0].Owner != "" || !jobs[0].RunAt.After(tx.Now()))
			return err
		})
		if err != nil || !busy {
			return err
		}
		select {
		case <-written:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// bare deploys to all nodes at once.
func (t *rolloutTest) bare(ctx context.Context) (time.Duration, error) {
	d, err := t.known(ctx)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range t.peer.places {
		g.Go(func() error { return d.deploy(ctx, p) })
	}
	err = g.Wait()
	return time.Since(begin), err
}

// known is a fresh certificate that the controller takes for an older one of its
// own: a stranger's it would not replace.
func (t *rolloutTest) known(ctx context.Context) (delivery, error) {
	d, err := t.peer.fresh()
	if err != nil {
		return d, err
	}
	leaf, err := encode.Facts(d.bundle.Chain)
	if err != nil {
		return d, err
	}
	return d, t.config.Store.Update(ctx, func(tx *store.Tx) error {
		return tx.PutVersion(ctx, farm.Version{
			ID: store.NewID("ver"), Farm: t.lab.Farm, Site: t.lab.Site, Names: d.site.Names, Created: tx.Now(),
			State: farm.VersionWithdrawn, Leaves: []farm.Leaf{leaf},
		})
	})
}

// row deploys to some nodes one after another and tells how long all would take.
func (t *rolloutTest) row(ctx context.Context) (time.Duration, error) {
	d, err := t.known(ctx)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	for _, p := range t.peer.places[:inARow] {
		if err := d.deploy(ctx, p); err != nil {
			return 0, err
		}
	}
	return time.Since(begin) * rolloutNodes / inARow, nil
}

// ended is a notifier that hands on the ids of rollouts that have ended.
type ended chan string

// Notify hands on; see notify.Notifier.
func (e ended) Notify(ctx context.Context, events []farm.Event) error {
	for _, event := range events {
		if event.Rollout == "" || event.Kind != "rollout."+string(farm.Done) && event.Level != farm.Alarm {
			continue
		}
		select {
		case e <- event.Rollout:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
