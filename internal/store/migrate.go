package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// migrations are numbered without gaps; one that was released is never edited.
// For one release they only add, so that the release before still runs; a column
// added later has a default, so that an older backup can be read.
//
//go:embed migrations/*.sql
var migrations embed.FS

// schema is the number of the newest migration.
func schema() (int64, error) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	return int64(len(files)), err
}

// migrate brings the schema up to date, all or nothing, one process at a time.
func (s *Store) migrate(ctx context.Context) error {
	newest, err := schema()
	if err != nil {
		return fmt.Errorf("list migrations: %w", err)
	}
	if s.options.ReadOnly {
		return s.View(ctx, func(t *Tx) error {
			has, err := t.schema(ctx)
			if err == nil && has != newest {
				return fmt.Errorf("the database has schema %d and this certfarm reads schema %d: use the same certfarm as the one that serves", has, newest)
			}
			return err
		})
	}
	err = s.commit(ctx, sql.LevelReadCommitted, false, func(t *Tx) error {
		if err := t.lockSchema(ctx); err != nil {
			return err
		}
		has, err := t.schema(ctx)
		if err != nil {
			return err
		}
		if has > newest {
			return tooNew("database", has, newest)
		}
		return t.migrate(ctx, has, newest)
	})
	if err != nil {
		return fmt.Errorf("prepare the database: %w", err)
	}
	return nil
}

func tooNew(what string, has, knows int64) error {
	return fmt.Errorf("the %s has schema %d, this certfarm knows schemas up to %d: install the certfarm that wrote it, or a newer one", what, has, knows)
}

// lockSchema makes other controllers on the same PostgreSQL wait until the
// transaction ends. On SQLite the transaction alone does.
func (t *Tx) lockSchema(ctx context.Context) error {
	if t.s.postgres {
		if _, err := t.exec(ctx, `SELECT pg_advisory_xact_lock(hashtext('certfarm ' || current_schema()))`); err != nil {
			return fmt.Errorf("wait for other controllers: %w", err)
		}
	}
	return t.put(ctx, "write the schema's version", `CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)`)
}

// schema is the version that the database has, 0 when it is new.
func (t *Tx) schema(ctx context.Context) (int64, error) {
	var has int64
	err := t.row(ctx, `SELECT version FROM schema_version`).Scan(&has)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("read the schema's version: %w", err)
	}
	return has, nil
}

func (t *Tx) migrate(ctx context.Context, has, newest int64) error {
	for n := has + 1; n <= newest; n++ {
		text, err := migrations.ReadFile(fmt.Sprintf("migrations/%04d.sql", n))
		if err != nil {
			return fmt.Errorf("migration %d: %w", n, err)
		}
		query := string(text)
		if t.s.postgres {
			query = strings.ReplaceAll(query, " TEXT", ` TEXT COLLATE "C"`)
		}
		if _, err := t.tx.ExecContext(ctx, query); err != nil {
			return fmt.Errorf("migration %d: %w", n, err)
		}
	}
	if has == newest {
		return nil
	}
	if err := t.put(ctx, "write the schema's version", `DELETE FROM schema_version`); err != nil {
		return err
	}
	return t.put(ctx, "write the schema's version", `INSERT INTO schema_version (version) VALUES (?)`, newest)
}
