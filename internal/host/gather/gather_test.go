package gather_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/certfarm/certfarm/internal/host/gather"
)

// A slow line takes one write at a time, each when it is told to.
type slow struct {
	next   chan error
	got    bytes.Buffer
	writes int
	closed bool
}

func (s *slow) Write(p []byte) (int, error) {
	if err := <-s.next; err != nil {
		return 0, err
	}
	s.writes++
	return s.got.Write(p)
}

func (s *slow) Close() error {
	s.closed = true
	return nil
}

// What is written while a write is under way goes as one, in order, and Close sends
// what is left.
func TestWhatWaitsGoesAsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := &slow{next: make(chan error)}
		w := gather.New(line)
		go w.Run()
		want := ""
		for i := range 100 {
			if i == 1 {
				synctest.Wait() // the first is under way
			}
			text := fmt.Sprintf("%d ", i)
			want += text
			if n, err := w.Write([]byte(text)); n != len(text) || err != nil {
				t.Fatal(n, err)
			}
		}
		var closing sync.WaitGroup
		closing.Go(func() {
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		})
		close(line.next)
		closing.Wait()
		if line.got.String() != want || line.writes != 2 || !line.closed {
			t.Errorf("%d writes of %q, closed: %v", line.writes, &line.got, line.closed)
		}
		if _, err := w.Write([]byte("late")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("a write after Close: %v", err)
		}
	})
}

// Who writes more than the line takes waits; and a line that is lost ends the wait,
// and every later write.
func TestALostLineEndsWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := &slow{next: make(chan error)}
		w := gather.New(line)
		go w.Run()
		var told error
		var writing sync.WaitGroup
		writing.Go(func() {
			for told == nil {
				_, told = w.Write(make([]byte, 256<<10))
			}
		})
		synctest.Wait()
		lost := errors.New("lost")
		line.next <- lost
		writing.Wait()
		if !errors.Is(told, lost) {
			t.Errorf("the write that waited: %v", told)
		}
		if err := w.Close(); err != nil || !line.closed {
			t.Errorf("close: %v", err)
		}
	})
}
