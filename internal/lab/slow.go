package lab

import (
	"net"
	"sync"
	"time"
)

// A slowConn is a server's end of a connection to a far place. The whole round
// trip is put on the way out: what the server writes leaves rtt later, in
// order, without holding up the next write, so a long transfer is not slowed
// down. The first bytes leave another rtt later, since a far client would have
// waited so long for its connect.
type slowConn struct {
	net.Conn
	rtt time.Duration

	mu     sync.Mutex
	queue  []parcel
	first  bool // nothing was written yet
	closed bool
	failed error         // of the line
	wake   chan struct{} // something was queued, or closed
}

// A parcel is bytes on their way.
type parcel struct {
	data   []byte
	leaves time.Time
	half   bool // CloseWrite, in its place behind the data
}

// lingering is how long the end of a connection may take to write what is
// still on its way.
const lingering = 5 * time.Second

func newSlowConn(c net.Conn, rtt time.Duration, wg *sync.WaitGroup) *slowConn {
	s := &slowConn{Conn: c, rtt: rtt, first: true, wake: make(chan struct{}, 1)}
	wg.Go(s.carry)
	return s
}

// Write queues a copy of b.
func (s *slowConn) Write(b []byte) (int, error) {
	if err := s.put(parcel{data: append([]byte(nil), b...)}); err != nil {
		return 0, err
	}
	return len(b), nil
}

// CloseWrite ends the stream after what was written before.
func (s *slowConn) CloseWrite() error { return s.put(parcel{half: true}) }

func (s *slowConn) put(p parcel) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	if s.failed != nil {
		return s.failed
	}
	p.leaves = time.Now().Add(s.rtt)
	if s.first {
		p.leaves = p.leaves.Add(s.rtt)
		s.first = false
	}
	s.queue = append(s.queue, p)
	s.signal()
	return nil
}

func (s *slowConn) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Close lets what was written arrive, then closes. Reading ends at once.
func (s *slowConn) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.closed = true
	s.signal()
	_ = s.Conn.SetWriteDeadline(time.Now().Add(s.rtt + lingering))
	return s.Conn.SetReadDeadline(time.Now())
}

// SetDeadline sets the deadline for reading: a write never waits.
func (s *slowConn) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

// SetReadDeadline sets the deadline for reading, unless the connection is closed.
func (s *slowConn) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	return s.Conn.SetReadDeadline(t)
}

// SetWriteDeadline does nothing: a write never waits, and crypto/tls ends a
// connection with a deadline in the past, which would cut off what is on its way.
func (s *slowConn) SetWriteDeadline(time.Time) error { return nil }

// carry brings the parcels to the line, and closes it behind the last.
func (s *slowConn) carry() {
	defer func() { _ = s.Conn.Close() }()
	for {
		p, ok := s.next()
		if !ok {
			return
		}
		if wait := time.Until(p.leaves); wait > 0 {
			<-time.After(wait)
		}
		if err := s.deliver(p); err != nil {
			s.mu.Lock()
			s.failed = err
			s.mu.Unlock()
			return
		}
	}
}

func (s *slowConn) deliver(p parcel) error {
	if p.half {
		if h, ok := s.Conn.(interface{ CloseWrite() error }); ok {
			return h.CloseWrite()
		}
		return nil
	}
	_, err := s.Conn.Write(p.data)
	return err
}

// next waits for a parcel; false when there will be none.
func (s *slowConn) next() (parcel, bool) {
	for {
		s.mu.Lock()
		if len(s.queue) > 0 {
			p := s.queue[0]
			s.queue = s.queue[1:]
			s.mu.Unlock()
			return p, true
		}
		closed := s.closed
		s.mu.Unlock()
		if closed {
			return parcel{}, false
		}
		<-s.wake
	}
}
