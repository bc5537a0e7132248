package farm

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math"
	"time"
)

// A Job is one durable act on one subject. Two jobs of one kind and subject
// never wait at once: enqueueing the twin of a job that runs marks it dirty, and
// finishing it then arms it again.
type Job struct {
	ID      string    `json:"id,omitzero"`
	Farm    string    `json:"farm,omitzero"`
	Kind    string    `json:"kind,omitzero"`
	Subject string    `json:"subject,omitzero"`
	Lane    string    `json:"lane,omitzero"` // one job of a lane runs at a time: a node, a name set, a rollout; empty: its own
	RunAt   time.Time `json:"run_at,omitzero"`
	Attempt int       `json:"attempt"` // how often it was claimed since it last succeeded, this time included
	Epoch   int64     `json:"epoch"`   // of the lane's lease: every later write checks it
	Nonce   string    `json:"nonce,omitzero"`
}

// A Result is what came of a job: plain data, written by the queue in the
// transaction that finishes the job, so that all of it is kept or nothing.
type Result struct {
	Value any       // what the job's kind says; an agent posts it as JSON
	Err   error     // stored with the job and shown; the job runs again after a while
	Again time.Time // run again then; zero: done, or after an error when Backoff says
}

// Finished is a job with its result.
type Finished struct {
	Job    Job
	Result Result
}

// ErrLost says that a job's lease ended and someone else may hold it: nothing of
// its result is written.
var ErrLost = errors.New("lease lost")

// ErrRefused says that a job's result could not be applied. The job is kept with
// that error and runs again when Backoff says.
var ErrRefused = errors.New("result refused")

// Backoff is how long a job waits after its attempt failed: 1, 10, 100 minutes,
// then a day, each up to a fifth shorter or longer. The difference comes from the
// job's id, so that jobs which failed together do not come back together and each
// keeps its time.
func (j Job) Backoff() time.Duration {
	steps := []time.Duration{time.Minute, 10 * time.Minute, 100 * time.Minute, 24 * time.Hour}
	wait := steps[min(max(j.Attempt, 1), len(steps))-1]
	sum := sha256.Sum256([]byte(j.ID))
	share := float64(binary.BigEndian.Uint32(sum[:]))/math.MaxUint32*0.4 - 0.2
	return wait + time.Duration(share*float64(wait))
}
