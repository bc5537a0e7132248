package provider

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/certfarm/certfarm/internal/prove/dns01"
)

// A house is what the writers of one process share: who may be at a name, and the
// helpers that stay because their API forgets.
type house struct {
	mu    sync.Mutex
	lanes map[string]*lane
	stays map[string]*staying // by the digest of provider and settings
}

func newHouse() *house {
	return &house{lanes: map[string]*lane{}, stays: map[string]*staying{}}
}

// A lane lets one through at a time.
type lane struct {
	turn  chan struct{}
	users int // those in it and those who wait
}

// enter waits for one's turn in a lane.
func (h *house) enter(ctx context.Context, name string) (leave func(), err error) {
	h.mu.Lock()
	l := h.lanes[name]
	if l == nil {
		l = &lane{turn: make(chan struct{}, 1)}
		h.lanes[name] = l
	}
	l.users++
	h.mu.Unlock()
	gone := func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(h.lanes, name)
		}
	}
	select {
	case l.turn <- struct{}{}:
		return func() { <-l.turn; gone() }, nil
	case <-ctx.Done():
		gone()
		return nil, ctx.Err()
	}
}

// A staying is a helper and the records that only it can remove. Who is in its
// lane may use it.
type staying struct {
	helper *helper
	holds  map[dns01.Record]bool
}

// staying is the helper of that digest, as it is now.
func (h *house) staying(key string) *staying {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.stays[key]
	if s == nil {
		s = &staying{}
		h.stays[key] = s
	}
	if !s.helper.lives() {
		s.holds = map[dns01.Record]bool{}
	}
	return s
}

// rest ends a helper that holds nothing any more.
func (h *house) rest(key string, s *staying) {
	if len(s.holds) > 0 && s.helper.lives() {
		return
	}
	if s.helper != nil {
		s.helper.end()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.stays, key)
}

// putHeld has the helper that stays put a record, and keep what it needs to
// remove it.
func (w *legoWriter) putHeld(ctx context.Context, r dns01.Record) (err error) {
	s := w.house.staying(w.stay)
	defer w.house.rest(w.stay, s)
	if s.holds[r] {
		return nil
	}
	if !s.helper.lives() {
		if s.helper, err = w.start.run(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}
	if err := s.helper.ask(ctx, w.request(put, r)); err != nil {
		return err
	}
	s.holds[r] = true
	return nil
}

// removeHeld has the helper that put the record up remove it. Without it nobody
// can: the API wants an id, and an attempt could take away another record.
func (w *legoWriter) removeHeld(ctx context.Context, r dns01.Record) error {
	s := w.house.staying(w.stay)
	defer w.house.rest(w.stay, s)
	if !s.holds[r] {
		return fmt.Errorf("%w: the API wants an id that was lost with the process that made the record; look for it at %s and delete it by hand",
			dns01.Left, w.entry.Title)
	}
	err := s.helper.ask(ctx, w.request(remove, r))
	switch {
	case err == nil:
		delete(s.holds, r)
	case !s.helper.lives():
		return fmt.Errorf("%w: %w", dns01.Left, err)
	}
	return err
}

// digest is of what a helper is started with. It is no secret.
func digest(of ...any) (string, error) {
	text, err := json.Marshal(of) // maps are sorted
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}
