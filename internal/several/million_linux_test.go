package several

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

// What claiming is measured with.
const (
	fewKept, manyKept = 10_000, 1_000_000 // certificates
	dueAtOnce         = 64
	dueInAll          = 30_000
	claimRounds       = 61
	leastPerSecond    = 1000
	mostDearer        = 1.2
)

// A million certificates, each with its own job: three controllers on one PostgreSQL
// claim and finish due work at a thousand jobs a second together, and a claim costs
// what it does among ten thousand.
func TestAMillionCertificates(t *testing.T) {
	if os.Getenv(soakVariable) == "" || racing {
		t.Skip("CERTFARM_SOAK is not set: it takes minutes, and no race detector")
	}
	few, many := kept(t, fewKept), kept(t, manyKept)
	took := map[string][]time.Duration{}
	ours := map[string]*store.Store{few: opened(t, few), many: opened(t, many)}
	for address, s := range ours {
		enqueue(t, address, "often", dueAtOnce)
		claimOnce(t, s) // what it prepares is prepared
	}
	for range claimRounds { // in turns: what disturbs one disturbs the other
		for address, s := range ours {
			took[address] = append(took[address], claimOnce(t, s))
		}
	}
	cheap, dear := middle(took[few]), middle(took[many])
	if ratio := float64(dear) / float64(cheap); ratio > mostDearer {
		t.Errorf("%d jobs are claimed and finished in %s among %d certificates, and in %s among %d: %.2f times as long", dueAtOnce, dear, manyKept, cheap, fewKept, ratio)
	}
	perSecond := together(t, many)
	if perSecond < leastPerSecond {
		t.Errorf("three controllers claim and finish %.0f jobs a second", perSecond)
	}
	t.Logf("%d jobs among %d: %s, among %d: %s; three controllers: %.0f jobs a second", dueAtOnce, fewKept, cheap, manyKept, dear, perSecond)
}

func middle(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// kept is the address of a database with n certificates that are due in a month.
func kept(t *testing.T, n int) string {
	t.Helper()
	address := storetest.Postgres(t)
	if err := opened(t, address).Close(); err != nil { // it has its tables then
		t.Fatal(err)
	}
	for _, table := range []string{
		`INSERT INTO sites (farm, name, sum, doc) SELECT 'shop', 's' || i, '', '{"name":"s' || i || '"}' FROM generate_series(1, $1::int) i`,
		`INSERT INTO certificates (farm, site, doc) SELECT 'shop', 's' || i, '{"farm":"shop","site":"s' || i || '"}' FROM generate_series(1, $1::int) i`,
		`INSERT INTO versions (farm, id, site, created, doc) SELECT 'shop', 'v' || i, 's' || i, 0, '{"id":"v' || i || '"}' FROM generate_series(1, $1::int) i`,
		`INSERT INTO jobs (id, farm, kind, subject, lane, due, run_at, dirty, attempt, epoch, nonce, owner, since, error)
			SELECT 'j' || i, 'shop', 'check', 's' || i, '', at, at, 0, 0, 0, '', '', 0, ''
			FROM (SELECT i, (extract(epoch FROM now()) * 1000000)::bigint + 2592000000000 + i AS at FROM generate_series(1, $1::int) i) due`,
	} {
		query(t, address, table, n)
	}
	query(t, address, `ANALYZE`)
	return address
}

// enqueue makes n jobs due, each in a lane of its own.
func enqueue(t *testing.T, address, kind string, n int) {
	t.Helper()
	query(t, address, `INSERT INTO jobs (id, farm, kind, subject, lane, due, run_at, dirty, attempt, epoch, nonce, owner, since, error)
		SELECT $1::text || i, 'shop', $1::text, 's' || i, $1::text || i, i, i, 0, 0, 0, '', '', 0, '' FROM generate_series(1, $2::int) i`, kind, n)
}

func query(t *testing.T, address, text string, args ...any) {
	t.Helper()
	db, err := sql.Open("pgx", address)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), text, args...)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

func opened(t *testing.T, address string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), address, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // it may be closed
	return s
}

func nothing(context.Context, *store.Tx, farm.Finished) error { return nil }

// claimOnce claims what is due, and leaves it due again.
func claimOnce(t *testing.T, s *store.Store) time.Duration {
	t.Helper()
	began := time.Now()
	jobs, _, err := s.Claim(t.Context(), "one", dueAtOnce, time.Minute)
	if err != nil || len(jobs) != dueAtOnce {
		t.Fatalf("%d jobs were claimed: %v", len(jobs), err)
	}
	done := make([]farm.Finished, len(jobs))
	for i, j := range jobs {
		done[i] = farm.Finished{Job: j, Result: farm.Result{Again: j.RunAt}}
	}
	if err := errors.Join(s.Finish(t.Context(), "one", done, nothing)...); err != nil {
		t.Fatal(err)
	}
	return time.Since(began)
}

// together is how many jobs three controllers claim and finish in a second.
func together(t *testing.T, address string) float64 {
	t.Helper()
	query(t, address, `DELETE FROM jobs WHERE kind = 'often'`)
	enqueue(t, address, "once", dueInAll)
	crew := []*store.Store{opened(t, address), opened(t, address), opened(t, address)}
	var all sync.WaitGroup
	var finished atomic.Int64
	began := time.Now()
	for i, s := range crew {
		owner := fmt.Sprintf("controller %d", i)
		all.Go(func() {
			for finished.Load() < dueInAll && t.Context().Err() == nil {
				jobs, _, err := s.Claim(t.Context(), owner, dueAtOnce, time.Minute)
				if err != nil {
					t.Error(err)
					return
				}
				done := make([]farm.Finished, len(jobs))
				for n, j := range jobs {
					done[n].Job = j
				}
				if err := errors.Join(s.Finish(t.Context(), owner, done, nothing)...); err != nil {
					t.Error(err)
					return
				}
				finished.Add(int64(len(jobs)))
			}
		})
	}
	all.Wait()
	return float64(finished.Load()) / time.Since(began).Seconds()
}
