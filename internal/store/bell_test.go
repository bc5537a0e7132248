package store_test

import (
	"database/sql"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

// long is more than anything here takes, on a busy machine, too.
const long = 30 * time.Second

func look(t *testing.T, s *store.Store, subject string) {
	t.Helper()
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		return tx.Enqueue(t.Context(), farm.Job{Farm: "f", Kind: "look", Subject: subject})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A job that one controller enqueues wakes the other; so does one after the line
// was cut and stands again; what is written wakes who follows the journal.
func TestOneControllerWakesTheOther(t *testing.T) {
	address := storetest.Postgres(t)
	open := func() *store.Store {
		s, err := store.Open(t.Context(), address, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	one, two := open(), open()
	if !one.Listening() || !two.Listening() {
		t.Fatal("the line does not stand")
	}
	written := two.Written()
	look(t, one, "a")
	woken(t, two.Changed(), "by another's job")
	woken(t, written, "by another's commit")

	db, err := sql.Open("pgx", address)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() // it was only to cut
	if _, err := db.Exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN %' AND state = 'idle' AND pid <> pg_backend_pid()`); err != nil {
		t.Fatal(err)
	}
	woken(t, two.Changed(), "when the line stands again")
	look(t, one, "b")
	woken(t, two.Changed(), "by a job after the line was cut")
}

func woken[T any](t *testing.T, c <-chan T, why string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(long):
		t.Fatalf("not woken %s", why)
	}
}
