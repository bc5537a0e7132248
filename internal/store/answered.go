package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// An Answered is a request with an Idempotency-Key, and how it was answered.
type Answered struct {
	Caller  string
	Digest  string    // SHA-256 of the key
	Request string    // tells requests apart that have the same key
	At      time.Time // when it was asked
	Status  int       // of the answer (RFC 9110); 0: it is being done
	Kind    string    // media type of the answer
	Answer  string    // its body; empty: there was none, or it is not kept
}

// Answered returns what became of a request, or ErrNotFound.
func (t *Tx) Answered(ctx context.Context, caller, digest string) (a Answered, err error) {
	a.Caller, a.Digest = caller, digest
	var at int64
	err = t.row(ctx, `SELECT request, at, status, kind, answer FROM answered WHERE caller = ? AND digest = ?`, caller, digest).
		Scan(&a.Request, &at, &a.Status, &a.Kind, &a.Answer)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return a, fmt.Errorf("read a request that was answered: %w", err)
	}
	a.At = instant(at)
	return a, nil
}

// PutAnswered keeps a request and its answer.
func (t *Tx) PutAnswered(ctx context.Context, a Answered) error {
	return t.put(ctx, "keep an answer", `INSERT INTO answered (caller, digest, request, at, status, kind, answer) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (caller, digest) DO UPDATE SET request = excluded.request, at = excluded.at, status = excluded.status, kind = excluded.kind, answer = excluded.answer`,
		a.Caller, a.Digest, a.Request, micros(a.At), a.Status, a.Kind, a.Answer)
}

// ForgetAnswered forgets a request, so that it may be asked anew.
func (t *Tx) ForgetAnswered(ctx context.Context, caller, digest string) error {
	return t.put(ctx, "forget an answer", `DELETE FROM answered WHERE caller = ? AND digest = ?`, caller, digest)
}

// ExpireAnswered forgets the requests that were asked before a time.
func (t *Tx) ExpireAnswered(ctx context.Context, before time.Time) error {
	return t.put(ctx, "forget old answers", `DELETE FROM answered WHERE at < ?`, micros(before))
}
