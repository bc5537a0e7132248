package job_test

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/job/jobtest"
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

func TestTheStoreIsAQueue(t *testing.T) {
	for _, database := range storetest.Databases() {
		t.Run(database, func(t *testing.T) {
			jobtest.Contract(t, func(t *testing.T) jobtest.Subject {
				c := newClock()
				s := storetest.Open(t, database, store.Options{Now: c.now})
				nothing := func(context.Context, *store.Tx, farm.Finished) error { return nil }
				return jobtest.Subject{
					A:    store.Queue{Store: s, Owner: "a", Apply: nothing},
					B:    store.Queue{Store: s, Owner: "b", Apply: nothing},
					Now:  c.now,
					Pass: c.pass,
					Enqueue: func(t *testing.T, j farm.Job) {
						if err := s.Update(t.Context(), func(tx *store.Tx) error { return tx.Enqueue(t.Context(), j) }); err != nil {
							t.Fatal(err)
						}
					},
				}
			})
		})
	}
}

// The queue in memory is what the tests of the runner trust.
func TestTheMemoryIsAQueue(t *testing.T) {
	jobtest.Contract(t, func(t *testing.T) jobtest.Subject {
		c := newClock()
		m := &jobtest.Memory{Now: c.now}
		return jobtest.Subject{
			A: m, B: m, Now: c.now, Pass: c.pass,
			Enqueue: func(_ *testing.T, j farm.Job) { m.Enqueue(j) },
		}
	})
}
