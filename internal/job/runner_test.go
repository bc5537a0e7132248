package job_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/job"
	"github.com/certfarm/certfarm/internal/job/jobtest"
)

// running starts a runner in the bubble and returns what stops it and tells how
// it ended.
func running(t *testing.T, r job.Runner) (stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	return func() error {
		cancel()
		return <-ended
	}
}

func task(subject string) farm.Job {
	return farm.Job{ID: "jo_" + subject, Farm: "f", Kind: "task", Subject: subject}
}

func tasks(h job.Handler) map[string]job.Handler { return map[string]job.Handler{"task": h} }

func stopped(t *testing.T, stop func() error) {
	t.Helper()
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestAJobRunsWhenItIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &jobtest.Memory{}
		begin := time.Now()
		var at atomic.Int64
		j := task("a")
		j.RunAt = begin.Add(90*24*time.Hour + 7*time.Second)
		q.Enqueue(j)
		stop := running(t, job.Runner{Queue: q, Poll: 24 * time.Hour, Handlers: tasks(func(context.Context, farm.Job) farm.Result {
			at.Store(int64(time.Since(begin)))
			return farm.Result{}
		})})
		time.Sleep(91 * 24 * time.Hour)
		stopped(t, stop)
		if got := time.Duration(at.Load()); got != j.RunAt.Sub(begin) {
			t.Errorf("it ran after %v", got)
		}
		if left := q.Waiting(); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

func TestAWakeUpIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &jobtest.Memory{}
		ran := make(chan time.Time, 1)
		stop := running(t, job.Runner{Queue: q, Wake: q.Wake(), Poll: time.Hour, Handlers: tasks(func(context.Context, farm.Job) farm.Result {
			ran <- time.Now()
			return farm.Result{}
		})})
		synctest.Wait()
		time.Sleep(time.Minute)
		asked := time.Now()
		q.Enqueue(task("a"))
		if d := (<-ran).Sub(asked); d != 0 {
			t.Errorf("it ran %v later", d)
		}
		stopped(t, stop)
	})
}

func TestNoMoreRunThanThereAreWorkersAndFinishesAreBatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &jobtest.Memory{Fail: func(call string) error {
			if call == "finish" {
				time.Sleep(time.Millisecond)
			}
			return nil
		}}
		for i := range 10 {
			q.Enqueue(task(fmt.Sprint(i)))
		}
		var now, most atomic.Int64
		stop := running(t, job.Runner{Queue: q, Workers: 4, Handlers: tasks(func(context.Context, farm.Job) farm.Result {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(time.Second)
			now.Add(-1)
			return farm.Result{}
		})})
		time.Sleep(3*time.Second + 100*time.Millisecond)
		if left := q.Waiting(); len(left) > 0 {
			t.Errorf("after three rounds there is left: %v", left)
		}
		stopped(t, stop)
		if most.Load() != 4 {
			t.Errorf("%d ran at a time", most.Load())
		}
		if n := q.Batches(); slices.Max(n) < 2 {
			t.Errorf("batches %v", n)
		}
	})
}

func TestALongJobKeepsItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &jobtest.Memory{}
		q.Enqueue(task("a"))
		var runs atomic.Int64
		stop := running(t, job.Runner{Queue: q, Lease: time.Minute, Handlers: tasks(func(ctx context.Context, _ farm.Job) farm.Result {
			runs.Add(1)
			select {
			case <-time.After(time.Hour):
				return farm.Result{}
			case <-ctx.Done():
				return farm.Result{Err: context.Cause(ctx)}
			}
		})})
		time.Sleep(2 * time.Hour)
		stopped(t, stop)
		if runs.Load() != 1 || len(q.Waiting()) > 0 {
			t.Errorf("it ran %d times; left %v", runs.Load(), q.Waiting())
		}
	})
}

func TestALostLeaseEndsTheHandlerAndDropsItsResult(t *testing.T) {
	for name, lose := range map[string]func(*jobtest.Memory, *atomic.Bool){
		"taken":                     func(q *jobtest.Memory, _ *atomic.Bool) { q.Take() },
		"the queue cannot be asked": func(_ *jobtest.Memory, down *atomic.Bool) { down.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var down atomic.Bool
				q := &jobtest.Memory{Fail: func(call string) error {
					if down.Load() {
						return errors.New("no " + call)
					}
					return nil
				}}
				q.Enqueue(task("a"))
				cause := make(chan error, 1)
				begin := time.Now()
				stop := running(t, job.Runner{Queue: q, Lease: time.Minute, Handlers: tasks(func(ctx context.Context, _ farm.Job) farm.Result {
					<-ctx.Done()
					cause <- context.Cause(ctx)
					return farm.Result{}
				})})
				synctest.Wait()
				lose(q, &down)
				if err := <-cause; !errors.Is(err, job.ErrLost) {
					t.Errorf("it ended with %v", err)
				}
				if d := time.Since(begin); d > time.Minute {
					t.Errorf("it ended after %v", d)
				}
				stopped(t, stop)
				if n := q.Batches(); len(n) > 0 {
					t.Errorf("%v results were finished", n)
				}
			})
		})
	}
}

func TestAPanicFailsOneJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &jobtest.Memory{}
		q.Enqueue(task("bad"))
		q.Enqueue(task("good"))
		q.Enqueue(farm.Job{ID: "jo_x", Farm: "f", Kind: "from tomorrow", Subject: "x"})
		stop := running(t, job.Runner{Queue: q, Handlers: tasks(func(_ context.Context, j farm.Job) farm.Result {
			if j.Subject == "bad" {
				panic("oh no")
			}
			return farm.Result{}
		})})
		synctest.Wait()
		stopped(t, stop)
		left := q.Waiting()
		slices.Sort(left)
		if len(left) != 2 || !strings.Contains(left[0], "no handler") || !strings.Contains(left[1], "panicked: oh no") {
			t.Errorf("left %q", left)
		}
	})
}

func TestAResultOutlivesAQueueThatIsDownForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		q := &jobtest.Memory{Fail: func(call string) error {
			if down.Load() {
				return errors.New("no " + call)
			}
			return nil
		}}
		q.Enqueue(task("a"))
		var runs atomic.Int64
		stop := running(t, job.Runner{Queue: q, Lease: time.Minute, Handlers: tasks(func(context.Context, farm.Job) farm.Result {
			runs.Add(1)
			down.Store(true)
			return farm.Result{}
		})})
		time.Sleep(50 * time.Second)
		down.Store(false)
		time.Sleep(2 * time.Second)
		stopped(t, stop)
		if runs.Load() != 1 || len(q.Waiting()) > 0 {
			t.Errorf("it ran %d times; left %v", runs.Load(), q.Waiting())
		}
	})
}

func TestARefusedResultIsNotGivenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &jobtest.Memory{Apply: func(farm.Finished) error { return errors.New("no") }}
		q.Enqueue(task("a"))
		stop := running(t, job.Runner{Queue: q, Handlers: tasks(func(context.Context, farm.Job) farm.Result { return farm.Result{} })})
		time.Sleep(30 * time.Second)
		stopped(t, stop)
		if n := q.Batches(); len(n) != 1 {
			t.Errorf("batches %v", n)
		}
	})
}

func TestStopping(t *testing.T) {
	long := func(ctx context.Context, _ farm.Job) farm.Result {
		select {
		case <-time.After(time.Minute):
			return farm.Result{}
		case <-ctx.Done():
			return farm.Result{Err: context.Cause(ctx)}
		}
	}
	for _, c := range []struct {
		name     string
		drain    time.Duration
		handler  job.Handler
		takes    time.Duration
		finished int
		fails    string
	}{
		{"a handler may go on", 2 * time.Minute, long, time.Minute, 1, ""},
		{"not for ever", 5 * time.Second, long, 5 * time.Second, 0, ""},
		{"at once", 0, long, 0, 0, ""},
		{"a deaf handler is named", time.Second, func(context.Context, farm.Job) farm.Result {
			time.Sleep(time.Hour)
			return farm.Result{}
		}, 11 * time.Second, 0, "task a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := &jobtest.Memory{}
				q.Enqueue(task("a"))
				stop := running(t, job.Runner{Queue: q, Drain: c.drain, Handlers: tasks(c.handler)})
				synctest.Wait()
				begin := time.Now()
				err := stop()
				if (err != nil) != (c.fails != "") || err != nil && !strings.Contains(err.Error(), c.fails) {
					t.Errorf("got %v", err)
				}
				if d := time.Since(begin); d != c.takes {
					t.Errorf("it took %v, want %v", d, c.takes)
				}
				if n := len(q.Batches()); n != c.finished {
					t.Errorf("%d finished, want %d", n, c.finished)
				}
				time.Sleep(2 * time.Hour) // the deaf one returns: the bubble must end empty
			})
		})
	}
}
