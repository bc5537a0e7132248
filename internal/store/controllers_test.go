package store_test

import (
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

// A controller says that it lives, how far its clock is off, and goes; one that is
// silent for a day is forgotten.
func TestControllersAreSeen(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, c *clock) {
		ctx := t.Context()
		beat := func(owner string, ahead time.Duration) {
			t.Helper()
			if err := s.Beat(ctx, store.Seat{Owner: owner, Host: "h"}, func() time.Time { return c.now().Add(ahead) }); err != nil {
				t.Fatal(err)
			}
		}
		seats := func() (all []store.Seat) {
			t.Helper()
			if err := s.View(ctx, func(tx *store.Tx) (err error) { all, err = tx.Seats(ctx); return err }); err != nil {
				t.Fatal(err)
			}
			return all
		}
		beat("one", 0)
		c.pass(time.Minute)
		beat("two", 3*time.Second)
		all := seats()
		if len(all) != 2 || all[0].Owner != "two" || all[0].Skew != 3*time.Second || !all[0].Hears || !all[1].Seen.Equal(c.now().Add(-time.Minute)) {
			t.Errorf("seen: %+v", all)
		}
		if err := s.Leave(ctx, "two"); err != nil {
			t.Fatal(err)
		}
		if all := seats(); len(all) != 1 || all[0].Owner != "one" {
			t.Errorf("after one left: %+v", all)
		}
		c.pass(25 * time.Hour)
		beat("three", 0)
		if all := seats(); len(all) != 1 || all[0].Owner != "three" {
			t.Errorf("after a day: %+v", all)
		}
	})
}

// What holds a lane, what fails and what is late can be told.
func TestWhatIsUnderWayCanBeTold(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, c *clock) {
		ctx := t.Context()
		update(t, s, func(tx *store.Tx) error {
			return tx.Enqueue(ctx, farm.Job{Farm: "f", Kind: "act", Subject: "a", Lane: "n1"})
		})
		enqueue(t, s, "x", "y")
		jobs := claim(t, s, 2)
		var ran farm.Job
		for _, j := range jobs {
			if j.Lane == "" {
				ran = j
			}
		}
		if ran.ID != "" {
			for _, err := range s.Finish(ctx, "me", []farm.Finished{{Job: ran, Result: farm.Result{Err: sql.ErrConnDone}}}, nothing) {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		c.pass(2 * time.Minute)
		err := s.View(ctx, func(tx *store.Tx) error {
			failing, err := tx.Failing(ctx, "f", 10)
			if err != nil {
				return err
			}
			if len(failing) != 1 || failing[0].Error != sql.ErrConnDone.Error() {
				t.Errorf("failing: %+v", failing)
			}
			n, err := tx.CountJobs(ctx, "f")
			if n.Running != 1 || n.Waiting != 2 || n.Late == 0 {
				t.Errorf("counted %+v", n)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		held := 0
		update(t, s, func(tx *store.Tx) error { return nil })
		claim(t, s, 3)
		err = s.View(ctx, func(tx *store.Tx) error {
			all, err := tx.Held(ctx, "f", 0)
			for _, h := range all {
				if h.Lane == "n1" && h.Owner == "me" && h.Kind == "act" && h.Epoch > 0 && h.Until.After(tx.Now()) {
					held++
				}
			}
			return err
		})
		if err != nil || held != 1 {
			t.Errorf("the lane is held %d times: %v", held, err)
		}
	})
}

// A database that writes another history than before has every farm observe; how
// safe commits are is told when it changes.
func TestAnotherHistoryIsObservedFirst(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, _ *clock) {
		ctx := t.Context()
		update(t, s, func(tx *store.Tx) error {
			_, err := tx.SaveFarm(ctx, small("a"), nil, "alice", 0)
			return err
		})
		for i, want := range []struct {
			r              store.Replication
			moved, changed bool
		}{
			{store.Replication{Identity: "7/1"}, false, false},
			{store.Replication{Identity: "7/1", Unsafe: "asynchronous"}, false, true},
			{store.Replication{Unsafe: "asynchronous"}, false, false}, // it would not say which history
			{store.Replication{Identity: "7/1"}, false, true},
			{store.Replication{Identity: "7/2"}, true, false},
			{store.Replication{Identity: "7/2"}, false, false},
		} {
			update(t, s, func(tx *store.Tx) error {
				moved, changed, err := tx.Remember(ctx, want.r)
				if moved != want.moved || changed != want.changed {
					t.Errorf("%d: moved %v, changed %v, want %+v", i, moved, changed, want)
				}
				return err
			})
			if observes := word(t, s, store.Observing) != ""; observes != (i >= 4) {
				t.Errorf("%d: observes: %v", i, observes)
			}
		}
	})
}

// PostgreSQL says how safe a commit is there.
func TestTheSafetyOfCommitsIsAsked(t *testing.T) {
	ask := func(address string) store.Replication {
		t.Helper()
		s, err := store.Open(t.Context(), address, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close() // it was only asked
		r, err := s.Replication(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	address := storetest.Postgres(t)
	r := ask(address)
	if system, timeline, _ := strings.Cut(r.Identity, "/"); len(system) < 10 || timeline == "" {
		t.Errorf("identity %q", r.Identity)
	}
	if again := ask(address); again != r {
		t.Errorf("%+v, and a moment later %+v", r, again)
	}
	db, err := sql.Open("pgx", address)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() // it was only asked
	var fsync string
	if err := db.QueryRow(`SHOW fsync`).Scan(&fsync); err != nil {
		t.Fatal(err)
	}
	if (fsync == "off") != strings.Contains(r.Unsafe, "fsync is off") {
		t.Errorf("fsync is %s, and it says %q", fsync, r.Unsafe)
	}
}
