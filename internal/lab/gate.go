package lab

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// A gate is a TCP address on 127.0.0.1 that can be shut and opened again while
// the server behind it goes on calling Accept: shut, the port refuses and every
// connection is cut, as when a machine loses its power.
//
// It is a net.Listener. Close ends it for good and waits for its goroutines.
type gate struct {
	addr string
	port *port
	rtt  time.Duration

	mu     sync.Mutex
	under  net.Listener // nil while shut
	conns  map[net.Conn]struct{}
	closed bool

	ready chan net.Conn
	done  chan struct{}
	wg    sync.WaitGroup
}

// newGate reserves a free port and leaves it open. Round trips through it take
// rtt longer.
func newGate(rtt time.Duration) (*gate, error) {
	g := &gate{rtt: rtt, conns: map[net.Conn]struct{}{}, ready: make(chan net.Conn), done: make(chan struct{})}
	var err error
	g.port, err = reserve(func(addr string) error {
		g.addr = addr
		return g.open()
	})
	if err != nil {
		return nil, err
	}
	return g, nil
}

// open listens again; opening an open gate is nothing.
func (g *gate) open() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.under != nil || g.closed {
		return nil
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", g.addr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", g.addr, err)
	}
	g.under = l
	g.wg.Go(func() { g.accept(l) })
	return nil
}

// shut makes the port refuse, and cuts what is connected.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.under == nil {
		return
	}
	_ = g.under.Close()
	g.under = nil
	for c := range g.conns {
		_ = c.Close()
	}
}

func (g *gate) accept(l net.Listener) {
	for {
		raw, err := l.Accept()
		if err != nil {
			return // shut: nothing else ends a loopback listener
		}
		if !g.keep(l, raw) {
			_ = raw.Close()
			return
		}
		var c net.Conn = &gateConn{Conn: raw, gate: g}
		if g.rtt > 0 {
			c = newSlowConn(c, g.rtt, &g.wg)
		}
		select {
		case g.ready <- c:
		case <-g.done:
			_ = c.Close()
			return
		}
	}
}

// keep remembers a connection, so that shut can cut it; false if l was shut
// since it was accepted.
func (g *gate) keep(l net.Listener, c net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.under != l {
		return false
	}
	g.conns[c] = struct{}{}
	return true
}

func (g *gate) forget(c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, c)
}

// Accept waits for a connection, also through the times when the gate is shut.
func (g *gate) Accept() (net.Conn, error) {
	select {
	case c := <-g.ready:
		return c, nil
	case <-g.done:
		return nil, net.ErrClosed
	}
}

// Addr is the address, the same for the gate's whole life.
func (g *gate) Addr() net.Addr {
	a, _ := net.ResolveTCPAddr("tcp", g.addr) // an address of ours parses
	return a
}

// Close shuts the gate for good and waits until its goroutines have ended.
func (g *gate) Close() error {
	g.mu.Lock()
	first := !g.closed
	g.closed = true
	g.mu.Unlock()
	if !first {
		g.wg.Wait()
		return nil
	}
	g.shut()
	close(g.done)
	g.wg.Wait()
	return g.port.Close()
}

// A gateConn tells its gate when it is gone.
type gateConn struct {
	net.Conn
	gate *gate
}

// Close closes the connection and lets the gate forget it.
func (c *gateConn) Close() error {
	c.gate.forget(c.Conn)
	return c.Conn.Close()
}

// CloseWrite says that nothing more will be written, and leaves reading open.
func (c *gateConn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}
