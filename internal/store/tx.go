package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	fastjson "github.com/go-json-experiment/json/v1"

	"github.com/certfarm/certfarm/internal/farm"
)

// A Tx is a transaction. Its methods lie with what they store: jobs.go, ….
type Tx struct {
	tx    *sql.Tx
	s     *Store
	now   time.Time
	wrote wrote

	after    []func()           // what is done once it is committed
	enqueued map[farm.Job]int64 // jobs without what a claim fills in, and when they run: to say it again changes nothing

	prepared *prepared // of the handle that it runs on

	words  map[[2]string]string // that were read, by farm and name
	events [][]any              // that are written before they are read, or with the commit
}

// Now is the time of the transaction, the same throughout, in UTC, to the
// microsecond that the store keeps.
func (t *Tx) Now() time.Time { return t.now }

// After has f done once the transaction is committed, and not otherwise: what is
// counted, logged or traced of it. A crash in between loses it, so nothing may depend
// on it; f must not wait, nor use the store.
func (t *Tx) After(f func()) { t.after = append(t.after, f) }

func (t *Tx) clock(ctx context.Context) (time.Time, error) {
	switch {
	case t.s.options.Now != nil:
		return instant(micros(t.s.options.Now())), nil
	case t.s.postgres:
		var at int64
		err := t.row(ctx, `SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)`).Scan(&at)
		return instant(at), err
	}
	return instant(micros(time.Now())), nil
}

func (t *Tx) exec(ctx context.Context, query string, args ...any) (int64, error) {
	return t.run(ctx, false, query, args)
}

// run is exec; a kept statement is kept ready however many parameters it has.
func (t *Tx) run(ctx context.Context, kept bool, query string, args []any) (int64, error) {
	query, args = t.in(query), clean(args)
	var res sql.Result
	var err error
	if s := t.stmt(ctx, query, kept); s != nil { //nolint:sqlclosecheck // it is kept ready
		res, err = s.ExecContext(ctx, args...)
	} else {
		res, err = t.tx.ExecContext(ctx, query, args...)
	}
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// put runs a statement; what says in the error what it was to write.
func (t *Tx) put(ctx context.Context, what, query string, args ...any) error {
	if _, err := t.exec(ctx, query, args...); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func (t *Tx) row(ctx context.Context, query string, args ...any) *sql.Row {
	query, args = t.in(query), clean(args)
	if s := t.stmt(ctx, query, false); s != nil { //nolint:sqlclosecheck // it is kept ready
		return s.QueryRowContext(ctx, args...)
	}
	return t.tx.QueryRowContext(ctx, query, args...)
}

// each calls f for every row of a query. f must not use the transaction, which
// is busy with the query.
func (t *Tx) each(ctx context.Context, f func(scan func(...any) error) error, query string, args ...any) error {
	return t.eachOf(ctx, false, f, query, args)
}

// eachOf is each; a kept statement is kept ready however many parameters it has.
func (t *Tx) eachOf(ctx context.Context, kept bool, f func(scan func(...any) error) error, query string, args []any) error {
	rows, err := t.query(ctx, kept, t.in(query), clean(args))
	if err != nil {
		return err
	}
	defer rows.Close() // its error is in rows.Err
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (t *Tx) query(ctx context.Context, kept bool, query string, args []any) (*sql.Rows, error) {
	if s := t.stmt(ctx, query, kept); s != nil { //nolint:sqlclosecheck // it is kept ready
		return s.QueryContext(ctx, args...)
	}
	return t.tx.QueryContext(ctx, query, args...)
}

// skipLocked stands in a query where PostgreSQL is to lock the rows it returns
// and to pass over those that another transaction has locked. SQLite has one
// writer and needs neither.
const skipLocked = " FOR UPDATE SKIP LOCKED"

// in puts a query into the database's own words. There are two differences: how
// a parameter is written, and how rows are locked.
func (t *Tx) in(query string) string {
	if !t.s.postgres {
		return strings.ReplaceAll(query, skipLocked, "")
	}
	var b strings.Builder
	for n, rest := 1, query; ; n++ {
		before, after, found := strings.Cut(rest, "?")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		b.WriteString("$" + strconv.Itoa(n))
		rest = after
	}
}

// clean takes from texts what PostgreSQL refuses to keep, so that a stray byte in
// a server's error message cannot stop the transaction that reports it.
func clean(args []any) []any {
	for i, a := range args {
		s, ok := a.(string)
		if !ok || utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
			continue // mostly; to put the same text back would allocate
		}
		args[i] = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	}
	return args
}

// values is n rows of parameters for a VALUES list or an IN list: (?,?),(?,?).
func values(n int, row string) string {
	return strings.TrimSuffix(strings.Repeat(row+",", n), ",")
}

// maxRows keeps a statement below the 32,766 parameters of SQLite and the 65,535
// of PostgreSQL.
const maxRows = 1000

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func instant(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// limited is a LIMIT: n, or no limit where n is 0.
func limited(n int) int64 {
	if n <= 0 {
		return 1 << 62
	}
	return int64(n)
}

// document is a value as it is stored, and a digest of that.
func document(v any) (doc, sum string, err error) {
	b, err := json.Marshal(v)
	if err != nil {
		return "", "", fmt.Errorf("encode %T: %w", v, err)
	}
	digest := sha256.Sum256(b)
	return string(b), hex.EncodeToString(digest[:16]), nil
}

// decode reads what document wrote. It means the same as encoding/json and takes less
// than half of its time: a target that gets a certificate is read from some sixty
// documents.
func decode[T any](doc string) (T, error) {
	var v T
	if err := fastjson.Unmarshal([]byte(doc), &v); err != nil {
		return v, fmt.Errorf("decode %T: %w", v, err)
	}
	return v, nil
}

// scanned decodes the document of a row.
func scanned[T any](scan func(...any) error) (v T, err error) {
	var doc string
	if err := scan(&doc); err != nil {
		return v, err
	}
	return decode[T](doc)
}

// one decodes the document that a query finds; what names it in the error.
func one[T any](ctx context.Context, t *Tx, what, query string, args ...any) (T, error) {
	var doc string
	err := t.row(ctx, query, args...).Scan(&doc)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		var zero T
		return zero, fmt.Errorf("%s: %w", what, err)
	}
	v, err := decode[T](doc)
	if err != nil {
		return v, fmt.Errorf("%s: %w", what, err)
	}
	return v, nil
}

// many decodes the documents that a query finds; what names them in the error.
func many[T any](ctx context.Context, t *Tx, what, query string, args ...any) ([]T, error) {
	var all []T
	err := t.each(ctx, func(scan func(...any) error) error {
		v, err := scanned[T](scan)
		all = append(all, v)
		return err
	}, query, args...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return all, nil
}
