package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// rounds is how often one claim looks again because all it found waits for a
// lane. What it found is out of the way the next time, so a later claim goes on
// from there.
const rounds = 8

// further is how many jobs the later rounds look at.
const further = 256

// soon is when to look again for a job that is due and that another controller
// was looking at.
const soon = 100 * time.Millisecond

// Claim leases up to n due jobs to owner, no two of a lane. With fewer than n
// there is nothing more to do now, and next says when to look again (zero: nothing
// waits). A job whose owner has let its lease end is claimed like one that waits.
//
// The cost depends on how many are claimed and not on how many there are: the look
// goes along the index of what is due, and a job that waits for its lane is looked
// at once in a lease.
func (s *Store) Claim(ctx context.Context, owner string, n int, lease time.Duration) (jobs []farm.Job, next time.Time, err error) {
	ctx, cancel := s.patient(ctx)
	defer cancel()
	err = s.View(ctx, func(t *Tx) error {
		next, err = t.nextDue(ctx)
		return err
	})
	if err != nil || next.IsZero() || next.After(s.clock()) {
		return nil, next, err // no transaction that writes is begun for nothing
	}
	var c claim
	err = s.commit(ctx, sql.LevelReadCommitted, true, func(t *Tx) error {
		c = claim{Tx: t, owner: owner, nonce: rand.Text(), until: t.now.Add(lease)}
		if err := c.all(ctx, n); err != nil {
			return err
		}
		next, err = t.nextDue(ctx)
		return err
	})
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("claim jobs: %w", err)
	}
	if here := s.clock(); !c.more && !next.IsZero() && !next.After(here) {
		next = here.Add(soon) // another controller looks at it
	}
	return c.got, next, nil
}

// clock is the time by which nextDue speaks.
func (s *Store) clock() time.Time {
	if s.options.Now != nil {
		return s.options.Now()
	}
	return time.Now()
}

// nextDue is when the next job is due, zero if there is none. The database's time
// decides, but the answer is in this machine's, so that the caller can wait for it.
func (t *Tx) nextDue(ctx context.Context) (time.Time, error) {
	var due sql.NullInt64
	if err := t.row(ctx, `SELECT MIN(due) FROM jobs`).Scan(&due); err != nil {
		return time.Time{}, fmt.Errorf("look what is due: %w", err)
	}
	if !due.Valid {
		return time.Time{}, nil
	}
	return t.s.clock().Add(max(0, instant(due.Int64).Sub(t.now))), nil
}

// A claim is one transaction that leases jobs.
type claim struct {
	*Tx
	owner, nonce string
	until        time.Time
	got          []farm.Job
	more         bool // the last round may have left some that are due
}

// all goes round until n are claimed or nothing more is due.
func (c *claim) all(ctx context.Context, n int) error {
	look := n
	for range rounds {
		if err := c.round(ctx, n-len(c.got), look); err != nil {
			return err
		}
		if len(c.got) == n || !c.more {
			return nil
		}
		look = max(n, further)
	}
	return nil
}

// lane names a lane.
type lane struct{ farm, name string }

// A candidate is a job that is due.
type candidate struct {
	farm.Job
	busy bool // its lane is leased
}

// round looks at some jobs that are due, leases those whose lane is free, at most
// n, and puts off the others until their lane is free.
func (c *claim) round(ctx context.Context, n, look int) error {
	due, err := c.due(ctx, look)
	if err != nil || len(due) == 0 {
		return err
	}
	chosen, behind := c.choose(due, n)
	wanted := map[lane]string{}
	for _, j := range chosen {
		if j.Lane != "" {
			wanted[lane{j.Farm, j.Lane}] = j.ID
		}
	}
	epochs, err := c.take(ctx, wanted)
	if err != nil {
		return err
	}
	var got []farm.Job
	for _, j := range chosen {
		epoch, free := epochs[lane{j.Farm, j.Lane}]
		if j.Lane == "" {
			epoch, free = max(j.Epoch+1, c.now.UnixMilli()), true
		}
		if !free { // another controller was quicker
			behind = append(behind, j)
			continue
		}
		j.Attempt, j.Epoch, j.Nonce = j.Attempt+1, epoch, c.nonce
		got = append(got, j)
	}
	c.got = append(c.got, got...)
	if err := c.lease(ctx, got); err != nil {
		return err
	}
	return c.putOff(ctx, behind)
}

// choose takes up to n jobs of lanes that are free, one of each, and says which
// stand behind another of their lane.
func (c *claim) choose(due []candidate, n int) (chosen, behind []farm.Job) {
	taken := map[lane]bool{}
	for _, j := range due {
		l := lane{j.Farm, j.Lane}
		switch {
		case j.busy || taken[l]:
			behind = append(behind, j.Job)
		case len(chosen) == n:
			c.more = true
		default:
			chosen = append(chosen, j.Job)
			taken[l] = j.Lane != ""
		}
	}
	return chosen, behind
}

// due reads up to n jobs that are due and that no other transaction has locked.
func (c *claim) due(ctx context.Context, n int) ([]candidate, error) {
	var all []candidate
	err := c.each(ctx, func(scan func(...any) error) error {
		var until int64
		j, err := jobRow(scan, &until)
		all = append(all, candidate{j.Job, until > micros(c.now)})
		return err
	}, `SELECT `+jobColumns+`, COALESCE((SELECT l.until FROM lanes l WHERE l.farm = jobs.farm AND l.lane = jobs.lane), 0)
		FROM jobs WHERE due <= ? ORDER BY due, id LIMIT ?`+skipLocked, micros(c.now), n)
	c.more = len(all) == n
	return all, err
}

// take leases lanes to jobs and returns the epochs of those that were free. An
// epoch is larger than every one before, even where the lane was forgotten or a
// failover lost the last commits: it is at least the time in milliseconds.
func (c *claim) take(ctx context.Context, wanted map[lane]string) (map[lane]int64, error) {
	epochs := map[lane]int64{}
	lanes := make([]lane, 0, len(wanted))
	for l := range wanted {
		lanes = append(lanes, l)
	}
	slices.SortFunc(lanes, func(a, b lane) int { // two claims lock in one order
		return cmp.Or(cmp.Compare(a.farm, b.farm), cmp.Compare(a.name, b.name))
	})
	for part := range slices.Chunk(lanes, maxRows) {
		var args []any
		for _, l := range part {
			args = append(args, l.farm, l.name, wanted[l], micros(c.until), c.now.UnixMilli(), c.nonce)
		}
		err := c.each(ctx, func(scan func(...any) error) error {
			var l lane
			var epoch int64
			err := scan(&l.farm, &l.name, &epoch)
			epochs[l] = epoch
			return err
		}, `INSERT INTO lanes (farm, lane, job, until, epoch, nonce) VALUES `+values(len(part), "(?, ?, ?, ?, ?, ?)")+`
			ON CONFLICT (farm, lane) DO UPDATE SET job = excluded.job, until = excluded.until, nonce = excluded.nonce,
				epoch = CASE WHEN lanes.epoch >= excluded.epoch THEN lanes.epoch + 1 ELSE excluded.epoch END
			WHERE lanes.until <= ?
			RETURNING farm, lane, epoch`, append(args, micros(c.now))...)
		if err != nil {
			return nil, fmt.Errorf("lease lanes: %w", err)
		}
	}
	return epochs, nil
}

// lease writes the leases of jobs.
func (c *claim) lease(ctx context.Context, jobs []farm.Job) error {
	for part := range slices.Chunk(jobs, maxRows) {
		args := []any{c.owner, micros(c.now), micros(c.until), c.nonce, micros(c.now)}
		for _, j := range part {
			args = append(args, j.ID, j.Epoch)
		}
		err := c.put(ctx, "lease jobs", `UPDATE jobs SET owner = ?, since = ?, due = ?, nonce = ?, attempt = attempt + 1, epoch = v.column2,
				dirty = CASE WHEN dirty <= ? THEN 0 ELSE dirty END
			FROM (VALUES `+values(len(part), "(?, CAST(? AS BIGINT))")+`) AS v WHERE jobs.id = v.column1`, args...)
		if err != nil {
			return err
		}
	}
	return nil
}

// putOff makes jobs due again when the lease of their lane ends. Finishing the
// job that has the lane makes the next one due at once.
func (c *claim) putOff(ctx context.Context, jobs []farm.Job) error {
	for part := range slices.Chunk(jobs, maxRows) {
		var args []any
		for _, j := range part {
			args = append(args, j.ID)
		}
		err := c.put(ctx, "put off jobs", `UPDATE jobs SET due = (SELECT l.until FROM lanes l WHERE l.farm = jobs.farm AND l.lane = jobs.lane)
			WHERE id IN (`+values(len(part), "?")+`)`, args...)
		if err != nil {
			return err
		}
	}
	return nil
}

// RaiseLane makes the epoch of a lane at least this, as a place has seen that fences.
// Who has the lane loses its lease by that: what it writes is refused, and its job is
// done again with a higher epoch. It reports whether the epoch was lower.
func (t *Tx) RaiseLane(ctx context.Context, farmName, name string, epoch int64) (raised bool, err error) {
	err = t.each(ctx, func(scan func(...any) error) error {
		raised = true
		return scan(&name)
	}, `UPDATE lanes SET epoch = ? WHERE farm = ? AND lane = ? AND epoch < ? RETURNING lane`, epoch, farmName, name, epoch)
	if err != nil {
		return false, fmt.Errorf("raise the epoch of %s: %w", name, err)
	}
	return raised, nil
}
