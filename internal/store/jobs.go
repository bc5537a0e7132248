package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// ErrLost says that a job's lease ended and someone else may hold it.
var ErrLost = farm.ErrLost

// ErrRefused says that a job's result could not be applied; the job is kept with
// that error and runs again later.
var ErrRefused = farm.ErrRefused

// A JobRow is a job as people see it.
type JobRow struct {
	farm.Job
	Owner string    // who runs it; empty: it waits
	Since time.Time // since when it runs; zero: it waits
	Error string    // of the last attempt
}

// Enqueue adds a job. If its twin (same farm, kind and subject) waits, that one
// runs at the earlier of both times. If its twin runs, it runs once more when that
// one has finished, at RunAt at the earliest. RunAt is now if it is not set.
func (t *Tx) Enqueue(ctx context.Context, j farm.Job) error {
	if j.RunAt.IsZero() {
		j.RunAt = t.now
	}
	at := micros(j.RunAt)
	twin := farm.Job{Farm: j.Farm, Kind: j.Kind, Subject: j.Subject, Lane: j.Lane}
	if before, said := t.enqueued[twin]; said && before <= at {
		return nil
	}
	if t.enqueued == nil {
		t.enqueued = map[farm.Job]int64{}
	}
	t.enqueued[twin] = at
	if j.ID == "" {
		j.ID = NewID("jo")
	}
	t.wrote.jobs = true
	return t.put(ctx, "enqueue "+j.Kind+" "+j.Subject, `
		INSERT INTO jobs (id, farm, kind, subject, lane, due, run_at, dirty, attempt, epoch, nonce, owner, since, error)
		VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0, 0, '', '', 0, '')
		ON CONFLICT (farm, kind, subject) DO UPDATE SET
			lane   = CASE WHEN jobs.owner = '' THEN excluded.lane ELSE jobs.lane END,
			due    = CASE WHEN jobs.owner = '' AND excluded.due < jobs.due THEN excluded.due ELSE jobs.due END,
			run_at = CASE WHEN jobs.owner = '' AND excluded.run_at < jobs.run_at THEN excluded.run_at ELSE jobs.run_at END,
			dirty  = CASE WHEN jobs.owner <> '' AND (jobs.dirty = 0 OR excluded.run_at < jobs.dirty) THEN excluded.run_at ELSE jobs.dirty END`,
		j.ID, j.Farm, j.Kind, j.Subject, j.Lane, at, at)
}

// RemoveJob takes back a job that waits. One that runs goes on; its result is
// then written as ever. It is no error if there is none.
func (t *Tx) RemoveJob(ctx context.Context, farmName, kind, subject string) error {
	clear(t.enqueued)
	return t.put(ctx, "take back "+kind+" "+subject,
		`DELETE FROM jobs WHERE farm = ? AND kind = ? AND subject = ? AND owner = ''`, farmName, kind, subject)
}

// Hold returns ErrLost unless j still has its lease. Whoever writes for a job
// before it is finished asks this first, in the same transaction: on PostgreSQL
// the row stays locked until that ends, so nobody takes the lease meanwhile.
func (t *Tx) Hold(ctx context.Context, j farm.Job) error {
	lost, err := t.lost(ctx, []farm.Job{j})
	if err == nil && lost[j.ID] {
		err = ErrLost
	}
	if err != nil {
		return fmt.Errorf("job %s %s: %w", j.Kind, j.Subject, err)
	}
	return nil
}

// jobColumns are what jobRow reads.
const jobColumns = `id, farm, kind, subject, lane, run_at, attempt, epoch, nonce, owner, since, error`

// jobRow reads a job, and into more what else the query asks for.
func jobRow(scan func(...any) error, more ...any) (j JobRow, err error) {
	var run, since int64
	into := []any{&j.ID, &j.Farm, &j.Kind, &j.Subject, &j.Lane, &run, &j.Attempt, &j.Epoch, &j.Nonce, &j.Owner, &since, &j.Error}
	err = scan(append(into, more...)...)
	j.RunAt, j.Since = instant(run), instant(since)
	return j, err
}

// Jobs lists up to limit jobs of a farm (0: all), those that run first, then in
// the order in which they are due.
func (t *Tx) Jobs(ctx context.Context, farmName string, limit int) ([]JobRow, error) {
	var all []JobRow
	err := t.each(ctx, func(scan func(...any) error) error {
		j, err := jobRow(scan)
		all = append(all, j)
		return err
	}, `SELECT `+jobColumns+` FROM jobs WHERE farm = ? ORDER BY CASE WHEN owner = '' THEN 1 ELSE 0 END, run_at, id LIMIT ?`, farmName, limited(limit))
	if err != nil {
		return nil, fmt.Errorf("list jobs: %w", err)
	}
	return all, nil
}

// Job returns the job of a kind on a subject, or ErrNotFound.
func (t *Tx) Job(ctx context.Context, farmName, kind, subject string) (JobRow, error) {
	j, err := jobRow(t.row(ctx, `SELECT `+jobColumns+` FROM jobs WHERE farm = ? AND kind = ? AND subject = ?`, farmName, kind, subject).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return JobRow{}, fmt.Errorf("job %s %s: %w", kind, subject, err)
	}
	return j, nil
}

// A Queue is the store as one owner's queue, as a runner of package job wants it.
type Queue struct {
	Store *Store
	Owner string // who runs the jobs: one name a process, never used again
	Apply Apply  // writes what the results say
}

// Claim is Store.Claim for the owner.
func (q Queue) Claim(ctx context.Context, n int, lease time.Duration) ([]farm.Job, time.Time, error) {
	return q.Store.Claim(ctx, q.Owner, n, lease)
}

// Renew is Store.Renew for the owner.
func (q Queue) Renew(ctx context.Context, jobs []farm.Job, lease time.Duration) ([]string, error) {
	return q.Store.Renew(ctx, q.Owner, jobs, lease)
}

// Finish is Store.Finish for the owner.
func (q Queue) Finish(ctx context.Context, done []farm.Finished) []error {
	return q.Store.Finish(ctx, q.Owner, done, q.Apply)
}
