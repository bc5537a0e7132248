// Package jobtest has the contract of a job.Queue as a suite of tests, and a queue
// in memory that fulfils it, for tests of what uses a queue.
package jobtest

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// A Memory is a queue that forgets everything. The zero value is ready.
type Memory struct {
	Now   func() time.Time          // nil: time.Now, also in the bubbles of testing/synctest
	Fail  func(call string) error   // called first by "claim", "renew" and "finish", which return its error; nil: never
	Apply func(farm.Finished) error // its error refuses a result; nil: never

	mu     sync.Mutex
	rows   []*row
	wake   chan struct{}
	epoch  int64
	counts []int // of results in each Finish
}

type row struct {
	farm.Job
	running bool
	until   time.Time
	dirty   time.Time
	err     string
}

// Wake gives a token after a job was enqueued.
func (m *Memory) Wake() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tokens()
}

func (m *Memory) tokens() chan struct{} {
	if m.wake == nil {
		m.wake = make(chan struct{}, 1)
	}
	return m.wake
}

// Enqueue adds a job, as store.Tx.Enqueue does.
func (m *Memory) Enqueue(j farm.Job) {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case m.tokens() <- struct{}{}:
	default:
	}
	if j.RunAt.IsZero() {
		j.RunAt = m.now()
	}
	for _, r := range m.rows {
		if r.Farm == j.Farm && r.Kind == j.Kind && r.Subject == j.Subject {
			r.twin(j.RunAt)
			return
		}
	}
	m.rows = append(m.rows, &row{Job: j})
}

// twin says that another of the job was enqueued, to run at a time.
func (r *row) twin(at time.Time) {
	switch {
	case r.running && (r.dirty.IsZero() || at.Before(r.dirty)):
		r.dirty = at
	case !r.running && at.Before(r.RunAt):
		r.RunAt = at
	}
}

// Claim is job.Queue's.
func (m *Memory) Claim(_ context.Context, n int, lease time.Duration) (jobs []farm.Job, next time.Time, err error) {
	if err := m.fail("claim"); err != nil {
		return nil, next, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	slices.SortStableFunc(m.rows, func(a, b *row) int { return cmp.Compare(a.RunAt.UnixNano(), b.RunAt.UnixNano()) })
	for _, r := range m.rows {
		due := m.due(r)
		switch {
		case due.After(m.now()):
			if next.IsZero() || due.Before(next) {
				next = due
			}
		case len(jobs) < n:
			m.epoch++
			r.running, r.until, r.Epoch = true, m.now().Add(lease), m.epoch
			r.Attempt++
			jobs = append(jobs, r.Job)
		}
	}
	return jobs, next, nil
}

// due is when a row may be claimed: not before its time, nor its lease's or its
// lane's end.
func (m *Memory) due(r *row) time.Time {
	due := r.RunAt
	for _, other := range m.rows {
		same := other == r || r.Lane != "" && other.Lane == r.Lane && other.Farm == r.Farm
		if same && other.running && other.until.After(due) {
			due = other.until
		}
	}
	return due
}

// Renew is job.Queue's.
func (m *Memory) Renew(_ context.Context, jobs []farm.Job, lease time.Duration) (lost []string, err error) {
	if err := m.fail("renew"); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, j := range jobs {
		if r := m.holder(j); r != nil {
			r.until = m.now().Add(lease)
		} else {
			lost = append(lost, j.ID)
		}
	}
	return lost, nil
}

// holder is the row that a lease is for, nil if the lease is lost: to another
// claim of the job, or of its lane.
func (m *Memory) holder(j farm.Job) (held *row) {
	for _, r := range m.rows {
		if r.ID == j.ID && r.running && r.Epoch == j.Epoch {
			held = r
		}
		if j.Lane != "" && r.Lane == j.Lane && r.Farm == j.Farm && r.Epoch > j.Epoch {
			return nil
		}
	}
	return held
}

// Finish is job.Queue's.
func (m *Memory) Finish(_ context.Context, done []farm.Finished) []error {
	if err := m.fail("finish"); err != nil {
		return slices.Repeat([]error{err}, len(done))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	errs := make([]error, len(done))
	m.counts = append(m.counts, len(done))
	for i, f := range done {
		errs[i] = m.finish(f)
	}
	return errs
}

func (m *Memory) finish(f farm.Finished) error {
	r := m.holder(f.Job)
	if r == nil {
		return farm.ErrLost
	}
	var refused error
	if m.Apply != nil && m.Apply(f) != nil {
		refused = farm.ErrRefused
		f.Result = farm.Result{Err: refused}
	}
	at := f.Result.Again
	r.err = ""
	if f.Result.Err != nil {
		r.err = f.Result.Err.Error()
		if at.IsZero() {
			at = m.now().Add(f.Job.Backoff())
		}
	} else {
		r.Attempt = 0
	}
	if at.IsZero() || !r.dirty.IsZero() && r.dirty.Before(at) {
		at = r.dirty
	}
	if at.IsZero() {
		m.rows = slices.DeleteFunc(m.rows, func(other *row) bool { return other == r })
	}
	r.running, r.until, r.dirty, r.RunAt = false, time.Time{}, time.Time{}, at
	return refused
}

// Take gives all leases to somebody else: who holds one has lost it.
func (m *Memory) Take() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.rows {
		if r.running {
			m.epoch++
			r.Epoch = m.epoch
			r.until = m.now().Add(24 * time.Hour)
		}
	}
}

// Waiting lists what is in the queue: kind, subject and the last error.
func (m *Memory) Waiting() (all []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.rows {
		all = append(all, r.Kind+" "+r.Subject+": "+r.err)
	}
	return all
}

// Batches lists how many results each Finish had.
func (m *Memory) Batches() []int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.counts)
}

func (m *Memory) now() time.Time {
	if m.Now == nil {
		return time.Now()
	}
	return m.Now()
}

func (m *Memory) fail(call string) error {
	if m.Fail == nil {
		return nil
	}
	return m.Fail(call)
}
