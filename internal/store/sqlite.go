package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	_ "modernc.org/sqlite" // the driver's name for database/sql
)

// readers is how many connections read beside the writer.
const readers = 8

// openSQLite opens one connection that writes and a pool that reads, so that a
// page of the dashboard waits for no commit.
func (s *Store) openSQLite(ctx context.Context, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("database %s: %w", path, err)
	}
	if !s.options.ReadOnly {
		if err := ownFile(path); err != nil {
			return fmt.Errorf("database %s: %w", path, err)
		}
		if s.unlock, err = lockFile(path + ".lock"); err != nil {
			s.unlock = func() error { return nil }
			return fmt.Errorf("database %s: %w", path, err)
		}
	} else if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("database %w", err)
	}
	if s.write, err = handle(path, "immediate", s.options.ReadOnly); err != nil {
		return fmt.Errorf("database %s: %w", path, err)
	}
	s.write.SetMaxOpenConns(1)
	if s.read, err = handle(path, "deferred", true); err != nil {
		return fmt.Errorf("database %s: %w", path, err)
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	if err := intact(ctx, s.write); err != nil {
		return fmt.Errorf("database %s: %w", path, err)
	}
	return nil
}

// inherit makes due at once what a controller that ended had claimed. The lock on
// the file says that there is no other, so nobody's lease has to run out first. On
// PostgreSQL it has to.
func (s *Store) inherit(ctx context.Context) error {
	return s.commit(ctx, sql.LevelSerializable, false, func(t *Tx) error {
		now := micros(t.now)
		if err := t.put(ctx, "end the leases of the last controller", `UPDATE lanes SET until = ? WHERE until > ?`, now, now); err != nil {
			return err
		}
		return t.put(ctx, "take over its jobs", `UPDATE jobs SET due = run_at WHERE due <> run_at`)
	})
}

// handle opens the file. synchronous=FULL syncs every commit to the disk: a
// certificate's key that was said to be kept survives a power cut. The writer keeps up
// to 16 MB of pages, since a thousand rollouts come back to the same ones again and
// again; a reader begins anew after each commit. Pages go from the log to the file at
// 16 MB of log and not at 4, most of them once and not four times. What undoes a single
// statement for many rows is kept in memory: it is nothing that a crash would ask for.
func handle(path, lock string, reads bool) (*sql.DB, error) {
	q := url.Values{
		"_txlock": {lock},
		"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "journal_size_limit(67108864)",
			"cache_size(-16384)", "wal_autocheckpoint(4096)", "temp_store(MEMORY)"},
	}
	if reads {
		q["_pragma"] = append(q["_pragma"][:1], "query_only(1)")
	}
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // C:/… on Windows
	}
	u := url.URL{Scheme: "file", Path: path, OmitHost: true, RawQuery: q.Encode()}
	return sql.Open("sqlite", u.String())
}

// ownFile makes the database file if it is missing, for its user only. SQLite
// gives the files beside it the same mode.
func ownFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o600), f.Close())
}

// checkedBelow is the size up to which a database is looked through at every
// start. A larger one would hold up the start for seconds; it is looked through
// when it is backed up.
const checkedBelow = 256 << 20

// intact looks for damage, so that a broken disk is found before anything
// depends on what it says.
func intact(ctx context.Context, db *sql.DB) error {
	var size int64
	if err := db.QueryRowContext(ctx, `SELECT page_count * page_size FROM pragma_page_count, pragma_page_size`).Scan(&size); err != nil {
		return damaged(err.Error())
	}
	if size > checkedBelow {
		return nil
	}
	return lookThrough(ctx, db)
}

func lookThrough(ctx context.Context, db *sql.DB) error {
	var found string
	if err := db.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&found); err != nil {
		return damaged(err.Error())
	}
	if found != "ok" {
		return damaged(found)
	}
	return nil
}

func damaged(how string) error {
	return errors.New("the file is damaged or is no database (" + strconv.Quote(how) + "): stop, keep a copy of it, and restore a backup with `certfarm restore`")
}
