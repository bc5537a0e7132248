// Package store is the system's memory, in SQLite or PostgreSQL: one schema, one
// SQL text, one file an entity.
//
// Its invariants: everything written in one Update is kept or nothing is; time is
// read in one place, Tx.Now; every row belongs to a farm; private keys and
// credentials arrive here already sealed. A transaction sees no other's half-done
// work: transactions are serializable, so what was read in an Update still holds
// when it commits.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Options are the parts of a Store that tests replace.
type Options struct {
	// Now is the clock. Nil is the database's own: the server's on PostgreSQL,
	// so that several controllers agree, the machine's on SQLite.
	Now func() time.Time
	// Observe is called at the beginning ("begin") and after the commit
	// ("commit") of every transaction that may write, claims and finishes among
	// them but not renewals of leases. An error from "begin" stops the
	// transaction; one from "commit" is returned although all is written. It is
	// how tests crash the program at every durable step.
	Observe func(ctx context.Context, point string) error
	// ReadOnly opens a SQLite database that a controller may be using, to back it
	// up. Update fails.
	ReadOnly bool
}

// A Store is open for reading and writing by many goroutines at once.
type Store struct {
	write, read *sql.DB // one and the same on PostgreSQL

	writes, reads *prepared
	unlock        func() error
	bell          *bell // nil on SQLite
	postgres      bool
	options       Options

	wake chan struct{}
	mu   sync.Mutex
	next struct{ written, called, answered chan struct{} } // closed by the next commit of the kind
	last int64                                             // of the event ids, in microseconds
}

// wrote is what a commit wrote that somebody waits for.
type wrote struct{ jobs, calls, answers bool }

// ErrNotFound says that there is no such row.
var ErrNotFound = errors.New("not found")

// ErrNoPlace says that a list cannot go on after an item, which is in it no more.
var ErrNoPlace = errors.New("no place in the list")

// errReadOnly is what Update says in a store that was opened to be read.
var errReadOnly = errors.New("the store is open for reading only")

// Open opens the database at an address: a path for SQLite, or postgres://… .
// It creates what is missing, brings an older schema up to date and refuses a
// newer one. A SQLite database is used by one controller at a time and is
// readable by its user only.
func Open(ctx context.Context, address string, o Options) (*Store, error) {
	s := &Store{
		options: o,
		wake:    make(chan struct{}, 1),
		unlock:  func() error { return nil },
	}
	s.next.written, s.next.called, s.next.answered = make(chan struct{}), make(chan struct{}), make(chan struct{})
	open := s.openSQLite
	if strings.HasPrefix(address, "postgres://") || strings.HasPrefix(address, "postgresql://") {
		s.postgres, open = true, s.openPostgres
	}
	if err := open(ctx, address); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.writes, s.reads = newPrepared(s.write), newPrepared(s.read)
	if err := s.migrate(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if !s.postgres && !o.ReadOnly {
		if err := s.inherit(ctx); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// Close closes the database, after which another controller may open it.
func (s *Store) Close() error {
	var errs []error
	if s.bell != nil {
		s.bell.close()
	}
	if s.read != nil && s.read != s.write {
		errs = append(errs, s.read.Close())
	}
	if s.write != nil {
		errs = append(errs, s.write.Close())
	}
	left(s.read)
	left(s.write)
	return errors.Join(append(errs, s.unlock())...)
}

// left waits until the last connection of a closed database is gone: a transaction whose
// context has ended is rolled back beside its caller, a moment later, and nothing tells of it.
func left(db *sql.DB) {
	if db == nil {
		return
	}
	tick, end := time.NewTicker(time.Millisecond), time.NewTimer(leftWithin)
	defer tick.Stop()
	defer end.Stop()
	for db.Stats().OpenConnections > 0 {
		select {
		case <-tick.C:
		case <-end.C:
			return
		}
	}
}

// leftWithin is how long that may take at the most; a statement hangs else.
const leftWithin = 5 * time.Second

// Changed gives a token after a commit that made a job due or enqueued one, on
// PostgreSQL another controller's, too. It is for one reader, the runner.
func (s *Store) Changed() <-chan struct{} { return s.wake }

// Written returns a channel that the next commit closes, on PostgreSQL another
// controller's, too, as far as it is heard (see Listening). Who follows the journal
// takes it before reading and waits on it after.
func (s *Store) Written() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next.written
}

// Called is Written for commits that have calls for agents. A farm of many agents has
// many other commits, its answers among them.
func (s *Store) Called() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next.called
}

// Answered is Written for commits that have answers of agents.
func (s *Store) Answered() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next.answered
}

// anew closes a channel and makes the one for the next time.
func anew(c chan struct{}) chan struct{} {
	close(c)
	return make(chan struct{})
}

// committed tells those who wait.
func (s *Store) committed(w wrote) {
	s.mu.Lock()
	s.next.written = anew(s.next.written)
	if w.calls {
		s.next.called = anew(s.next.called)
	}
	if w.answers {
		s.next.answered = anew(s.next.answered)
	}
	s.mu.Unlock()
	if !w.jobs {
		return
	}
	select {
	case s.wake <- struct{}{}:
	default: // a token is there already
	}
}

// Update runs f in one transaction: all that f writes, the jobs it enqueues among
// it, is kept, or nothing is. On PostgreSQL f may be run more than once, when
// another transaction was in the way: it must do nothing outside of the store.
// It must not call Update, Claim or Finish, which would wait for it.
func (s *Store) Update(ctx context.Context, f func(*Tx) error) error {
	return s.commit(ctx, sql.LevelSerializable, true, f)
}

// View runs f in one transaction that sees one state of the database and writes
// nothing. It waits for no writer.
func (s *Store) View(ctx context.Context, f func(*Tx) error) error {
	tx, err := s.begin(ctx, s.reads, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return fmt.Errorf("begin to read: %w", err)
	}
	defer tx.prepared.prepare(ctx)
	defer tx.tx.Rollback() // nothing was written that could be lost
	return f(tx)
}

// commit runs f in a transaction of the isolation level, again while PostgreSQL
// says that others were in the way.
func (s *Store) commit(ctx context.Context, level sql.IsolationLevel, observed bool, f func(*Tx) error) error {
	if s.options.ReadOnly {
		return errReadOnly
	}
	if err := s.observe(ctx, observed, "begin"); err != nil {
		return err
	}
	var w wrote
	for try := 1; ; try++ {
		var err error
		if w, err = s.once(ctx, level, f); err == nil {
			break
		}
		if try == maxTries || !inTheWay(err) {
			return err
		}
		if err := pause(ctx, try); err != nil {
			return err
		}
	}
	s.committed(w)
	if s.bell != nil && observed {
		s.bell.ring(w.jobs)
	}
	return s.observe(ctx, observed, "commit")
}

// once runs f in a transaction.
func (s *Store) once(ctx context.Context, level sql.IsolationLevel, f func(*Tx) error) (w wrote, err error) {
	tx, err := s.begin(ctx, s.writes, &sql.TxOptions{Isolation: level})
	if err != nil {
		return w, fmt.Errorf("begin: %w", err)
	}
	defer tx.prepared.prepare(ctx)
	defer tx.tx.Rollback() // after a commit it does nothing
	if err := f(tx); err != nil {
		return w, err
	}
	if err := tx.flush(ctx); err != nil {
		return w, err
	}
	if err := tx.tx.Commit(); err != nil {
		return w, fmt.Errorf("commit: %w", err)
	}
	for _, f := range tx.after {
		f()
	}
	return tx.wrote, nil
}

func (s *Store) observe(ctx context.Context, observed bool, point string) error {
	if !observed || s.options.Observe == nil {
		return nil
	}
	return s.options.Observe(ctx, point)
}

// begin opens a transaction and reads its time.
func (s *Store) begin(ctx context.Context, p *prepared, o *sql.TxOptions) (*Tx, error) {
	if !s.postgres {
		o = nil // always serializable; the handle says whether it writes
	}
	tx, err := p.db.BeginTx(ctx, o)
	if err != nil {
		return nil, err
	}
	t := &Tx{tx: tx, s: s, prepared: p}
	if t.now, err = t.clock(ctx); err != nil {
		tx.Rollback() // nothing was done
		return nil, fmt.Errorf("read the time: %w", err)
	}
	return t, nil
}

// tick gives the microsecond of an event's id: a later one than any before in
// this process, so that the journal keeps its order. A clock that is set back by
// more than a minute is followed.
func (s *Store) tick(now time.Time) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := now.UnixMicro()
	if at <= s.last && s.last-at < time.Minute.Microseconds() {
		at = s.last + 1
	}
	s.last = at
	return at
}
