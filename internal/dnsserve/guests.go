package dnsserve

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	maxGuests    = 512             // TCP connections at one address
	maxOfNetwork = 128             // … from one source network: a resolver that is sent to TCP opens one a query
	maxQueries   = 1000            // of one connection; then it must come again
	idleTime     = 8 * time.Second // for the next whole message (RFC 7766 §6.2.3)
	writeTime    = 5 * time.Second // for an answer
)

// guests are the open TCP connections. Where there are too many, who has been
// silent longest must go: an idle connection keeps nobody out.
type guests struct {
	count *counters
	mu    sync.Mutex
	open  map[*guest]bool
	of    map[netip.Prefix]int
}

// A guest is a TCP connection.
type guest struct {
	conn   net.Conn
	from   netip.Addr
	silent time.Time // since when it is waited for; zero while it is answered
}

func newGuests(c *counters) *guests {
	return &guests{count: c, open: map[*guest]bool{}, of: map[netip.Prefix]int{}}
}

// enter takes a connection, or returns nil where its network has too many.
func (s *guests) enter(conn net.Conn) *guest {
	g := &guest{conn: conn, from: source(conn), silent: time.Now()}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of[network(g.from)] >= maxOfNetwork {
		s.count.turned.Add(1)
		return nil
	}
	if len(s.open) >= maxGuests {
		s.count.turned.Add(1)
		longest := s.longestSilent()
		if longest == nil {
			return nil
		}
		s.forget(longest)
		_ = longest.conn.Close()
	}
	s.open[g] = true
	s.of[network(g.from)]++
	return g
}

func (s *guests) longestSilent() (found *guest) {
	for g := range s.open {
		if !g.silent.IsZero() && (found == nil || g.silent.Before(found.silent)) {
			found = g
		}
	}
	return found
}

func (s *guests) leave(g *guest) {
	_ = g.conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(g)
}

func (s *guests) forget(g *guest) {
	if !s.open[g] {
		return // it had to go before
	}
	delete(s.open, g)
	n := network(g.from)
	if s.of[n]--; s.of[n] == 0 {
		delete(s.of, n)
	}
}

// read waits for the guest's next message.
func (s *guests) read(ctx context.Context, g *guest) ([]byte, error) {
	s.silence(g, time.Now())
	_ = g.conn.SetReadDeadline(time.Now().Add(idleTime))
	if ctx.Err() != nil { // looked at after the deadline is set: hurry comes after the context's end
		return nil, ctx.Err()
	}
	message, err := readMessage(g.conn)
	s.silence(g, time.Time{})
	return message, err
}

func (s *guests) silence(g *guest, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g.silent = since
}

// hurry ends the waiting of all.
func (s *guests) hurry(deadline time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for g := range s.open {
		_ = g.conn.SetReadDeadline(deadline)
	}
}
