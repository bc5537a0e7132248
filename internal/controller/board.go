package controller

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/prove/http01"
	"github.com/certfarm/certfarm/internal/store"
)

// A board keeps HTTP-01 answers in the store, where any controller finds them.
// What is put up and taken away while another commit waits for the disk shares
// the next one: many orders run at a time, and each alone would wait for the disk
// four times.
type board struct {
	store *store.Store
	turn  chan struct{} // held by who writes

	mu      sync.Mutex
	waiting []posting
}

// A posting is one change of the board.
type posting struct {
	write func(context.Context, *store.Tx) error
	done  chan error
}

func newBoard(s *store.Store) *board { return &board{store: s, turn: make(chan struct{}, 1)} }

// Put keeps an answer; see http01.Board.
func (b *board) Put(ctx context.Context, token, value string) error {
	return b.post(ctx, func(ctx context.Context, tx *store.Tx) error {
		return tx.PutChallenge(ctx, "", token, farm.Challenge{Type: http01.Method, Token: token, Value: value})
	})
}

// Remove takes an answer away; see http01.Board.
func (b *board) Remove(ctx context.Context, token string) error {
	return b.post(ctx, func(ctx context.Context, tx *store.Tx) error { return tx.RemoveChallenges(ctx, "", token) })
}

// records keeps TXT values in the store, where every controller's name server finds
// them.
type records struct{ *board }

// Put adds a value; see dns01.Board.
func (r records) Put(ctx context.Context, name, value string) error {
	return r.post(ctx, func(ctx context.Context, tx *store.Tx) error { return tx.PutRecord(ctx, name, value) })
}

// Remove takes a value away; see dns01.Board.
func (r records) Remove(ctx context.Context, name, value string) error {
	return r.post(ctx, func(ctx context.Context, tx *store.Tx) error { return tx.RemoveRecord(ctx, name, value) })
}

// Values are those at a name; see dns01.Board.
func (r records) Values(ctx context.Context, name string) (all []string, err error) {
	err = r.store.View(ctx, func(tx *store.Tx) error {
		all, err = tx.Records(ctx, name)
		return err
	})
	return all, err
}

// post returns when the change is durable. Of those who wait, one writes for all.
func (b *board) post(ctx context.Context, write func(context.Context, *store.Tx) error) error {
	p := posting{write, make(chan error, 1)}
	b.mu.Lock()
	b.waiting = append(b.waiting, p)
	b.mu.Unlock()
	select {
	case err := <-p.done:
		return err
	case <-ctx.Done(): // it may be written all the same
		return ctx.Err()
	case b.turn <- struct{}{}:
	}
	b.writeAll(context.WithoutCancel(ctx)) // it is not for its own caller alone
	<-b.turn
	return <-p.done
}

func (b *board) writeAll(ctx context.Context) {
	b.mu.Lock()
	all := b.waiting
	b.waiting = nil
	b.mu.Unlock()
	if len(all) == 0 {
		return // who had the turn before wrote them
	}
	err := b.store.Update(ctx, func(tx *store.Tx) error {
		for _, p := range all {
			if err := p.write(ctx, tx); err != nil {
				return err
			}
		}
		return nil
	})
	for _, p := range all {
		p.done <- err
	}
}

// Get finds an answer; see http01.Board.
func (b *board) Get(ctx context.Context, token string) (value string, ok bool, err error) {
	var c farm.Challenge
	err = b.store.View(ctx, func(tx *store.Tx) error {
		c, err = tx.ChallengeByToken(ctx, token)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return "", false, nil
	}
	return c.Value, err == nil, err
}

// ChallengeHandler answers HTTP-01 questions from the store.
func (c *Controller) ChallengeHandler() http.Handler { return http01.Handler(newBoard(c.Store).Get) }
