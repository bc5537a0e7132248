package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// A Seat is one controller on the store, as it last said of itself.
type Seat struct {
	Owner   string        `json:"owner" doc:"its name in leases"`
	Host    string        `json:"host,omitempty" doc:"the machine that it runs on"`
	Process int           `json:"process,omitempty" doc:"its number on that machine"`
	Version string        `json:"version,omitempty" doc:"of the program"`
	Since   time.Time     `json:"since" doc:"when it began"`
	Seen    time.Time     `json:"seen" doc:"when it last said so, by the database's clock"`
	Skew    time.Duration `json:"skew" doc:"how far its clock was ahead of the database's, in nanoseconds; less than the time of a question means nothing"`
	Hears   bool          `json:"hears" doc:"what other controllers write wakes it at once; else it looks by itself"`
}

// forgotten is how long the seat of a controller is kept that no more is heard of.
const forgotten = 24 * time.Hour

// Beat writes that a controller is alive, and forgets those that have been silent
// for a day. clock is the controller's, read beside the database's; Seen and Skew
// are set from it. Like a renewal of leases it wakes nobody.
func (s *Store) Beat(ctx context.Context, seat Seat, clock func() time.Time) error {
	err := s.commit(ctx, sql.LevelReadCommitted, false, func(t *Tx) error {
		seat.Seen, seat.Skew, seat.Hears = t.now, clock().Sub(t.now), s.Listening()
		doc, _, err := document(seat)
		if err != nil {
			return err
		}
		if err := t.put(ctx, "say that we live", `INSERT INTO controllers (owner, seen, doc) VALUES (?, ?, ?)
			ON CONFLICT (owner) DO UPDATE SET seen = excluded.seen, doc = excluded.doc`, seat.Owner, micros(seat.Seen), doc); err != nil {
			return err
		}
		return t.put(ctx, "forget old controllers", `DELETE FROM controllers WHERE seen < ?`, micros(t.now.Add(-forgotten)))
	})
	if err != nil {
		return fmt.Errorf("controller %s: %w", seat.Owner, err)
	}
	return nil
}

// Leave takes away a controller's seat: it stopped in peace.
func (s *Store) Leave(ctx context.Context, owner string) error {
	return s.commit(ctx, sql.LevelReadCommitted, false, func(t *Tx) error {
		return t.put(ctx, "leave", `DELETE FROM controllers WHERE owner = ?`, owner)
	})
}

// Seats lists the controllers, those that were heard of last first.
func (t *Tx) Seats(ctx context.Context) ([]Seat, error) {
	return many[Seat](ctx, t, "controllers", `SELECT doc FROM controllers ORDER BY seen DESC, owner`)
}

// A Held is a lane that is leased.
type Held struct {
	Lane    string    `json:"lane"`
	Owner   string    `json:"owner" doc:"the controller that holds it"`
	Kind    string    `json:"kind" doc:"of the job"`
	Subject string    `json:"subject"`
	Epoch   int64     `json:"epoch" doc:"the lease's number, which only grows"`
	Until   time.Time `json:"until" doc:"when the lease ends unless it is renewed"`
}

// Held lists the lanes of a farm that are leased, by name, at most limit (0: all).
func (t *Tx) Held(ctx context.Context, farmName string, limit int) ([]Held, error) {
	var all []Held
	err := t.each(ctx, func(scan func(...any) error) error {
		var h Held
		var until int64
		err := scan(&h.Lane, &h.Owner, &h.Kind, &h.Subject, &h.Epoch, &until)
		h.Until = instant(until)
		all = append(all, h)
		return err
	}, `SELECT l.lane, j.owner, j.kind, j.subject, l.epoch, l.until FROM lanes l JOIN jobs j ON j.id = l.job
		WHERE l.farm = ? AND l.until > ? ORDER BY l.lane LIMIT ?`, farmName, micros(t.now), limited(limit))
	if err != nil {
		return nil, fmt.Errorf("list lanes: %w", err)
	}
	return all, nil
}

// Failing lists the jobs of a farm whose last attempt failed, those first that were
// tried most often, at most limit (0: all).
func (t *Tx) Failing(ctx context.Context, farmName string, limit int) ([]JobRow, error) {
	var all []JobRow
	err := t.each(ctx, func(scan func(...any) error) error {
		j, err := jobRow(scan)
		all = append(all, j)
		return err
	}, `SELECT `+jobColumns+` FROM jobs WHERE farm = ? AND error <> '' ORDER BY attempt DESC, kind, subject LIMIT ?`, farmName, limited(limit))
	if err != nil {
		return nil, fmt.Errorf("list failing jobs: %w", err)
	}
	return all, nil
}

// JobCount is how many jobs of a farm run, wait, and are late: due for longer than
// a minute without anybody doing them.
type JobCount struct {
	Running int `json:"running"`
	Waiting int `json:"waiting"`
	Late    int `json:"late" doc:"due for more than a minute, and nobody does them"`
}

// CountJobs counts the jobs of a farm.
func (t *Tx) CountJobs(ctx context.Context, farmName string) (n JobCount, err error) {
	err = t.row(ctx, `SELECT COALESCE(SUM(CASE WHEN owner <> '' THEN 1 ELSE 0 END), 0), COALESCE(SUM(CASE WHEN owner = '' THEN 1 ELSE 0 END), 0),
		COALESCE(SUM(CASE WHEN due < ? THEN 1 ELSE 0 END), 0) FROM jobs WHERE farm = ?`,
		micros(t.now.Add(-time.Minute)), farmName).Scan(&n.Running, &n.Waiting, &n.Late)
	if err != nil {
		return n, fmt.Errorf("count jobs: %w", err)
	}
	return n, nil
}
