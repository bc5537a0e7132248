package store

import (
	"context"
	"fmt"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// What follows is read for the metrics, every few seconds: it costs little, however
// large the farm is.

// Waiting is the job that is due longest and that nobody does.
func (t *Tx) Waiting(ctx context.Context, farmName string) (due time.Time, err error) {
	var at int64
	err = t.row(ctx, `SELECT COALESCE(MIN(due), 0) FROM jobs WHERE farm = ? AND owner = '' AND due <= ?`, farmName, micros(t.now)).Scan(&at)
	if err != nil {
		return due, fmt.Errorf("find the job that waits longest: %w", err)
	}
	return instant(at), nil
}

// LongestDue is since when that job of a kind is due, or under way, of which that is
// longest ago; zero, or a time to come: none is.
func (t *Tx) LongestDue(ctx context.Context, farmName, kind string) (since time.Time, err error) {
	var at int64
	err = t.row(ctx, `SELECT COALESCE(MIN(CASE WHEN owner = '' THEN due ELSE since END), 0) FROM jobs WHERE farm = ? AND kind = ?`, farmName, kind).Scan(&at)
	if err != nil {
		return since, fmt.Errorf("find the %s job that is due longest: %w", kind, err)
	}
	return instant(at), nil
}

// LaneEpoch is the highest epoch of a farm's lanes: it grows with every claim of the
// busiest one.
func (t *Tx) LaneEpoch(ctx context.Context, farmName string) (epoch int64, err error) {
	if err = t.row(ctx, `SELECT COALESCE(MAX(epoch), 0) FROM lanes WHERE farm = ?`, farmName).Scan(&epoch); err != nil {
		return 0, fmt.Errorf("read the epochs of lanes: %w", err)
	}
	return epoch, nil
}

// RunningHeads returns the rollouts without an outcome, without their steps.
func (t *Tx) RunningHeads(ctx context.Context, farmName string) ([]farm.Rollout, error) {
	return many[farm.Rollout](ctx, t, "running rollouts", `SELECT doc FROM rollouts WHERE farm = ? AND running = 1 ORDER BY id`, farmName)
}

// Words returns the words whose names begin with a prefix, by what follows it.
func (t *Tx) Words(ctx context.Context, farmName, prefix string) (map[string]string, error) {
	all := map[string]string{}
	err := t.each(ctx, func(scan func(...any) error) error {
		var name, value string
		err := scan(&name, &value)
		if err == nil {
			all[name[len(prefix):]] = value
		}
		return err
	}, `SELECT name, value FROM words WHERE farm = ? AND name >= ? AND name < ?`, farmName, prefix, prefix+"\U0010FFFF")
	if err != nil {
		return nil, fmt.Errorf("read words that begin with %q: %w", prefix, err)
	}
	return all, nil
}
