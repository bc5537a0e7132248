package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	ringEvery  = 20 * time.Millisecond // many commits at once are one ring
	ringWithin = 5 * time.Second       // to send a ring, to connect, to see whether the line still stands
	heardEvery = 10 * time.Second      // without a ring, how often the line is tried
	callAgain  = time.Second           // after the line was lost
)

// A bell tells the other controllers on a PostgreSQL what was written, so that they
// look at once: a LISTEN on a line of its own, and a NOTIFY after each commit. It is
// no part of the transaction: PostgreSQL would let only one such commit at a time
// through. So a ring may be lost, with its sender or with the line; what is due is
// then found when it is next looked for.
type bell struct {
	db      *sql.DB
	line    *pgx.ConnConfig
	channel string // one for each schema
	self    string // begins our own rings, which are not for us
	heard   func(jobs bool)

	rung  chan struct{} // a token: there is something to tell
	jobs  atomic.Bool   // and a job is among it
	hears atomic.Bool   // the line stands

	stop  context.CancelFunc
	parts sync.WaitGroup
}

// openBell begins to listen, and waits until it does or the first call went wrong.
// heard is called for what others wrote, and when the line stands anew.
func openBell(ctx context.Context, db *sql.DB, address string, heard func(jobs bool)) (*bell, error) {
	line, err := pgx.ParseConfig(address)
	if err != nil {
		return nil, hidden(err)
	}
	line.ConnectTimeout = ringWithin
	var schema sql.NullString
	if err := db.QueryRowContext(ctx, `SELECT current_schema()`).Scan(&schema); err != nil {
		return nil, fmt.Errorf("read the schema's name: %w", err)
	}
	sum := sha256.Sum256([]byte(schema.String))
	b := &bell{
		db: db, line: line, heard: heard, rung: make(chan struct{}, 1),
		channel: "certfarm_" + hex.EncodeToString(sum[:8]), self: NewID("st") + " ",
	}
	ctx, b.stop = context.WithCancel(context.WithoutCancel(ctx))
	called := make(chan struct{})
	b.parts.Go(func() { b.listenAll(ctx, called) })
	b.parts.Go(func() { b.ringAll(ctx) })
	<-called
	return b, nil
}

// close ends both parts and waits for them.
func (b *bell) close() {
	b.stop()
	b.parts.Wait()
}

// ring has the others told, soon; it does not wait.
func (b *bell) ring(jobs bool) {
	if jobs {
		b.jobs.Store(true)
	}
	select {
	case b.rung <- struct{}{}:
	default: // it will be told with what was written before
	}
}

// ringAll sends what is to be told, until ctx ends.
func (b *bell) ringAll(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.rung:
		}
		word := "written"
		if b.jobs.Swap(false) {
			word = "jobs"
		}
		within, cancel := context.WithTimeout(ctx, ringWithin)
		_, _ = b.db.ExecContext(within, `SELECT pg_notify($1, $2)`, b.channel, b.self+word) // lost: the others look by themselves
		cancel()
		if !rest(ctx, ringEvery) {
			return
		}
	}
}

// listenAll keeps the line open until ctx ends. It closes called after the first
// call.
func (b *bell) listenAll(ctx context.Context, called chan struct{}) {
	line, err := b.call(ctx)
	b.hears.Store(err == nil) // Listening tells; without the line the others are heard later
	close(called)
	for {
		if err == nil {
			_ = b.listen(ctx, line)
			b.hears.Store(false)
		}
		if !rest(ctx, callAgain) {
			return
		}
		if line, err = b.call(ctx); err == nil {
			b.hears.Store(true)
			b.heard(true) // nobody knows what was rung meanwhile
		}
	}
}

// call opens the line.
func (b *bell) call(ctx context.Context) (*pgx.Conn, error) {
	within, cancel := context.WithTimeout(ctx, ringWithin)
	defer cancel()
	line, err := pgx.ConnectConfig(within, b.line.Copy())
	if err != nil {
		return nil, err
	}
	if _, err := line.Exec(within, "LISTEN "+pgx.Identifier{b.channel}.Sanitize()); err != nil {
		return nil, errors.Join(err, line.Close(within))
	}
	return line, nil
}

// listen hears the others until the line is lost, and closes it.
func (b *bell) listen(ctx context.Context, line *pgx.Conn) error {
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), ringWithin)
		defer cancel()
		_ = line.Close(last) // it was only listened on
	}()
	for {
		if err := b.hear(ctx, line); err != nil {
			return err
		}
	}
}

// hear waits for one ring, or tries the line where there was none for a while: one
// that was cut says nothing, like one on which nobody rings.
func (b *bell) hear(ctx context.Context, line *pgx.Conn) error {
	within, cancel := context.WithTimeout(ctx, heardEvery)
	defer cancel()
	n, err := line.WaitForNotification(within)
	switch {
	case err == nil && !strings.HasPrefix(n.Payload, b.self):
		b.heard(strings.HasSuffix(n.Payload, " jobs"))
		return nil
	case err == nil:
		return nil
	case ctx.Err() != nil || within.Err() == nil:
		return err
	}
	within, cancel = context.WithTimeout(ctx, ringWithin)
	defer cancel()
	return line.Ping(within)
}

// rest waits; it reports whether ctx still goes on.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// Listening reports whether what other controllers write is heard at once. It is
// always so on SQLite, where there is no other.
func (s *Store) Listening() bool { return s.bell == nil || s.bell.hears.Load() }

// Shared reports that several controllers may work on the store: it is on
// PostgreSQL.
func (s *Store) Shared() bool { return s.postgres }
