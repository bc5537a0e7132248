package controller

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// People are told of a dns-persist-01 record when it becomes worse, once for each
// step, and when it is right again.
func TestRecordsAreToldOnce(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s, err := store.Open(ctx, filepath.Join(t.TempDir(), "db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	c := New(Config{Store: s})
	for _, urgency := range []string{"", "soon", "soon", "now", "ended", "wrong", "", ""} {
		seen := []recorded{{name: "quiet.farm.test"}, {name: "www.farm.test", urgency: urgency, text: "the record ends"}}
		err := s.Update(ctx, func(tx *store.Tx) error {
			return c.applyRecords(ctx, tx, farm.Finished{Job: farm.Job{Farm: "f", Kind: "records", Subject: "shop"}, Result: farm.Result{Value: seen}})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var told []string
	err = s.View(ctx, func(tx *store.Tx) error {
		events, err := tx.Events(ctx, "f", store.EventQuery{})
		for _, e := range events {
			told = append(told, string(e.Level)+" "+e.Kind)
			if (e.Level == farm.Info) != (e.Hint == "") {
				t.Errorf("%s has the hint %q", e.Kind, e.Hint)
			}
		}
		return err
	})
	if want := []string{"warning record.soon", "alarm record.now", "alarm record.ended", "alarm record.wrong", "info record.right"}; err != nil || !slices.Equal(told, want) {
		t.Errorf("told %q, want %q (%v)", told, want, err)
	}
}
