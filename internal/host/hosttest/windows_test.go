package hosttest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certfarm/certfarm/internal/host"
)

func TestWindows(t *testing.T) {
	RunFiles(t, func(t *testing.T) FilesBench {
		w := &Windows{}
		must(t, w.Mkdir(t.Context(), "C:/x", host.Attr{}))
		return FilesBench{Files: w, Mkdir: w.Mkdir, Dir: "C:/x", Gap: true}
	})
}

// A replacement that is cut between any two of its steps can be done again, and the
// old content or the new is somewhere all the while.
func TestWindowsReplacementCutAnywhere(t *testing.T) {
	for n := range 20 {
		w := &Windows{}
		must(t, w.Write(t.Context(), "C:/f", []byte("old"), private))
		left, cut := n, errors.New("cut")
		w.Step = func(string) error {
			if left--; left < 0 {
				return cut
			}
			return nil
		}
		err := w.Write(t.Context(), "C:/f", []byte("new"), private)
		w.Step = nil
		old, _ := w.Read(t.Context(), "C:/f")
		aside, _ := w.Read(t.Context(), "C:/.f.certfarm-old")
		if string(old) != "old" && string(old) != "new" && string(aside) != "old" {
			t.Fatalf("cut after %d steps: %q, and %q aside", n, old, aside)
		}
		must(t, w.Write(t.Context(), "C:/f", []byte("newer"), private))
		entries, listed := w.List(t.Context(), "C:/")
		must(t, listed)
		if now, _ := w.Read(t.Context(), "C:/f"); string(now) != "newer" || len(entries) != 1 {
			t.Fatalf("cut after %d steps: %q among %v", n, now, entries)
		}
		if err == nil {
			return
		}
	}
	t.Fatal("it never ends")
}

// A file that somebody has open is waited for, and not for ever.
func TestWindowsReadersLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &Windows{}
		must(t, w.Write(t.Context(), "C:/f", []byte("old"), private))
		closed, begin := w.Open("C:/f"), time.Now()
		time.AfterFunc(3*time.Second, closed)
		must(t, w.Write(t.Context(), "C:/f", []byte("new"), private))
		if took := time.Since(begin); took < 3*time.Second || took > 4*time.Second {
			t.Errorf("it was free after 3 s, and replaced after %s", took)
		}
		defer w.Open("C:/f")()
		begin = time.Now()
		err := w.Write(t.Context(), "C:/f", []byte("newer"), private)
		if took := time.Since(begin); !errors.Is(err, ErrHeld) || took != host.LockTime {
			t.Errorf("after %s: %v", took, err)
		}
		if !strings.Contains(err.Error(), "another program has the file open") {
			t.Errorf("it says %q", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := w.Remove(ctx, "C:/f"); !errors.Is(err, ErrHeld) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if now, err := w.Read(t.Context(), "C:/f"); err != nil || string(now) != "new" {
			t.Errorf("there is %q (%v)", now, err)
		}
	})
}
