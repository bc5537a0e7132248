package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver's name for database/sql
)

// connections is how many a controller opens to PostgreSQL.
const connections = 16

func (s *Store) openPostgres(ctx context.Context, address string) error {
	db, err := sql.Open("pgx", address)
	if err != nil {
		return fmt.Errorf("postgres: %w", hidden(err))
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	db.SetConnMaxIdleTime(5 * time.Minute)
	s.write, s.read = db, db
	if err := db.PingContext(ctx); err != nil {
		return fmt.Errorf("postgres: %w", hidden(err))
	}
	if s.bell, err = openBell(ctx, db, address, s.heard); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	return nil
}

// patience is how long a claim or a finish may wait for PostgreSQL. A line that was
// cut says nothing: without an end the runner would wait for it as long as TCP does.
const patience = 20 * time.Second

// patient bounds what the runner waits for.
func (s *Store) patient(ctx context.Context) (context.Context, context.CancelFunc) {
	if !s.postgres {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, patience)
}

// hidden takes the address, with its password, out of an error that pgx says it
// could not parse.
func hidden(err error) error {
	if _, bad := errors.AsType[*pgconn.ParseConfigError](err); bad {
		return errors.New("the address cannot be read; it looks like postgres://user:password@host:5432/database?sslmode=verify-full")
	}
	return err
}

// maxTries is how often a transaction is run when others are in its way.
const maxTries = 20

// inTheWay reports that PostgreSQL undid a transaction because of another one, so
// that it may go well when run again: serialization_failure, deadlock_detected,
// and unique_violation, as which two inserts of one row may show.
func inTheWay(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pg.Code == "40001" || pg.Code == "40P01" || pg.Code == "23505")
}

// Away reports that a transaction failed since the database server could not be reached,
// or went away meanwhile: the same may go well in a moment. Nothing else is told by it:
// the transaction may have been written.
func Away(err error) bool {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		// connection_exception, and operator_intervention: the server stops, or starts.
		return strings.HasPrefix(pg.Code, "08") || strings.HasPrefix(pg.Code, "57P")
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return true
	}
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, driver.ErrBadConn) || pgconn.SafeToRetry(err)
}

// pause waits a little longer after each try, by chance, so that two do not meet
// again.
func pause(ctx context.Context, try int) error {
	timer := time.NewTimer(rand.N(time.Duration(min(try, 10)) * 5 * time.Millisecond))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// heard tells those who wait that another controller wrote something: it does not say
// whether there are calls or answers among it.
func (s *Store) heard(jobs bool) { s.committed(wrote{jobs: jobs, calls: true, answers: true}) }
