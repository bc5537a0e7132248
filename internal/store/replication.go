package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Replication is what a PostgreSQL says of how safe a commit is there.
type Replication struct {
	// Identity names the line of history that the database writes: its system
	// identifier and its timeline. Another one than before means that it was restored,
	// or that a standby was promoted, which may not have had the last commits. Empty:
	// unknown, or SQLite.
	Identity string `json:"identity,omitempty"`
	Standbys int    `json:"standbys" doc:"that are connected"`
	Synced   int    `json:"synced" doc:"standbys that a commit waits for"`
	// Unsafe says why a commit may be lost although it was acknowledged. Empty: it
	// will not, as far as the database tells.
	Unsafe string `json:"unsafe,omitempty"`
	Hint   string `json:"hint,omitempty"`
}

// Replication asks the database how safe a commit is. SQLite needs no such question:
// it syncs each commit to the disk.
func (s *Store) Replication(ctx context.Context) (r Replication, err error) {
	if !s.postgres {
		return r, nil
	}
	ctx, cancel := context.WithTimeout(ctx, ringWithin)
	defer cancel()
	var commit, fsync string
	err = s.read.QueryRowContext(ctx, `SELECT current_setting('synchronous_commit'), current_setting('fsync'),
		(SELECT count(*) FROM pg_stat_replication),
		(SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum'))`).Scan(&commit, &fsync, &r.Standbys, &r.Synced)
	if err != nil {
		return r, fmt.Errorf("ask how the database replicates: %w", err)
	}
	// Some services refuse these; then nothing is known of the history.
	var system, timeline string
	if s.read.QueryRowContext(ctx, `SELECT CAST(system_identifier AS TEXT) FROM pg_control_system()`).Scan(&system) == nil &&
		s.read.QueryRowContext(ctx, `SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)`).Scan(&timeline) == nil {
		r.Identity = system + "/" + strings.TrimLeft(timeline, "0")
	}
	r.judge(commit, fsync)
	return r, nil
}

// judge says what may be lost, by PostgreSQL's manual ("Asynchronous Commit",
// "Synchronous Replication").
func (r *Replication) judge(commit, fsync string) {
	switch {
	case fsync == "off":
		r.Unsafe = "fsync is off: a crash of the database's machine may lose or damage everything"
		r.Hint = "set fsync = on"
	case commit == "off":
		r.Unsafe = "synchronous_commit is off: a crash of the database may lose the last commits"
		r.Hint = "ALTER ROLE … SET synchronous_commit = on, or leave the option out of --database"
	case r.Standbys > 0 && r.Synced == 0:
		r.Unsafe = fmt.Sprintf("the replication to %d standbys is asynchronous: a failover may lose the last commits", r.Standbys)
		if r.Standbys == 1 {
			r.Unsafe = "the replication to the standby is asynchronous: a failover may lose the last commits"
		}
		r.Hint = "set synchronous_standby_names (Patroni: synchronous_mode); what was lost is found again by looking at the nodes first"
	case r.Standbys > 0 && commit == "local":
		r.Unsafe = "synchronous_commit is local: no commit waits for a standby, and a failover may lose the last ones"
		r.Hint = "set synchronous_commit = on for the role of certfarm"
	}
}

// The facts that are kept of the database.
const (
	factHistory = "history" // Replication.Identity, as it was last seen
	factUnsafe  = "unsafe"  // Replication.Unsafe, as people were last told
)

// Remember keeps what Replication found, and reports what is new of it: that the
// database writes another history than before, after which every farm observes (see
// Observing), and that commits are less safe than people were told, or safe again.
func (t *Tx) Remember(ctx context.Context, r Replication) (moved, changed bool, err error) {
	was, err := t.fact(ctx, factHistory)
	if err != nil {
		return false, false, err
	}
	if r.Identity != "" && r.Identity != was {
		if err := t.setFact(ctx, factHistory, r.Identity); err != nil {
			return false, false, err
		}
		moved = was != ""
	}
	if moved {
		if err := t.observeFarms(ctx, t.now.Format(time.RFC3339)); err != nil {
			return false, false, err
		}
	}
	told, err := t.fact(ctx, factUnsafe)
	if err != nil || told == r.Unsafe {
		return moved, false, err
	}
	return moved, true, t.setFact(ctx, factUnsafe, r.Unsafe)
}

// Remembered reports that Remember has nothing to write.
func (t *Tx) Remembered(ctx context.Context, r Replication) (bool, error) {
	was, err := t.fact(ctx, factHistory)
	if err != nil || r.Identity != "" && r.Identity != was {
		return false, err
	}
	told, err := t.fact(ctx, factUnsafe)
	return told == r.Unsafe, err
}

func (t *Tx) fact(ctx context.Context, name string) (value string, err error) {
	err = t.row(ctx, `SELECT value FROM facts WHERE name = ?`, name).Scan(&value)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("read fact %s: %w", name, err)
	}
	return value, nil
}

func (t *Tx) setFact(ctx context.Context, name, value string) error {
	return t.put(ctx, "keep fact "+name, `INSERT INTO facts (name, value) VALUES (?, ?)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
}

// observeFarms has every farm observe.
func (t *Tx) observeFarms(ctx context.Context, since string) error {
	farms, err := t.Farms(ctx)
	if err != nil {
		return err
	}
	for _, name := range farms {
		if err := t.SetWord(ctx, name, Observing, since); err != nil {
			return err
		}
	}
	return nil
}
