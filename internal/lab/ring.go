package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"
)

// A ring is addresses of which each gets its turn.
type ring struct {
	mu    sync.Mutex
	names []string
	addrs []string
	next  int
	given map[string]int
}

func newRing() *ring { return &ring{given: map[string]int{}} }

func (r *ring) add(name, addr string) {
	r.names = append(r.names, name)
	r.addrs = append(r.addrs, addr)
}

// dial connects to the next address that takes the connection, once round.
func (r *ring) dial(ctx context.Context) (net.Conn, error) {
	err := errors.New("the balancer has no nodes")
	for range r.names {
		name, addr := r.turn()
		var c net.Conn
		if c, err = new(net.Dialer).DialContext(ctx, "tcp", addr); err == nil {
			r.mu.Lock()
			r.given[name]++
			r.mu.Unlock()
			return c, nil
		}
	}
	return nil, fmt.Errorf("no node takes the connection: %w", err)
}

func (r *ring) turn() (name, addr string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := r.next % len(r.names)
	r.next++
	return r.names[i], r.addrs[i]
}

func (r *ring) counts() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.given)
}
