package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// Apply writes what a job's result says, in the transaction that finishes the
// job. It may be run more than once, like the function of an Update. Enqueueing
// the job itself from here makes it run again.
type Apply func(ctx context.Context, tx *Tx, f farm.Finished) error

// Renew extends the leases of jobs that owner runs and returns the ids of those
// that are lost. A lease that ended and that nobody has taken is extended too.
func (s *Store) Renew(ctx context.Context, owner string, jobs []farm.Job, lease time.Duration) (lost []string, err error) {
	if len(jobs) == 0 {
		return nil, nil
	}
	err = s.commit(ctx, sql.LevelReadCommitted, false, func(t *Tx) error {
		lost = nil
		gone, err := t.lost(ctx, jobs)
		if err != nil {
			return err
		}
		kept := make([]farm.Job, 0, len(jobs))
		for _, j := range jobs {
			if gone[j.ID] {
				lost = append(lost, j.ID)
			} else {
				kept = append(kept, j)
			}
		}
		return t.extend(ctx, owner, kept, t.now.Add(lease))
	})
	if err != nil {
		return nil, fmt.Errorf("renew leases: %w", err)
	}
	return lost, nil
}

func (t *Tx) extend(ctx context.Context, owner string, jobs []farm.Job, until time.Time) error {
	for part := range slices.Chunk(jobs, maxRows) {
		args := []any{micros(until)}
		for _, j := range part {
			args = append(args, j.ID)
		}
		in := ` IN (` + values(len(part), "?") + `)`
		if err := t.put(ctx, "extend jobs", `UPDATE jobs SET due = ? WHERE id`+in+` AND owner = ?`, append(args, owner)...); err != nil {
			return err
		}
		args = append(args[:len(part)+1], keys(lanesOf(part))...)
		if len(args) == len(part)+1 {
			continue
		}
		err := t.put(ctx, "extend lanes", `UPDATE lanes SET until = ? WHERE job`+in+` AND (farm, lane) IN (VALUES `+values(len(lanesOf(part)), "(?, ?)")+`)`, args...)
		if err != nil {
			return err
		}
	}
	return nil
}

// lost reads which of the jobs have lost their lease, or the lane's, and locks
// the others until the transaction ends.
func (t *Tx) lost(ctx context.Context, jobs []farm.Job) (map[string]bool, error) {
	gone := make(map[string]bool, len(jobs))
	claimed := make(map[string]farm.Job, len(jobs))
	for _, j := range jobs {
		gone[j.ID], claimed[j.ID] = true, j
	}
	for part := range slices.Chunk(jobs, maxRows) {
		var args []any
		for _, j := range part {
			args = append(args, j.ID)
		}
		query := `SELECT id, epoch, nonce FROM jobs WHERE owner <> '' AND (lane = '' OR EXISTS (SELECT 1 FROM lanes l
			WHERE l.farm = jobs.farm AND l.lane = jobs.lane AND l.job = jobs.id AND l.epoch = jobs.epoch AND l.nonce = jobs.nonce))
			AND id IN (` + values(len(part), "?") + `) ORDER BY id` + t.locking()
		err := t.each(ctx, func(scan func(...any) error) error {
			var id, nonce string
			var epoch int64
			err := scan(&id, &epoch, &nonce)
			gone[id] = claimed[id].Epoch != epoch || claimed[id].Nonce != nonce
			return err
		}, query, args...)
		if err != nil {
			return nil, fmt.Errorf("read leases: %w", err)
		}
	}
	return gone, nil
}

// locking is what makes PostgreSQL lock the rows that a query returns; a reader,
// and SQLite, need none.
func (t *Tx) locking() string {
	if t.s.postgres {
		return " FOR UPDATE"
	}
	return ""
}

// Finish applies the results of jobs that owner ran and ends the jobs, all in one
// transaction. If one result cannot be applied, each gets a transaction of its
// own, so that it harms no other; that job is kept with its error, to run again,
// and its error here wraps ErrRefused. A job whose lease is lost gets ErrLost, and
// nothing of it is written. The errors are in the order of done, nil where all
// went well.
//
// A job without an error and without Again is over. With Again it runs then; with
// an error and no Again after farm.Job.Backoff. If it was enqueued while it ran, it
// runs at the time that was asked for, if that is earlier.
func (s *Store) Finish(ctx context.Context, owner string, done []farm.Finished, apply Apply) []error {
	errs, err := s.finish(ctx, owner, done, apply)
	if err == nil {
		return errs
	}
	if _, refused := errors.AsType[refusal](err); !refused {
		return slices.Repeat([]error{err}, len(done))
	}
	errs = make([]error, len(done))
	for i, f := range done {
		errs[i] = s.finishOne(ctx, owner, f, apply)
	}
	return errs
}

// A refusal is an error of Apply, as against one of the database.
type refusal struct{ error }

// Unwrap returns the error of Apply.
func (r refusal) Unwrap() error { return r.error }

func (s *Store) finishOne(ctx context.Context, owner string, f farm.Finished, apply Apply) error {
	errs, err := s.finish(ctx, owner, []farm.Finished{f}, apply)
	if err == nil {
		return errs[0]
	}
	refused, is := errors.AsType[refusal](err)
	if !is || ctx.Err() != nil {
		return err
	}
	f.Result = farm.Result{Err: refused.error}
	errs, err = s.finish(ctx, owner, []farm.Finished{f}, func(context.Context, *Tx, farm.Finished) error { return nil })
	if err != nil {
		return err
	}
	if errs[0] != nil {
		return errs[0]
	}
	return fmt.Errorf("job %s %s: %w: %w", f.Job.Kind, f.Job.Subject, ErrRefused, refused.error)
}

// finish is one transaction. Its first result has ErrLost where a lease is lost.
func (s *Store) finish(ctx context.Context, owner string, done []farm.Finished, apply Apply) (errs []error, err error) {
	ctx, cancel := s.patient(ctx)
	defer cancel()
	err = s.commit(ctx, sql.LevelSerializable, true, func(t *Tx) error {
		errs = make([]error, len(done))
		jobs := make([]farm.Job, len(done))
		for i, f := range done {
			jobs[i] = f.Job
		}
		gone, err := t.lost(ctx, jobs)
		if err != nil {
			return err
		}
		var held []farm.Finished
		for i, f := range done {
			if gone[f.Job.ID] {
				errs[i] = fmt.Errorf("job %s %s: %w", f.Job.Kind, f.Job.Subject, ErrLost)
				continue
			}
			held = append(held, f)
			if err := apply(ctx, t, f); err != nil {
				return refusal{err}
			}
		}
		return t.end(ctx, owner, held)
	})
	return errs, err
}

// end writes that jobs are over, or when they run again, and frees their lanes.
func (t *Tx) end(ctx context.Context, owner string, done []farm.Finished) error {
	t.wrote.jobs = t.wrote.jobs || len(done) > 0
	for part := range slices.Chunk(done, maxRows) {
		if err := t.rearm(ctx, owner, part); err != nil {
			return err
		}
		var jobs []farm.Job
		for _, f := range part {
			jobs = append(jobs, f.Job)
		}
		if err := t.free(ctx, jobs); err != nil {
			return err
		}
	}
	return nil
}

// never is a time to run again for a job that is over.
const never = 1<<63 - 1

func (t *Tx) rearm(ctx context.Context, owner string, done []farm.Finished) error {
	var args, ids []any
	for _, f := range done {
		at, attempt, text := int64(never), 0, ""
		if !f.Result.Again.IsZero() {
			at = micros(f.Result.Again)
		}
		if f.Result.Err != nil {
			attempt, text = f.Job.Attempt, f.Result.Err.Error()
			if f.Result.Again.IsZero() {
				at = micros(t.now.Add(f.Job.Backoff()))
			}
		}
		args = append(args, f.Job.ID, at, attempt, text)
		ids = append(ids, f.Job.ID)
	}
	const at = `CASE WHEN jobs.dirty > 0 AND jobs.dirty < v.column2 THEN jobs.dirty ELSE v.column2 END`
	err := t.put(ctx, "finish jobs", `UPDATE jobs SET due = `+at+`, run_at = `+at+`, attempt = v.column3, error = v.column4, owner = '', since = 0, dirty = 0
		FROM (VALUES `+values(len(done), "(?, CAST(? AS BIGINT), CAST(? AS BIGINT), ?)")+`) AS v
		WHERE jobs.id = v.column1 AND jobs.owner = ?`, append(args, owner)...)
	if err != nil {
		return err
	}
	return t.put(ctx, "remove finished jobs", `DELETE FROM jobs WHERE id IN (`+values(len(ids), "?")+`) AND run_at = ?`, append(ids, int64(never))...)
}

// free ends the leases of the jobs' lanes and makes due in each the job that waits
// longest.
func (t *Tx) free(ctx context.Context, jobs []farm.Job) error {
	lanes := lanesOf(jobs)
	if len(lanes) == 0 {
		return nil
	}
	list := ` (VALUES ` + values(len(lanes), "(?, ?)") + `)`
	err := t.put(ctx, "free lanes", `UPDATE lanes SET until = ?, job = '' WHERE (farm, lane) IN`+list, append([]any{micros(t.now)}, keys(lanes)...)...)
	if err != nil {
		return err
	}
	return t.put(ctx, "wake the next of the lane", `UPDATE jobs SET due = run_at WHERE id IN (
		SELECT (SELECT j.id FROM jobs j WHERE j.farm = v.column1 AND j.lane = v.column2 AND j.owner = '' ORDER BY j.run_at, j.id LIMIT 1)
		FROM`+list+` AS v)`, keys(lanes)...)
}

// lanesOf lists the lanes of jobs that have one.
func lanesOf(jobs []farm.Job) []lane {
	var all []lane
	for _, j := range jobs {
		if j.Lane != "" {
			all = append(all, lane{j.Farm, j.Lane})
		}
	}
	return all
}

// keys are the parameters that name lanes.
func keys(lanes []lane) []any {
	var args []any
	for _, l := range lanes {
		args = append(args, l.farm, l.name)
	}
	return args
}
