package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

func TestMain(m *testing.M) { os.Exit(storetest.Main(m)) }

// A clock is set by hand.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// each opens a store with a clock set by hand, on every database.
func each(t *testing.T, f func(t *testing.T, s *store.Store, c *clock)) {
	storetest.Each(t, func(t *testing.T, open func(store.Options) *store.Store) {
		c := newClock()
		f(t, open(store.Options{Now: c.now}), c)
	})
}

func update(t *testing.T, s *store.Store, f func(tx *store.Tx) error) {
	t.Helper()
	if err := s.Update(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

func view(t *testing.T, s *store.Store, f func(tx *store.Tx) error) {
	t.Helper()
	if err := s.View(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

// word reads a word of farm f.
func word(t *testing.T, s *store.Store, name string) (value string) {
	t.Helper()
	view(t, s, func(tx *store.Tx) (err error) {
		value, err = tx.Word(t.Context(), "f", name)
		return err
	})
	return value
}

func TestAnUpdateIsAllOrNothing(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, _ *clock) {
		ctx := t.Context()
		want := errors.New("no")
		err := s.Update(ctx, func(tx *store.Tx) error {
			return errors.Join(tx.SetWord(ctx, "f", "freeze", "yes"), tx.Enqueue(ctx, farm.Job{Farm: "f", Kind: "check", Subject: "www"}), want)
		})
		if !errors.Is(err, want) {
			t.Fatalf("got %v", err)
		}
		if got := word(t, s, "freeze"); got != "" {
			t.Errorf("the word was kept: %q", got)
		}
		select {
		case <-s.Changed():
			t.Error("the runner was woken for nothing")
		default:
		}
		view(t, s, func(tx *store.Tx) error {
			jobs, err := tx.Jobs(ctx, "f", 0)
			if len(jobs) > 0 {
				t.Errorf("the job was kept: %v", jobs)
			}
			return err
		})
	})
}

func TestAViewDoesNotWriteAndSeesOneState(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, _ *clock) {
		ctx := t.Context()
		if err := s.View(ctx, func(tx *store.Tx) error { return tx.SetWord(ctx, "f", "a", "1") }); err == nil {
			t.Error("a view wrote")
		}
		view(t, s, func(tx *store.Tx) error {
			before, err := tx.Word(ctx, "f", "a")
			if err != nil {
				return err
			}
			update(t, s, func(tx *store.Tx) error { return tx.SetWord(ctx, "f", "a", "2") })
			after, err := tx.Word(ctx, "f", "a")
			if before != after {
				t.Errorf("it saw %q, then %q", before, after)
			}
			return err
		})
		if got := word(t, s, "a"); got != "2" {
			t.Errorf("the update beside it wrote %q", got)
		}
	})
}

// Each adds one to a number that it has read: none of the additions may be lost.
func TestUpdatesAreSerial(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, _ *clock) {
		ctx := t.Context()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 5 {
					err := s.Update(ctx, func(tx *store.Tx) error {
						was, err := tx.Word(ctx, "f", "count")
						if err != nil {
							return err
						}
						return tx.SetWord(ctx, "f", "count", was+"i")
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if got := word(t, s, "count"); len(got) != 20 {
			t.Errorf("%d of 20 additions are there", len(got))
		}
	})
}

func TestObserveStopsAnUpdateBeforeOrAfter(t *testing.T) {
	storetest.Each(t, func(t *testing.T, open func(store.Options) *store.Store) {
		ctx := t.Context()
		crash := errors.New("crash")
		var at string
		s := open(store.Options{Observe: func(_ context.Context, point string) error {
			if point == at {
				return crash
			}
			return nil
		}})
		for _, c := range []struct {
			at   string
			kept string
		}{{"begin", ""}, {"commit", "yes"}} {
			at = c.at
			if err := s.Update(ctx, func(tx *store.Tx) error { return tx.SetWord(ctx, "f", "a", "yes") }); !errors.Is(err, crash) {
				t.Errorf("%s: %v", at, err)
			}
			if got := word(t, s, "a"); got != c.kept {
				t.Errorf("%s: kept %q", at, got)
			}
		}
	})
}

func TestWhatIsKeptIsThereAfterOpeningAgain(t *testing.T) {
	storetest.Each(t, func(t *testing.T, open func(store.Options) *store.Store) {
		s := open(store.Options{})
		update(t, s, func(tx *store.Tx) error { return tx.SetWord(t.Context(), "f", "a", "b") })
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if got := word(t, open(store.Options{}), "a"); got != "b" {
			t.Errorf("got %q", got)
		}
	})
}

func TestTheClockIsTheDatabases(t *testing.T) {
	storetest.Each(t, func(t *testing.T, open func(store.Options) *store.Store) {
		view(t, open(store.Options{}), func(tx *store.Tx) error {
			if d := time.Since(tx.Now()).Abs(); d > time.Minute || tx.Now().Location() != time.UTC {
				t.Errorf("it says %v", tx.Now())
			}
			return nil
		})
	})
}

func TestWrittenWakesFollowers(t *testing.T) {
	s := storetest.SQLite(t, store.Options{})
	written := s.Written()
	select {
	case <-written:
		t.Fatal("closed before anything was written")
	default:
	}
	update(t, s, func(tx *store.Tx) error { return tx.SetWord(t.Context(), "f", "a", "b") })
	<-written
}

func TestSQLiteIsForOneControllerAndItsUser(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?%#.db")
	s, err := store.Open(t.Context(), path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	update(t, s, func(tx *store.Tx) error { return tx.SetWord(t.Context(), "f", "a", "b") })
	for _, ending := range []string{"", "-wal", "-shm", ".lock"} {
		info, err := os.Stat(path + ending)
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode != 0o600 {
			t.Errorf("%s has mode %o", ending, mode)
		}
	}
	second, err := store.Open(t.Context(), path, store.Options{})
	if err == nil {
		second.Close()
		t.Fatal("a second controller opened it")
	}
	if want := fmt.Sprintf("process %d", os.Getpid()); !strings.Contains(err.Error(), want) {
		t.Errorf("%q does not say %q", err, want)
	}
	reader, err := store.Open(t.Context(), path, store.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if got := word(t, reader, "a"); got != "b" {
		t.Errorf("the reader sees %q", got)
	}
	if err := reader.Update(t.Context(), func(*store.Tx) error { return nil }); err == nil {
		t.Error("the reader may write")
	}
}

func TestADamagedFileIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(path, []byte(strings.Repeat("this is no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := store.Open(t.Context(), path, store.Options{})
	if err == nil || !strings.Contains(err.Error(), "certfarm restore") {
		t.Errorf("got %v", err)
	}
}

func TestAnAddressIsNotShown(t *testing.T) {
	_, err := store.Open(t.Context(), "postgres://u:hunter2@127.0.0.1:notaport/x", store.Options{})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}

func TestIDsSortByTime(t *testing.T) {
	before := store.NewID("ev")
	seen := map[string]bool{before: true}
	for range 100 {
		time.Sleep(time.Microsecond) // let the clock go on: it is what is tested
		id := store.NewID("ev")
		if seen[id] || id[:12] < before[:12] {
			t.Fatalf("%s after %s", id, before)
		}
		seen[id], before = true, id
	}
}

// A second controller on one SQLite file is told so, and by whom it is used; when the
// first has gone it may come. Who only reads, to back up, may come at any time.
func TestSQLiteHasOneController(t *testing.T) {
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "certfarm.db")
	first, err := store.Open(ctx, path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(ctx, path, store.Options{}); err == nil || !strings.Contains(err.Error(), "another certfarm") || !strings.Contains(err.Error(), "use PostgreSQL for several") {
		t.Errorf("the second was told: %v", err)
	}
	reader, err := store.Open(ctx, path, store.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(reader.Close(), first.Close()); err != nil {
		t.Fatal(err)
	}
	second, err := store.Open(ctx, path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
}
