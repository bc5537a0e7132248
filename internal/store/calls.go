package store

import (
	"context"
	"database/sql"
	"encoding/base64"
	"fmt"
	"slices"
	"time"
)

// A CallID names a call that an agent is asked to do.
type CallID struct {
	Farm, Node, ID string
}

// A CallRow is a call to a node's agent, or its answer, as it passes from one
// controller to another: sealed by package secret, unreadable here. It is a letter
// and no memory: when the controller that waits is gone, so is its use.
type CallRow struct {
	CallID
	Owner  string    // the controller that waits
	Until  time.Time // when it waits no longer
	Sealed []byte
}

// PutCalls writes calls for the agents to fetch, and tells the other controllers.
func (s *Store) PutCalls(ctx context.Context, calls []CallRow) error {
	err := s.commit(ctx, sql.LevelReadCommitted, true, func(t *Tx) error {
		t.wrote.calls = true
		for some := range slices.Chunk(calls, maxRows) {
			var args []any
			for _, c := range some {
				args = append(args, c.ID, c.Farm, c.Node, c.Owner, micros(c.Until), int64(0), base64.StdEncoding.EncodeToString(c.Sealed), micros(t.now))
			}
			if _, err := t.exec(ctx, `INSERT INTO calls (id, farm, node, owner, until, answered, sealed, at) VALUES `+values(len(some), "(?,?,?,?,?,?,?,?)"), args...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write calls: %w", err)
	}
	return nil
}

// AnswerCalls writes answers in place of their calls, and reports of each whether
// somebody waited for it: the call is that node's, and was not answered yet.
func (s *Store) AnswerCalls(ctx context.Context, answers []CallRow) (taken []bool, err error) {
	err = s.commit(ctx, sql.LevelReadCommitted, true, func(t *Tx) error {
		t.wrote.answers = true
		taken = make([]bool, len(answers))
		for i, a := range answers {
			n, err := t.exec(ctx, `UPDATE calls SET answered = ?, sealed = ? WHERE id = ? AND farm = ? AND node = ? AND answered = 0 AND until > ?`,
				micros(t.now), base64.StdEncoding.EncodeToString(a.Sealed), a.ID, a.Farm, a.Node, micros(t.now))
			if err != nil {
				return err
			}
			taken[i] = n > 0
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("write answers: %w", err)
	}
	return taken, nil
}

// DropCalls forgets calls, and those for which nobody waits any longer. It tells
// nobody.
func (s *Store) DropCalls(ctx context.Context, ids []string) error {
	err := s.commit(ctx, sql.LevelReadCommitted, false, func(t *Tx) error {
		for some := range slices.Chunk(ids, maxRows) {
			var args []any
			for _, id := range some {
				args = append(args, id)
			}
			if _, err := t.exec(ctx, `DELETE FROM calls WHERE id IN (`+values(len(some), "?")+`)`, args...); err != nil {
				return err
			}
		}
		_, err := t.exec(ctx, `DELETE FROM calls WHERE until < ?`, micros(t.now.Add(-time.Minute)))
		return err
	})
	if err != nil {
		return fmt.Errorf("forget calls: %w", err)
	}
	return nil
}

// OpenCalls lists the calls that wait for an answer, in the order in which they were
// made, of all farms.
func (t *Tx) OpenCalls(ctx context.Context) ([]CallID, error) {
	var all []CallID
	err := t.each(ctx, func(scan func(...any) error) error {
		var c CallID
		err := scan(&c.Farm, &c.Node, &c.ID)
		all = append(all, c)
		return err
	}, `SELECT farm, node, id FROM calls WHERE answered = 0 AND until > ? ORDER BY at, id`, micros(t.now))
	if err != nil {
		return nil, fmt.Errorf("list calls: %w", err)
	}
	return all, nil
}

const callColumns = `id, farm, node, owner, until, sealed`

// Calls reads calls that are still open, in their order.
func (t *Tx) Calls(ctx context.Context, ids []string) (all []CallRow, err error) {
	for some := range slices.Chunk(ids, maxRows) {
		var args []any
		for _, id := range some {
			args = append(args, id)
		}
		part, err := t.calls(ctx, `SELECT `+callColumns+` FROM calls WHERE answered = 0 AND id IN (`+values(len(some), "?")+`) ORDER BY at, id`, args...)
		if err != nil {
			return nil, err
		}
		all = append(all, part...)
	}
	return all, nil
}

// AnsweredCalls reads the answers that wait for a controller.
func (t *Tx) AnsweredCalls(ctx context.Context, owner string) ([]CallRow, error) {
	return t.calls(ctx, `SELECT `+callColumns+` FROM calls WHERE owner = ? AND answered > 0`, owner)
}

func (t *Tx) calls(ctx context.Context, query string, args ...any) (all []CallRow, err error) {
	err = t.each(ctx, func(scan func(...any) error) error {
		var c CallRow
		var until int64
		var sealed string
		err := scan(&c.ID, &c.Farm, &c.Node, &c.Owner, &until, &sealed)
		if err != nil {
			return err
		}
		c.Until = instant(until)
		c.Sealed, err = base64.StdEncoding.DecodeString(sealed)
		all = append(all, c)
		return err
	}, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read calls: %w", err)
	}
	return all, nil
}
