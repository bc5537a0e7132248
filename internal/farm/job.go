package farm

import "time"

// A Job is one durable act on one subject. Two jobs of one kind and subject
// never wait at once: enqueueing the twin of a job that runs marks it dirty, and
// finishing it then arms it again.
type Job struct {
	ID      string
	Farm    string
	Kind    string
	Subject string
	Lane    string // one job of a lane runs at a time: a node, a name set, a rollout; empty: its own
	RunAt   time.Time
	Attempt int   // how often it was claimed since it last succeeded, this time included
	Epoch   int64 // of the lane's lease: every later write checks it
	Nonce   string
}

// A Result is what came of a job: plain data, written by the queue in the
// transaction that finishes the job, so that all of it is kept or nothing.
type Result struct {
	Value any       // what the job's kind says; an agent posts it as JSON
	Err   error     // stored with the job and shown; the job runs again after a while
	Again time.Time // run again then; zero: done, or after an error when job.Backoff says
}

// Finished is a job with its result.
type Finished struct {
	Job    Job
	Result Result
}
