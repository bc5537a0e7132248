package store_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// A controller that was killed leaves leases behind. On SQLite the next one need
// not wait until they end, and what the dead one still sends is dropped.
func TestTheNextControllerTakesOverAtOnce(t *testing.T) {
	ctx, file := t.Context(), filepath.Join(t.TempDir(), "certfarm.db")
	open := func() *store.Store {
		s, err := store.Open(ctx, file, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() }) // the test may have closed it
		return s
	}
	s := open()
	update(t, s, func(tx *store.Tx) error {
		return errors.Join(
			tx.Enqueue(ctx, farm.Job{Farm: "f", Kind: "k", Subject: "one", Lane: "node"}),
			tx.Enqueue(ctx, farm.Job{Farm: "f", Kind: "k", Subject: "two", Lane: "node"}),
			tx.Enqueue(ctx, farm.Job{Farm: "f", Kind: "k", Subject: "later", RunAt: time.Now().Add(time.Hour)}))
	})
	old := claim(t, s, 9)
	if len(old) != 1 || len(claim(t, s, 9)) != 0 {
		t.Fatalf("claimed %d jobs of one lane", len(old))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	taken := claim(t, s, 9)
	if len(taken) != 1 || taken[0].Subject != "one" || taken[0].Epoch <= old[0].Epoch {
		t.Fatalf("claimed %+v after %+v", taken, old)
	}
	if errs := s.Finish(ctx, "me", finished(old), nothing); !errors.Is(errs[0], store.ErrLost) {
		t.Errorf("the dead controller's result: %v", errs[0])
	}
	if errs := s.Finish(ctx, "me", finished(taken), nothing); errs[0] != nil {
		t.Error(errs[0])
	}
	if next := claim(t, s, 9); len(next) != 1 || next[0].Subject != "two" {
		t.Errorf("then claimed %+v", next)
	}
}

func nothing(context.Context, *store.Tx, farm.Finished) error { return nil }
