package controller

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/rollout"
	"github.com/certfarm/certfarm/internal/store"
)

// An activation waits for company: while other targets of the reload group are
// being staged, so that one reload does for all that become due together. It waits as
// long as that goes on and more become ready, and not for one node that hangs.
const (
	companyStalled = 30 * time.Second // with none more that is ready
	companyLongest = 10 * time.Minute // whatever goes on
	companyEvery   = 50 * time.Millisecond
	companyEach    = time.Millisecond // more between two looks, for each that is ready: to look costs more, too
	companySeldom  = time.Second      // at the most between two looks
)

// A gathering is a reload group whose activations wait for company. It is a matter of
// patience alone: who takes the lane over begins to wait anew.
type gathering struct {
	looked map[string]bool // rollouts that do not press
	ready  int
	began  time.Time
	moved  time.Time // when one more became ready
}

// company says how long an activation had better wait: a rollout that concerns the
// same reload group still stages something, or is about to decide. Zero: it need not.
// Nothing waits where little life is left.
func (c *Controller) company(ctx context.Context, j farm.Job, group string) (wait time.Duration, err error) {
	now, key := c.Now(), j.Farm+" "+group
	kept, _ := c.gathered.LoadOrStore(key, &gathering{looked: map[string]bool{}, began: now, moved: now})
	g := kept.(*gathering) // the lane has one act at a time
	var more bool
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		ready, err := tx.Doing(ctx, j.Farm, group, farm.DoActivate, switchesAtOnce)
		if err != nil || len(ready) == 0 || len(ready) == switchesAtOnce {
			return err
		}
		if pressing, err := g.pressing(ctx, tx, j.Farm, ready, now); pressing || err != nil {
			return err
		}
		if g.patient(len(ready), now) {
			more, err = awaited(ctx, tx, j.Farm, group)
		}
		return err
	})
	if err != nil || !more {
		c.gathered.Delete(key)
		return 0, err
	}
	return min(companyEvery+time.Duration(g.ready)*companyEach, companySeldom), nil
}

// patient notes how many are ready, and reports that there is no end of patience yet.
func (g *gathering) patient(ready int, now time.Time) bool {
	if g.ready != ready {
		g.ready, g.moved = ready, now
	}
	return now.Before(g.moved.Add(companyStalled)) && now.Before(g.began.Add(companyLongest))
}

// awaited reports that more may become ready soon. Mostly that is seen by the group itself,
// which is asked first: to ask all that it concerns goes through every running rollout.
func awaited(ctx context.Context, tx *store.Tx, farmName, group string) (bool, error) {
	own, err := tx.Doing(ctx, farmName, group, farm.DoStage, 1)
	if len(own) > 0 || err != nil {
		return true, err
	}
	more, err := tx.Staging(ctx, farmName, group)
	if more || err != nil {
		return more, err
	}
	return tx.Deciding(ctx, farmName, group)
}

// pressing reports that one of the rollouts cannot wait. Each is looked at once: the
// wait is short beside the life that is left of any that does not press.
func (g *gathering) pressing(ctx context.Context, tx *store.Tx, farmName string, ready []store.Doing, now time.Time) (bool, error) {
	var ids []store.StepID
	for _, d := range ready {
		if !g.looked[d.Rollout] {
			ids = append(ids, store.StepID{Rollout: d.Rollout, Target: d.Target})
		}
	}
	rollouts, err := tx.RolloutsFor(ctx, farmName, ids)
	if err != nil {
		return false, err
	}
	for id, r := range rollouts {
		if rollout.Pressing(r, now) {
			return true, nil
		}
		g.looked[id.Rollout] = true
	}
	return false, nil
}

// A group is what the acts on targets of one reload group, that are done together,
// have in common: what the Stage of one target says for the others, and the way to
// their node.
type group struct {
	mu     sync.Mutex
	tested bool  // its configuration passed the server's own test
	err    error // or did not

	way      sync.Mutex
	lines    map[string]line // by node; there is one, but for a share
	settings *store.Settings // of the farm; nil: not read yet
}

// line is the way to a node, found once.
func (g *group) line(ctx context.Context, c *Controller, farmName, node string) (line, error) {
	g.way.Lock()
	defer g.way.Unlock()
	if l, ok := g.lines[node]; ok {
		return l, nil
	}
	l, err := c.line(ctx, farmName, node)
	if err == nil {
		if g.lines == nil {
			g.lines = map[string]line{}
		}
		g.lines[node] = l
	}
	return l, err
}

// farmSettings are the farm's settings, read once.
func (g *group) farmSettings(ctx context.Context, c *Controller, farmName string) (store.Settings, error) {
	g.way.Lock()
	defer g.way.Unlock()
	if g.settings == nil {
		s, err := c.settings(ctx, farmName)
		if err != nil {
			return s, err
		}
		g.settings = &s
	}
	return *g.settings, nil
}

func (g *group) known() (tested bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.tested, g.err
}

// learn keeps what a Stage said of the group's configuration.
func (g *group) learn(ctx context.Context, r deploy.Receipt, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tested = g.tested || r.Tested
	if errors.Is(err, deploy.ErrTest) && !errors.Is(err, host.ErrUnreachable) && ctx.Err() == nil {
		g.err = err
	}
}
