package jobtest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/job"
)

// A Subject is a queue under test.
type Subject struct {
	A, B    job.Queue // two owners of one queue
	Enqueue func(t *testing.T, j farm.Job)
	Pass    func(d time.Duration) // lets time go by
	Now     func() time.Time
}

const lease = time.Minute

// Contract holds a queue to what job.Queue says. empty gives one without jobs.
func Contract(t *testing.T, empty func(t *testing.T) Subject) {
	for name, test := range map[string]func(*testing.T, Subject){
		"a job is claimed once, when it is due":          onceWhenDue,
		"a lane has one job at a time":                   oneOfALane,
		"an ended lease is claimed, its owner is fenced": fenced,
		"an ended lease of a lane fences too":            laneFenced,
		"a lease is renewed":                             renewed,
		"a twin waits once, at the earlier time":         twins,
		"a job enqueued while it runs is run again":      dirty,
		"an error is tried again, later each time":       backoff,
		"again means again":                              again,
		"what waits for a lane is not forgotten":         manyOfALane,
	} {
		t.Run(name, func(t *testing.T) { test(t, empty(t)) })
	}
}

func named(kind, subject, lane string) farm.Job {
	return farm.Job{ID: "jo_" + kind + subject, Farm: "f", Kind: kind, Subject: subject, Lane: lane}
}

// claim claims up to ten and returns them by subject.
func claim(t *testing.T, q job.Queue) map[string]farm.Job {
	t.Helper()
	jobs, _, err := q.Claim(t.Context(), 10, lease)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]farm.Job{}
	for _, j := range jobs {
		got[j.Subject] = j
	}
	if len(got) != len(jobs) {
		t.Fatalf("one job was claimed twice: %v", jobs)
	}
	return got
}

// wants fails unless exactly the subjects were claimed.
func wants(t *testing.T, got map[string]farm.Job, subjects ...string) {
	t.Helper()
	for _, s := range subjects {
		if _, has := got[s]; !has {
			t.Errorf("%s was not claimed", s)
		}
	}
	if len(got) != len(subjects) {
		t.Fatalf("claimed %v, want %v", got, subjects)
	}
}

func finish(t *testing.T, q job.Queue, j farm.Job, r farm.Result) {
	t.Helper()
	if err := q.Finish(t.Context(), []farm.Finished{{Job: j, Result: r}})[0]; err != nil {
		t.Fatal(err)
	}
}

func loses(t *testing.T, q job.Queue, j farm.Job) {
	t.Helper()
	if err := q.Finish(t.Context(), []farm.Finished{{Job: j}})[0]; !errors.Is(err, job.ErrLost) {
		t.Errorf("finish gives %v, want %v", err, job.ErrLost)
	}
}

func onceWhenDue(t *testing.T, s Subject) {
	j := named("check", "www", "")
	j.RunAt = s.Now().Add(time.Hour)
	s.Enqueue(t, j)
	jobs, next, err := s.A.Claim(t.Context(), 10, lease)
	if err != nil || len(jobs) > 0 || next.Sub(j.RunAt).Abs() > time.Second {
		t.Fatalf("before: %v, next %v, %v", jobs, next, err)
	}
	s.Pass(time.Hour)
	got := claim(t, s.A)
	wants(t, got, "www")
	if got["www"].Attempt != 1 || got["www"].Epoch == 0 {
		t.Errorf("got %+v", got["www"])
	}
	wants(t, claim(t, s.B))
	finish(t, s.A, got["www"], farm.Result{})
	s.Pass(2 * lease)
	if jobs, next, err := s.B.Claim(t.Context(), 10, lease); err != nil || len(jobs) > 0 || !next.IsZero() {
		t.Errorf("after: %v, next %v, %v", jobs, next, err)
	}
}

func oneOfALane(t *testing.T, s Subject) {
	s.Enqueue(t, named("act", "one", "node-1"))
	s.Enqueue(t, named("act", "other", "node-2"))
	s.Pass(time.Second)
	s.Enqueue(t, named("act", "two", "node-1"))
	got := claim(t, s.A)
	wants(t, got, "one", "other")
	wants(t, claim(t, s.B))
	finish(t, s.A, got["one"], farm.Result{})
	two := claim(t, s.B)
	wants(t, two, "two")
	if two["two"].Epoch <= got["one"].Epoch {
		t.Errorf("the epoch went from %d to %d", got["one"].Epoch, two["two"].Epoch)
	}
}

func fenced(t *testing.T, s Subject) {
	s.Enqueue(t, named("check", "www", ""))
	first := claim(t, s.A)["www"]
	s.Pass(lease)
	second := claim(t, s.B)["www"]
	if second.Attempt != 2 || second.Epoch <= first.Epoch {
		t.Fatalf("first %+v, second %+v", first, second)
	}
	if lost, err := s.A.Renew(t.Context(), []farm.Job{first}, lease); err != nil || len(lost) != 1 || lost[0] != first.ID {
		t.Errorf("renewed: lost %v, %v", lost, err)
	}
	loses(t, s.A, first)
	finish(t, s.B, second, farm.Result{})
	loses(t, s.B, second)
}

func laneFenced(t *testing.T, s Subject) {
	s.Enqueue(t, named("act", "one", "node"))
	one := claim(t, s.A)["one"]
	s.Pass(lease - time.Second)
	s.Enqueue(t, named("act", "two", "node"))
	wants(t, claim(t, s.B))
	s.Pass(time.Second)
	jobs, _, err := s.B.Claim(t.Context(), 1, lease)
	if err != nil || len(jobs) != 1 {
		t.Fatal(jobs, err)
	}
	loses(t, s.A, one)
	finish(t, s.B, jobs[0], farm.Result{})
}

func renewed(t *testing.T, s Subject) {
	s.Enqueue(t, named("act", "one", "node"))
	s.Enqueue(t, named("act", "plain", ""))
	got := claim(t, s.A)
	s.Pass(lease / 2)
	if lost, err := s.A.Renew(t.Context(), []farm.Job{got["one"], got["plain"]}, lease); err != nil || len(lost) > 0 {
		t.Fatal(lost, err)
	}
	s.Enqueue(t, named("act", "two", "node"))
	s.Pass(lease/2 + time.Second)
	wants(t, claim(t, s.B))
	s.Pass(lease)
	if lost, err := s.A.Renew(t.Context(), []farm.Job{got["one"]}, lease); err != nil || len(lost) > 0 {
		t.Errorf("nobody had taken it: %v, %v", lost, err)
	}
	wants(t, claim(t, s.B), "plain")
}

func twins(t *testing.T, s Subject) {
	for _, in := range []time.Duration{time.Hour, time.Minute, 2 * time.Hour} {
		j := named("check", "www", "")
		j.ID += in.String()
		j.RunAt = s.Now().Add(in)
		s.Enqueue(t, j)
	}
	s.Pass(time.Minute)
	got := claim(t, s.A)
	wants(t, got, "www")
	finish(t, s.A, got["www"], farm.Result{})
	s.Pass(3 * time.Hour)
	wants(t, claim(t, s.A))
}

func dirty(t *testing.T, s Subject) {
	s.Enqueue(t, named("advance", "ro", "ro"))
	got := claim(t, s.A)
	for _, in := range []time.Duration{time.Hour, time.Minute} {
		j := named("advance", "ro", "ro")
		j.RunAt = s.Now().Add(in)
		s.Enqueue(t, j)
	}
	wants(t, claim(t, s.B))
	finish(t, s.A, got["ro"], farm.Result{})
	wants(t, claim(t, s.B))
	s.Pass(time.Minute)
	got = claim(t, s.B)
	wants(t, got, "ro")
	if got["ro"].Attempt != 1 {
		t.Errorf("attempt %d after a success", got["ro"].Attempt)
	}
	finish(t, s.B, got["ro"], farm.Result{})
	s.Pass(2 * time.Hour)
	wants(t, claim(t, s.A))
}

func backoff(t *testing.T, s Subject) {
	s.Enqueue(t, named("check", "www", ""))
	for i, about := range []time.Duration{time.Minute, 10 * time.Minute, 100 * time.Minute, 24 * time.Hour, 24 * time.Hour} {
		got := claim(t, s.A)
		wants(t, got, "www")
		if got["www"].Attempt != i+1 {
			t.Errorf("attempt %d, want %d", got["www"].Attempt, i+1)
		}
		finish(t, s.A, got["www"], farm.Result{Err: errors.New("the CA is down \xff\x00")})
		s.Pass(about * 79 / 100)
		wants(t, claim(t, s.A))
		s.Pass(about * 42 / 100)
	}
}

func again(t *testing.T, s Subject) {
	s.Enqueue(t, named("check", "www", ""))
	got := claim(t, s.A)
	finish(t, s.A, got["www"], farm.Result{Err: errors.New("not yet"), Again: s.Now().Add(time.Hour)})
	s.Pass(time.Hour - time.Second)
	wants(t, claim(t, s.A))
	s.Pass(time.Second)
	got = claim(t, s.A)
	wants(t, got, "www")
	if got["www"].Attempt != 2 {
		t.Errorf("attempt %d after an error, want 2", got["www"].Attempt)
	}
	finish(t, s.A, got["www"], farm.Result{Again: s.Now().Add(time.Hour)})
	s.Pass(time.Hour)
	if got = claim(t, s.A); got["www"].Attempt != 1 {
		t.Errorf("attempt %d after a success, want 1", got["www"].Attempt)
	}
}

// Many jobs of one lane stand before the job of another: it is not held up, and
// none of them is lost, though time does not go on.
func manyOfALane(t *testing.T, s Subject) {
	const jobs = 30
	for i := range jobs {
		s.Enqueue(t, named("act", fmt.Sprintf("%02d", i), "node"))
	}
	s.Pass(time.Second)
	s.Enqueue(t, named("act", "other", ""))
	first, _, err := s.A.Claim(t.Context(), 2, lease)
	if err != nil || len(first) != 2 {
		t.Fatalf("claimed %v, %v", first, err)
	}
	seen := map[string]bool{}
	for batch := first; len(batch) > 0; {
		var done []farm.Finished
		for _, j := range batch {
			seen[j.Subject] = true
			done = append(done, farm.Finished{Job: j})
		}
		if err := errors.Join(s.A.Finish(t.Context(), done)...); err != nil {
			t.Fatal(err)
		}
		if batch, _, err = s.A.Claim(context.WithoutCancel(t.Context()), 2, lease); err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) != jobs+1 {
		t.Errorf("%d of %d were run", len(seen), jobs+1)
	}
}
