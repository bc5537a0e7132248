package store

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// tables are all that is backed up, that is, all but what concerns the database
// itself (the schema's version, its facts, the controllers on it) and what is over
// within the hour: tokens and calls of agents.
func tables() []string {
	return []string{
		"words", "revisions", "settings", "issuers", "nodes", "sites", "places", "certificates", "versions", "sealed",
		"accounts", "orders", "challenges", "records", "rollouts", "steps", "events", "jobs", "lanes", "agents", "api_tokens", "audit",
		"notices", "messages", "hearing",
	}
}

// Observing is the word (see Tx.Word) that a restored farm has: what the backup
// says may be long past, so the controller looks at the nodes before it does
// anything. Its value is when it was restored.
const Observing = "observe"

// A backup is JSON, a line a row. The first line is a header, the last says how
// many rows there are, so that a part of a backup is never taken for the whole. It
// is the same for both databases: what was saved from one can be restored to the
// other.
type (
	backupHeader struct {
		Format string    `json:"certfarm"` // backupFormat
		Schema int64     `json:"schema"`
		At     time.Time `json:"at"`
	}
	backupRow struct {
		Table string         `json:"t,omitempty"`
		Row   map[string]any `json:"r,omitempty"`
		Rows  *int64         `json:"rows,omitempty"` // on the last line
	}
)

const backupFormat = "backup 1"

// Backup writes everything to w, as it is at one moment, while others go on
// writing. Secrets in it are sealed under the master key, which is not in it. A
// damaged SQLite file is refused.
func (s *Store) Backup(ctx context.Context, w io.Writer) error {
	if !s.postgres {
		if err := lookThrough(ctx, s.read); err != nil {
			return fmt.Errorf("back up: %w", err)
		}
	}
	return s.View(ctx, func(t *Tx) error {
		version, err := t.schema(ctx)
		if err != nil {
			return fmt.Errorf("back up: %w", err)
		}
		buffered := bufio.NewWriter(w)
		out := json.NewEncoder(buffered)
		out.SetEscapeHTML(false)
		if err := out.Encode(backupHeader{Format: backupFormat, Schema: version, At: t.now}); err != nil {
			return fmt.Errorf("back up: %w", err)
		}
		var rows int64
		for _, table := range tables() {
			n, err := t.dump(ctx, table, out)
			if err != nil {
				return fmt.Errorf("back up %s: %w", table, err)
			}
			rows += n
		}
		if err := out.Encode(backupRow{Rows: &rows}); err != nil {
			return fmt.Errorf("back up: %w", err)
		}
		return buffered.Flush()
	})
}

func (t *Tx) dump(ctx context.Context, table string, out *json.Encoder) (n int64, err error) {
	columns, err := t.columns(ctx, table)
	if err != nil {
		return 0, err
	}
	values, into := make([]any, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	err = t.each(ctx, func(scan func(...any) error) error {
		if err := scan(into...); err != nil {
			return err
		}
		row := make(map[string]any, len(columns))
		for i, name := range columns {
			row[name] = values[i]
		}
		n++
		return out.Encode(backupRow{Table: table, Row: row})
	}, `SELECT `+strings.Join(columns, ", ")+` FROM `+table)
	return n, err
}

func (t *Tx) columns(ctx context.Context, table string) ([]string, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT * FROM `+table+` LIMIT 0`)
	if err != nil {
		return nil, err
	}
	defer rows.Close() // there is nothing in them
	names, err := rows.Columns()
	return names, errors.Join(err, rows.Err())
}

// Restore reads a backup into a store in which there is nothing yet. All of it is
// restored or nothing. No job is running afterwards, and every farm has the word
// Observing.
func (s *Store) Restore(ctx context.Context, r io.Reader) error {
	in := json.NewDecoder(bufio.NewReader(r))
	in.UseNumber()
	var header backupHeader
	if err := in.Decode(&header); err != nil || header.Format != backupFormat {
		return errors.New("restore: this is no backup of certfarm, or one of a later form")
	}
	knows, err := schema()
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if header.Schema > knows {
		return fmt.Errorf("restore: %w", tooNew("backup", header.Schema, knows))
	}
	var first error
	err = s.commit(ctx, sql.LevelReadCommitted, true, func(t *Tx) error {
		if first == nil { // what was read is gone: a second try would see the rest only
			first = t.restore(ctx, in)
		}
		return first
	})
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return nil
}

func (t *Tx) restore(ctx context.Context, in *json.Decoder) error {
	if err := t.empty(ctx); err != nil {
		return err
	}
	if err := t.load(ctx, in); err != nil {
		return err
	}
	return t.observe(ctx)
}

func (t *Tx) empty(ctx context.Context) error {
	for _, table := range tables() {
		var n int64
		if err := t.row(ctx, `SELECT COUNT(*) FROM `+table).Scan(&n); err != nil {
			return fmt.Errorf("read %s: %w", table, err)
		}
		if n > 0 {
			return fmt.Errorf("the store is not empty (%d rows in %s): restore into a new database", n, table)
		}
	}
	return nil
}

// load reads rows until the last line.
func (t *Tx) load(ctx context.Context, in *json.Decoder) error {
	columns := map[string][]string{}
	for n := int64(0); ; n++ {
		var line backupRow
		if err := in.Decode(&line); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return errors.New("the backup ends too early: it was cut off")
			}
			return fmt.Errorf("row %d: %w", n+1, err)
		}
		if line.Rows != nil {
			if *line.Rows != n {
				return fmt.Errorf("the backup has %d rows and says that there are %d", n, *line.Rows)
			}
			return nil
		}
		if err := t.insert(ctx, line, columns); err != nil {
			return fmt.Errorf("row %d: %w", n+1, err)
		}
	}
}

// insert writes one row. Tables and columns are looked up here before they stand
// in a query: a backup is only data.
func (t *Tx) insert(ctx context.Context, line backupRow, columns map[string][]string) error {
	if !slices.Contains(tables(), line.Table) {
		return fmt.Errorf("there is no table %q", line.Table)
	}
	if columns[line.Table] == nil {
		known, err := t.columns(ctx, line.Table)
		if err != nil {
			return fmt.Errorf("table %s: %w", line.Table, err)
		}
		columns[line.Table] = known
	}
	var names []string
	var args []any
	for _, name := range columns[line.Table] {
		if v, has := line.Row[name]; has {
			arg, err := parameter(v)
			if err != nil {
				return fmt.Errorf("table %s, column %s: %w", line.Table, name, err)
			}
			names, args = append(names, name), append(args, arg)
		}
	}
	if len(names) != len(line.Row) {
		return fmt.Errorf("table %s has no column of some that are in the backup", line.Table)
	}
	return t.put(ctx, "table "+line.Table,
		`INSERT INTO `+line.Table+` (`+strings.Join(names, ", ")+`) VALUES (`+values(len(names), "?")+`)`, args...)
}

func parameter(v any) (any, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case json.Number:
		return v.Int64()
	}
	return nil, fmt.Errorf("neither a text nor a number: %v", v)
}

// observe makes a restored store one in which nothing runs and every farm
// observes.
func (t *Tx) observe(ctx context.Context) error {
	if err := t.put(ctx, "stop jobs", `UPDATE jobs SET owner = '', since = 0, dirty = 0, due = run_at`); err != nil {
		return err
	}
	if err := t.put(ctx, "free lanes", `UPDATE lanes SET until = ?, job = ''`, micros(t.now)); err != nil {
		return err
	}
	t.wrote.jobs = true
	return t.observeFarms(ctx, t.now.Format(time.RFC3339))
}
