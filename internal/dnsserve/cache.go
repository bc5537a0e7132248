package dnsserve

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

const (
	fresh = 5 * time.Second // zones are asked for again after it
	again = time.Second     // … where they could not be had
	stale = time.Minute     // zones of before are used for so long
)

// zones keeps the tree for a short time. Values are never kept.
type zones struct {
	source Source
	last   atomic.Pointer[snapshot]
	turn   sync.Mutex // held by who asks; the others wait for what it gets
}

// A snapshot is what the source said.
type snapshot struct {
	all   tree
	err   error
	known time.Time // when all was had
	until time.Time // when to ask again
}

// get returns the zones. An error means that it is not known what is ours.
func (c *zones) get(ctx context.Context, now time.Time) (tree, error) {
	s := c.last.Load()
	if s == nil || !now.Before(s.until) {
		s = c.refresh(ctx, now)
	}
	if s.err != nil && (s.all == nil || now.Sub(s.known) > stale) {
		return nil, s.err
	}
	return s.all, nil
}

func (c *zones) refresh(ctx context.Context, now time.Time) *snapshot {
	c.turn.Lock()
	defer c.turn.Unlock()
	s := c.last.Load()
	if s != nil && now.Before(s.until) {
		return s // another was quicker
	}
	got, err := c.source.Zones(ctx)
	switch {
	case err == nil:
		s = &snapshot{all: plant(got), known: now, until: now.Add(fresh)}
	case s == nil:
		s = &snapshot{err: err, until: now.Add(again)}
	default:
		s = &snapshot{all: s.all, err: err, known: s.known, until: now.Add(again)}
	}
	c.last.Store(s)
	return s
}
