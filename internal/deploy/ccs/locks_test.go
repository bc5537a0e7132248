package ccs

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certfarm/certfarm/internal/host/hosttest"
)

var errHeld = errors.New("held open")

// A reader's lock, by hand, since only Windows has it.
func TestReadersLockOnAPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &hosttest.Mem{}
		must(t, m.Write(t.Context(), "/new", []byte("new"), private))
		must(t, m.Write(t.Context(), "/live", []byte("old"), private))
		free := time.Now().Add(3 * time.Second)
		f := &hosttest.Faulty{Linked: m, Refuse: func(call string) error {
			if time.Now().Before(free) {
				return errHeld
			}
			return nil
		}}
		w := waiting{f, func(err error) bool { return errors.Is(err, errHeld) }}
		must(t, w.Rename(t.Context(), "/new", "/live"))
		if now := time.Now(); now.Before(free) || now.After(free.Add(longPause)) {
			t.Errorf("it was free at %s, and replaced at %s", free, now)
		}
		free = time.Now().Add(time.Hour)
		begin := time.Now()
		if err := w.Remove(t.Context(), "/live"); !errors.Is(err, errHeld) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(begin); took != lockTime {
			t.Errorf("it was waited for for %s", took)
		}
		w.held = heldOpen
		if err := w.Remove(t.Context(), "/live"); !errors.Is(err, errHeld) || time.Since(begin) != lockTime {
			t.Errorf("what is no lock was waited for: %v", err)
		}
	})
}
