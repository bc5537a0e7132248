package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

// The contract of the queue is in package job/jobtest and run there. Here is
// what the store promises beyond it.

func enqueue(t *testing.T, s *store.Store, subjects ...string) {
	t.Helper()
	update(t, s, func(tx *store.Tx) error {
		for _, subject := range subjects {
			if err := tx.Enqueue(t.Context(), farm.Job{Farm: "f", Kind: "k", Subject: subject}); err != nil {
				return err
			}
		}
		return nil
	})
}

func claim(t *testing.T, s *store.Store, n int) []farm.Job {
	t.Helper()
	jobs, _, err := s.Claim(t.Context(), "me", n, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return jobs
}

func finished(jobs []farm.Job) (all []farm.Finished) {
	for _, j := range jobs {
		all = append(all, farm.Finished{Job: j})
	}
	return all
}

func TestOneResultThatCannotBeAppliedHarmsNoOther(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, c *clock) {
		ctx := t.Context()
		enqueue(t, s, "good", "bad", "fine")
		jobs := claim(t, s, 3)
		errs := s.Finish(ctx, "me", finished(jobs), func(ctx context.Context, tx *store.Tx, f farm.Finished) error {
			if err := tx.SetWord(ctx, "f", f.Job.Subject, "done"); err != nil || f.Job.Subject != "bad" {
				return err
			}
			return errors.New("out of range")
		})
		for i, j := range jobs {
			if want := j.Subject == "bad"; errors.Is(errs[i], store.ErrRefused) != want {
				t.Errorf("%s: %v", j.Subject, errs[i])
			}
			if got := word(t, s, j.Subject); (got == "done") == (j.Subject == "bad") {
				t.Errorf("%s wrote %q", j.Subject, got)
			}
		}
		view(t, s, func(tx *store.Tx) error {
			left, err := tx.Jobs(ctx, "f", 0)
			if len(left) != 1 || left[0].Error != "out of range" || left[0].Attempt != 1 || !left[0].RunAt.After(c.now()) || left[0].Owner != "" {
				t.Errorf("left %+v", left)
			}
			return err
		})
	})
}

func TestALostJobWritesNothingAndTheOthersDo(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, c *clock) {
		ctx := t.Context()
		enqueue(t, s, "a", "b")
		jobs := claim(t, s, 2)
		c.pass(time.Hour)
		other, _, err := s.Claim(ctx, "other", 1, time.Minute)
		if err != nil || len(other) != 1 {
			t.Fatal(other, err)
		}
		errs := s.Finish(ctx, "me", finished(jobs), func(ctx context.Context, tx *store.Tx, f farm.Finished) error {
			return tx.SetWord(ctx, "f", f.Job.Subject, "done")
		})
		for i, j := range jobs {
			lost := j.ID == other[0].ID
			if errors.Is(errs[i], store.ErrLost) != lost || (word(t, s, j.Subject) == "") != lost {
				t.Errorf("%s, lost %v: %v, wrote %q", j.Subject, lost, errs[i], word(t, s, j.Subject))
			}
			err := s.Update(ctx, func(tx *store.Tx) error { return tx.Hold(ctx, j) })
			if !errors.Is(err, store.ErrLost) {
				t.Errorf("%s is held: %v", j.Subject, err)
			}
		}
		if err := s.Update(ctx, func(tx *store.Tx) error { return tx.Hold(ctx, other[0]) }); err != nil {
			t.Error(err)
		}
	})
}

func TestAJobMayEnqueueItselfWhenItIsFinished(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, c *clock) {
		enqueue(t, s, "a")
		errs := s.Finish(t.Context(), "me", finished(claim(t, s, 1)), func(ctx context.Context, tx *store.Tx, f farm.Finished) error {
			return tx.Enqueue(ctx, farm.Job{Farm: "f", Kind: "k", Subject: "a", RunAt: tx.Now().Add(time.Hour)})
		})
		if errs[0] != nil {
			t.Fatal(errs)
		}
		if got := claim(t, s, 1); len(got) > 0 {
			t.Errorf("claimed %v at once", got)
		}
		c.pass(time.Hour)
		if got := claim(t, s, 1); len(got) != 1 || got[0].Attempt != 1 {
			t.Errorf("claimed %v after an hour", got)
		}
	})
}

func TestAnObserverMayCrashClaimAndFinish(t *testing.T) {
	storetest.Each(t, func(t *testing.T, open func(store.Options) *store.Store) {
		crash := errors.New("crash")
		var at string
		c := newClock()
		s := open(store.Options{Now: c.now, Observe: func(_ context.Context, point string) error {
			if point == at {
				return crash
			}
			return nil
		}})
		enqueue(t, s, "a")
		done := func(ctx context.Context, tx *store.Tx, _ farm.Finished) error {
			return tx.SetWord(ctx, "f", "a", "done")
		}
		for _, at = range []string{"begin", "commit"} {
			if _, _, err := s.Claim(t.Context(), "me", 1, time.Minute); !errors.Is(err, crash) {
				t.Errorf("claim, %s: %v", at, err)
			}
		}
		at = ""
		if got := claim(t, s, 1); len(got) > 0 {
			t.Errorf("the claim that crashed after its commit did not hold: %v", got)
		}
		c.pass(time.Hour)
		jobs := claim(t, s, 1)
		for _, at = range []string{"begin", "commit"} {
			if errs := s.Finish(t.Context(), "me", finished(jobs), done); !errors.Is(errs[0], crash) {
				t.Errorf("finish, %s: %v", at, errs)
			}
			if got := word(t, s, "a"); (got == "done") != (at == "commit") {
				t.Errorf("finish, %s: wrote %q", at, got)
			}
		}
	})
}

func TestJobsAreShownToPeople(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, c *clock) {
		ctx := t.Context()
		enqueue(t, s, "a")
		claim(t, s, 1)
		update(t, s, func(tx *store.Tx) error {
			return errors.Join(
				tx.Enqueue(ctx, farm.Job{Farm: "f", Kind: "k", Subject: "late", RunAt: c.now().Add(2 * time.Hour)}),
				tx.Enqueue(ctx, farm.Job{Farm: "f", Kind: "k", Subject: "soon", RunAt: c.now().Add(time.Hour)}),
				tx.Enqueue(ctx, farm.Job{Farm: "f", Kind: "k", Subject: "gone", RunAt: c.now().Add(time.Hour)}),
				tx.RemoveJob(ctx, "f", "k", "gone"), tx.RemoveJob(ctx, "f", "k", "a"),
				tx.Enqueue(ctx, farm.Job{Farm: "g", Kind: "k", Subject: "of another farm"}))
		})
		view(t, s, func(tx *store.Tx) error {
			jobs, err := tx.Jobs(ctx, "f", 0)
			var shown []string
			for _, j := range jobs {
				shown = append(shown, fmt.Sprintf("%s %q %v", j.Subject, j.Owner, j.Since.Equal(c.now())))
			}
			same(t, "jobs", shown, []string{`a "me" true`, `soon "" false`, `late "" false`})
			one, err2 := tx.Job(ctx, "f", "k", "soon")
			if !one.RunAt.Equal(c.now().Add(time.Hour)) {
				t.Errorf("got %+v", one)
			}
			if _, err := tx.Job(ctx, "f", "k", "gone"); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("taken back: %v", err)
			}
			return errors.Join(err, err2)
		})
	})
}

// Several controllers claim and finish at once: each job is run once, no lane
// has two at a time, and epochs of a lane only grow.
func TestControllersShareTheWork(t *testing.T) {
	storetest.Each(t, func(t *testing.T, open func(store.Options) *store.Store) {
		s := open(store.Options{})
		const jobs, lanes = 60, 7
		update(t, s, func(tx *store.Tx) error {
			for i := range jobs {
				j := farm.Job{Farm: "f", Kind: "k", Subject: fmt.Sprint(i), Lane: fmt.Sprint("lane", i%lanes)}
				if i%5 == 0 {
					j.Lane = ""
				}
				if err := tx.Enqueue(t.Context(), j); err != nil {
					return err
				}
			}
			return nil
		})
		w := &watch{busy: map[string]string{}, epoch: map[string]int64{}}
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				if err := w.work(t.Context(), s, fmt.Sprint("controller", i), jobs); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		slices.Sort(w.done)
		if got := slices.Compact(slices.Clone(w.done)); len(got) != jobs || len(w.done) != jobs {
			t.Errorf("%d runs of %d of %d jobs", len(w.done), len(got), jobs)
		}
		if len(w.wrong) > 0 {
			t.Error(strings.Join(w.wrong, "\n"))
		}
	})
}

// A watch sees what controllers do at the same time.
type watch struct {
	mu    sync.Mutex
	busy  map[string]string
	epoch map[string]int64
	done  []string
	wrong []string
}

func (w *watch) work(ctx context.Context, s *store.Store, owner string, all int) error {
	for w.count() < all {
		jobs, next, err := s.Claim(ctx, owner, 5, time.Minute)
		if err != nil {
			return err
		}
		w.begin(jobs)
		if len(jobs) == 0 {
			if next.IsZero() {
				return nil
			}
			time.Sleep(5 * time.Millisecond) // the others have it: they are not waited for here
			continue
		}
		errs := s.Finish(ctx, owner, finished(jobs), func(ctx context.Context, tx *store.Tx, f farm.Finished) error {
			w.end(f.Job)
			return tx.SetWord(ctx, "f", f.Job.Subject, owner)
		})
		if err := errors.Join(errs...); err != nil {
			return err
		}
		w.mu.Lock()
		for _, j := range jobs {
			w.done = append(w.done, j.Subject)
		}
		w.mu.Unlock()
	}
	return nil
}

func (w *watch) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.done)
}

func (w *watch) begin(jobs []farm.Job) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, j := range jobs {
		if j.Lane == "" {
			continue
		}
		if other := w.busy[j.Lane]; other != "" {
			w.wrong = append(w.wrong, fmt.Sprintf("%s has %s and %s", j.Lane, other, j.Subject))
		}
		if j.Epoch <= w.epoch[j.Lane] {
			w.wrong = append(w.wrong, fmt.Sprintf("the epoch of %s went from %d to %d", j.Lane, w.epoch[j.Lane], j.Epoch))
		}
		w.busy[j.Lane], w.epoch[j.Lane] = j.Subject, j.Epoch
	}
}

// end is called within the transaction that frees the lane, so nobody can have
// the lane before.
func (w *watch) end(j farm.Job) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.busy, j.Lane)
}

// The cost of a claim must not grow with what is kept: `make bench` compares both
// sizes, each with 64 jobs due.
func BenchmarkClaim(b *testing.B) {
	for _, kept := range []int{1_000, 100_000} {
		for _, database := range storetest.Databases() {
			b.Run(fmt.Sprintf("%s/kept=%d", database, kept), func(b *testing.B) { benchmarkClaim(b, database, kept) })
		}
	}
}

func benchmarkClaim(b *testing.B, database string, kept int) {
	ctx, c := b.Context(), newClock()
	s := storetest.Open(b, database, store.Options{Now: c.now})
	begin := c.now()
	for at := 0; at < kept; at += 10_000 {
		err := s.Update(ctx, func(tx *store.Tx) error {
			for i := at; i < min(at+10_000, kept); i++ {
				site := fmt.Sprintf("site-%06d", i)
				j := farm.Job{Farm: "f", Kind: "check", Subject: site, Lane: "names " + site, RunAt: begin.Add(time.Hour)}
				if i < 64 {
					j.RunAt = begin
				}
				if err := errors.Join(tx.PutCertificate(ctx, farm.Certificate{Farm: "f", Site: site}), tx.Enqueue(ctx, j)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	again := func(context.Context, *store.Tx, farm.Finished) error { return nil }
	for b.Loop() {
		jobs, _, err := s.Claim(ctx, "me", 64, time.Minute)
		if err != nil || len(jobs) != 64 {
			b.Fatal(len(jobs), err)
		}
		b.StopTimer()
		done := finished(jobs)
		for i := range done {
			done[i].Result.Again = begin
		}
		if err := errors.Join(s.Finish(ctx, "me", done, again)...); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
