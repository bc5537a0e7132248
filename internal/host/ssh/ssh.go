// Package ssh reaches a node over SSH and SFTP.
//
// One connection a node, opened when it is first needed, used by all, closed
// when idle, and opened anew after it was lost. It stays within what a stock
// sshd allows (sshd_config(5): MaxSessions 10). The host key is always verified,
// against pinned keys or a host CA. No call outlives its context: a server that
// stops answering is left, and its connection is cut a moment later.
//
//	closed ──call──▶ dialling ──ok──▶ open ──lost, idle or hung──▶ closed
//	                    └──────failed: every waiting call is told──▶ closed
package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
)

// The times that a Config leaves out.
const (
	connectTimeout = 10 * time.Second
	keepAlive      = 15 * time.Second
	idleTimeout    = 5 * time.Minute
	grace          = 3 * time.Second // a call given up may still end within; then the connection is cut
)

// A Config says how one node is reached.
type Config struct {
	Node farm.Node
	// Key returns the private key, PEM or OpenSSH format. It is asked at each
	// connect, so that no key stays in memory and a changed one is used.
	Key func(context.Context) (farm.Secret, error)
	// Certificate returns the user certificate for the key, in the form of
	// authorized_keys. It is asked at each connect, so that one that lives for minutes
	// may be renewed by others. Nil: Node.SSH.Certificate, if there is one.
	Certificate func(context.Context) (string, error)
	// Jump is the host to go through; nil: none.
	Jump host.Dialer
	// Dial opens the TCP connection where there is no Jump; nil: a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// KeepAlive is how often an open connection is asked for a sign of life, and
	// how long the answer may take; 0: 15 s.
	KeepAlive time.Duration
	// Idle is how long a connection stays open without a call; 0: 5 min.
	Idle time.Duration
}

// FixedKey is a Config.Key that is at hand.
func FixedKey(key farm.Secret) func(context.Context) (farm.Secret, error) {
	return func(context.Context) (farm.Secret, error) { return key, nil }
}

// Host is a node reached over SSH. It is a host.Host and a host.Linker.
type Host struct {
	config Config
	addr   string

	mu      sync.Mutex
	line    *line    // nil: closed
	pending *pending // nil: nobody dials
	closed  bool
	wg      sync.WaitGroup // of dials
}

// pending is a dial that several calls wait for.
type pending struct {
	done   chan struct{}
	cancel context.CancelFunc
	line   *line
	err    error
}

var errClosed = errors.New("the host was closed")

// errUnasked says that a connection was found dead before anything was asked of
// the node over it.
var errUnasked = errors.New("the connection is dead")

// New checks the configuration; it does not connect.
func New(c Config) (*Host, error) {
	if c.Node.SSH == nil {
		return nil, fmt.Errorf("node %s: it has no ssh section", c.Node.Name)
	}
	if c.Key == nil {
		return nil, fmt.Errorf("node %s: no key to log in with", c.Node.Name)
	}
	if _, err := parseTrust(c.Node.SSH); err != nil {
		return nil, fmt.Errorf("node %s: %w", c.Node.Name, err)
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	if c.Jump != nil {
		c.Dial = c.Jump.Dial
	}
	if c.KeepAlive == 0 {
		c.KeepAlive = keepAlive
	}
	if c.Idle == 0 {
		c.Idle = idleTimeout
	}
	port := c.Node.SSH.Port
	if port == 0 {
		port = 22
	}
	return &Host{config: c, addr: net.JoinHostPort(c.Node.Address, strconv.Itoa(port))}, nil
}

// Close ends the connection and every call. Later calls fail.
func (h *Host) Close() error {
	h.mu.Lock()
	h.closed = true
	l := h.line
	h.line = nil
	if h.pending != nil {
		h.pending.cancel()
	}
	h.mu.Unlock()
	if l != nil {
		l.close(errClosed)
		l.wg.Wait()
	}
	h.wg.Wait()
	return nil
}

// open returns the connection, dialling where there is none.
func (h *Host) open(ctx context.Context) (*line, error) {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil, h.unreachable(errClosed)
	}
	if h.line != nil && h.line.use() {
		defer h.mu.Unlock()
		return h.line, nil
	}
	p := h.pending
	if p == nil {
		timeout := h.config.Node.SSH.ConnectTimeout
		if timeout == 0 {
			timeout = connectTimeout
		}
		dialling, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
		p = &pending{done: make(chan struct{}), cancel: cancel}
		h.pending = p
		h.wg.Go(func() {
			defer cancel()
			h.dial(dialling, p)
		})
	}
	h.mu.Unlock()
	select {
	case <-p.done:
	case <-ctx.Done():
		return nil, h.gaveUp(ctx)
	}
	if p.err != nil {
		return nil, p.err
	}
	if !p.line.use() {
		return nil, h.unreachable(p.line.reason())
	}
	return p.line, nil
}

// dial fills p in for all who wait.
func (h *Host) dial(ctx context.Context, p *pending) {
	defer close(p.done)
	p.line, p.err = h.connect(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pending = nil
	if p.err == nil && h.closed {
		p.line.close(errClosed)
		return
	}
	h.line = p.line
}

// call runs f on the open connection. Where that is found dead before anything
// was asked, as after a node's restart, it is opened anew, once.
func call[T any](ctx context.Context, h *Host, f func(context.Context, *line) (T, error)) (T, error) {
	v, err := callOnce(ctx, h, f)
	if errors.Is(err, errUnasked) && ctx.Err() == nil {
		return callOnce(ctx, h, f)
	}
	return v, err
}

// callOnce runs f on the open connection, and returns when f does or when the
// context ends, whichever is first. What f was asked to do may then still
// happen: f looks at its context between any two steps that change something.
func callOnce[T any](ctx context.Context, h *Host, f func(context.Context, *line) (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	var none T
	if ctx.Err() != nil {
		return none, h.gaveUp(ctx)
	}
	l, err := h.open(ctx)
	if err != nil {
		return none, err
	}
	done, ended := make(chan answer, 1), make(chan struct{})
	stop := context.AfterFunc(ctx, func() { // a call that does not come back is stuck on a dead line
		select {
		case <-ended:
		case <-l.dead:
		case <-time.After(grace):
			l.close(errors.New("it stopped answering"))
		}
	})
	go func() {
		defer l.release()
		v, err := f(ctx, l)
		stop()
		close(ended)
		done <- answer{v, err}
	}()
	select {
	case a := <-done:
		return a.value, h.explain(ctx, l, a.err)
	case <-ctx.Done():
	}
	select { // both at once: an answer is an answer
	case a := <-done:
		return a.value, h.explain(ctx, l, a.err)
	default:
		return none, h.gaveUp(ctx)
	}
}

// explain says of an error whether the line was lost.
func (h *Host) explain(ctx context.Context, l *line, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, host.ErrUnreachable):
		return err
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return h.gaveUp(ctx)
	case l.lost(err):
		l.close(err)
		return h.unreachable(fmt.Errorf("the connection was lost: %w", err))
	}
	return fmt.Errorf("node %s: %w", h.config.Node.Name, err)
}

// gaveUp is the error of a call whose context ended. After a deadline the node
// counts as unreachable; after a cancel nothing is known of it.
func (h *Host) gaveUp(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return h.unreachable(fmt.Errorf("no answer in time: %w", ctx.Err()))
	}
	return fmt.Errorf("node %s: %w", h.config.Node.Name, context.Cause(ctx))
}

func (h *Host) unreachable(err error) error {
	return fmt.Errorf("node %s (%s): %w: %w", h.config.Node.Name, h.addr, host.ErrUnreachable, err)
}
