package controller

import (
	"cmp"
	"context"
	"reflect"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/rollout"
	"github.com/certfarm/certfarm/internal/store"
)

// turn picks those places whose turn it is to get a version: first all without a
// window of their own, as one transaction; when that has ended, those with one, as
// their windows open, the ones with the same windows together. So nobody waits for
// a target that may be changed on Sundays only, and it gets nothing that the others
// did not take. Where it is nobody's turn, it says when that changes.
func turn(ctx context.Context, tx *store.Tx, places []farm.Place) (ready []farm.Place, opens time.Time, err error) {
	for _, p := range places {
		if len(p.Target.Windows) == 0 {
			ready = append(ready, p)
			continue
		}
		flees, err := fleeing(ctx, tx, p)
		if err != nil {
			return nil, opens, err
		}
		if flees { // no window holds who leaves a key that others know
			ready = append(ready, p)
		}
	}
	if len(ready) > 0 {
		return ready, time.Time{}, nil
	}
	for _, p := range places {
		open, at, err := mayChange(ctx, tx, p)
		switch {
		case err != nil:
			return nil, opens, err
		case !open:
			opens = sooner(opens, at)
		default:
			ready = append(ready, p)
		}
	}
	return alike(ready), opens, nil
}

// alike picks, of places whose windows are open, those that go with the one that
// failed least often: what fails again and again must not keep the others from
// theirs.
func alike(open []farm.Place) []farm.Place {
	if len(open) == 0 {
		return nil
	}
	first := slices.MinFunc(open, func(a, b farm.Place) int { return cmp.Compare(a.Tries, b.Tries) })
	return slices.DeleteFunc(open, func(p farm.Place) bool { return !reflect.DeepEqual(p.Target.Windows, first.Target.Windows) })
}

// mayChange reports that a target's own window is open, or so little is left of
// the life of what it serves that windows give way; and if not, when that will be.
func mayChange(ctx context.Context, tx *store.Tx, p farm.Place) (may bool, opens time.Time, err error) {
	open, opens := farm.Open(p.Target.Windows, tx.Now())
	if open {
		return true, time.Time{}, nil
	}
	if flees, err := fleeing(ctx, tx, p); err != nil || flees {
		return flees, opens, err
	}
	from, err := live(ctx, tx, p)
	if err != nil {
		return false, opens, err
	}
	r := farm.Rollout{Steps: []farm.Step{{State: farm.Planned, From: from}}}
	return rollout.Pressing(r, tx.Now()), sooner(opens, rollout.Presses(r)), nil
}

// sooner is the earlier of two times, of which zero is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// fleeing reports that a key that others know may be live on a target, so that
// nothing may bring back what is: it should hold one, or its site had one and it is
// not known to hold what it should.
func fleeing(ctx context.Context, tx *store.Tx, p farm.Place) (bool, error) {
	held, err := everHeld(ctx, tx, p.Farm, p.Target.Site)
	return flees(p, held, tx.Now()), err
}

// flees is fleeing, by the versions that the target's site ever had.
func flees(p farm.Place, held []farm.Version, now time.Time) bool {
	sure := p.Drift == "" && p.Late == "" && p.Purge.IsZero()
	return slices.ContainsFunc(held, func(v farm.Version) bool {
		return v.State == farm.VersionCompromised && (!sure && now.Before(v.NotAfter()) || slices.Contains(p.Desired, v.ID))
	})
}
