package controller

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/prove"
	"github.com/certfarm/certfarm/internal/prove/dns01"
	"github.com/certfarm/certfarm/internal/store"
)

// A keeper does not give back what was put up for some names.
type keeper struct {
	prove.Solver
	says map[string]error // by name
}

func (k keeper) CleanUp(_ context.Context, c farm.Challenge, _ prove.Receipt) error {
	return k.says[c.Name]
}

// What can never be taken away is told and given up; what cannot be taken away now
// is told once and tried again; the rest is taken away all the same.
func TestWhatIsLeftBehindIsTold(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s, err := store.Open(ctx, filepath.Join(t.TempDir(), "db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	says := map[string]error{
		"left.test": fmt.Errorf("%w: delete the TXT value x at _acme-challenge.left.test", dns01.Left),
		"busy.test": errors.New("the name server is down"),
	}
	c := New(Config{Store: s, Solver: func(context.Context, Proving, Context) (prove.Solver, error) { return keeper{says: says}, nil }})
	o := ordering{order: farm.Order{ID: "o", Farm: "f", Site: "shop", State: farm.OrderFailed}}
	for _, name := range []string{"busy.test", "left.test", "good.test"} {
		o.order.Authz = append(o.order.Authz, farm.Authz{Name: name, Receipt: []byte("r"), Challenge: farm.Challenge{Name: name, Token: "t"}})
	}
	if err := s.Update(ctx, func(tx *store.Tx) error { return tx.PutOrder(ctx, o.order) }); err != nil {
		t.Fatal(err)
	}
	for attempt := 1; attempt <= 3; attempt++ {
		if attempt == 3 {
			delete(says, "busy.test")
		}
		r := c.cleanUp(ctx, o, attempt)
		if again := attempt < 3; (r.Err != nil) != again || r.Again.IsZero() == again {
			t.Errorf("attempt %d: %+v", attempt, r)
		}
		if done, ok := r.Value.(ordered); ok {
			o.order = done.order
		}
		delete(says, "left.test") // nobody asks for it any more
		err := s.Update(ctx, func(tx *store.Tx) error {
			return c.applyOrder(ctx, tx, farm.Finished{Job: farm.Job{Farm: "f"}, Result: r})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if i := slices.IndexFunc(o.order.Authz, func(z farm.Authz) bool { return z.Receipt != nil }); i >= 0 {
		t.Errorf("the receipt of %s is still there", o.order.Authz[i].Name)
	}
	var told []string
	err = s.View(ctx, func(tx *store.Tx) error {
		events, err := tx.Events(ctx, "f", store.EventQuery{})
		for _, e := range events {
			told = append(told, e.Kind)
			if e.Kind == "answer.left" && !strings.Contains(e.Text, "_acme-challenge.left.test") {
				t.Errorf("it does not say what is left: %s", e.Text)
			}
		}
		return err
	})
	if want := []string{"answer.left", "answer.uncleaned"}; err != nil || !slices.Equal(told, want) {
		t.Errorf("told %q, want %q (%v)", told, want, err)
	}
}
