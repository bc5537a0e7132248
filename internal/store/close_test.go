package store_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/certfarm/certfarm/internal/store"
)

// Who was reading when its context ended has let go of the database when it is closed:
// another controller may open it then.
func TestCloseLeavesNobodyInside(t *testing.T) {
	for range 40 {
		file := filepath.Join(t.TempDir(), "certfarm.db")
		s, err := store.Open(t.Context(), file, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var readers, inside sync.WaitGroup
		for range 8 {
			inside.Add(1)
			readers.Go(func() {
				_ = s.View(ctx, func(tx *store.Tx) error {
					_, err := tx.Jobs(ctx, "shop", 0)
					inside.Done()
					<-ctx.Done()
					return err
				})
			})
		}
		inside.Wait()
		cancel()
		readers.Wait()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(file + "-wal"); err == nil {
			t.Fatal("somebody has it open")
		}
	}
}
