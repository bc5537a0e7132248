// Package smb reaches the files of a Windows file share over SMB 3, from any
// system: host.Files and no commands. Its invariant is that no content travels
// unless the server encrypts and signs it, and that a file is replaced by one
// rename, so that a reader sees the old one or the new one.
//
// It logs in with NTLMv2. Kerberos and DFS namespaces are not spoken: a server
// that wants these is told apart and the error says what to do instead. Where
// the controller runs on Windows, host/local reaches a share through the system,
// with the service's own account.
package smb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/cloudsoda/go-smb2"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
)

// The defaults of Config.
const (
	DefaultPort    = 445
	DefaultTimeout = 30 * time.Second
	DefaultIdle    = time.Minute
)

// partingTime is how long closing a line, or taking away what a call left, may
// take.
const partingTime = 3 * time.Second

// Config says which share, and who we are there.
type Config struct {
	Server   string // name or address of the file server
	Port     int    // 0: DefaultPort
	Share    string
	User     string
	Domain   string // empty: an account of the server itself, or user@domain
	Password farm.Secret
	// Timeout is how long one call may take, waiting for a reader's lock
	// included, where its context does not end before; 0: DefaultTimeout.
	Timeout time.Duration
	// Idle is how long a session stays open that no call uses; 0: DefaultIdle.
	Idle time.Duration
	// Dial opens the connection; nil: from this machine.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Host is one share. It is a host.Files and may be used by many goroutines at
// once, which share one session. The session is opened by the first call, and
// again by the next one after it was lost or let go of.
type Host struct {
	config Config
	unc    UNC
	opens  chan struct{} // held while a line is opened

	mu   sync.Mutex
	line *line
	busy int         // calls under way
	idle *time.Timer // runs while there are none
}

// line is an open session with the share mounted.
type line struct {
	conn    net.Conn
	session *smb2.Session
	share   *smb2.Share
}

// New checks the configuration. It opens nothing.
func New(c Config) (*Host, error) {
	if err := checkServer(c.Server); err != nil && net.ParseIP(c.Server) == nil {
		return nil, fmt.Errorf("reaching a share: %w", err)
	}
	if err := checkName(c.Share); err != nil {
		return nil, fmt.Errorf("reaching a share of %s: %w", c.Server, err)
	}
	if c.User == "" || c.Password.IsZero() {
		return nil, fmt.Errorf("reaching %s: a user and a password are needed (a share for everybody would give the keys away)", UNC{c.Server, c.Share, "/"})
	}
	c.Port = cmp.Or(c.Port, DefaultPort)
	c.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	c.Idle = cmp.Or(c.Idle, DefaultIdle)
	return &Host{config: c, unc: UNC{c.Server, c.Share, "/"}, opens: make(chan struct{}, 1)}, nil
}

// begin counts a call.
func (h *Host) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busy++
	if h.idle != nil {
		h.idle.Stop()
	}
}

// end counts it out. Nobody need close a host: the last call's session is let go
// of after a while.
func (h *Host) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busy--
	if h.busy > 0 || h.line == nil {
		return
	}
	h.idle = time.AfterFunc(h.config.Idle, func() {
		h.mu.Lock()
		var l *line
		if h.busy == 0 {
			l, h.line = h.line, nil
		}
		h.mu.Unlock()
		_ = l.close() // nobody is there to be told
	})
}

// Close ends the session. A later call opens another.
func (h *Host) Close() error {
	h.mu.Lock()
	l := h.line
	h.line = nil
	if h.idle != nil {
		h.idle.Stop()
	}
	h.mu.Unlock()
	return l.close()
}

// close says good-bye; nil may be closed.
func (l *line) close() error {
	if l == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), partingTime)
	defer cancel()
	_ = l.session.WithContext(ctx).Logoff()                    // the server ends it with the connection anyway
	if err := l.conn.Close(); !errors.Is(err, net.ErrClosed) { // or it was by the end of the session
		return err
	}
	return nil
}

// get returns the line, and whether it was opened for this call.
func (h *Host) get(ctx context.Context) (l *line, fresh bool, err error) {
	select {
	case h.opens <- struct{}{}:
		defer func() { <-h.opens }()
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	h.mu.Lock()
	l = h.line
	h.mu.Unlock()
	if l != nil {
		return l, false, nil
	}
	if l, err = h.open(ctx); err != nil {
		return nil, false, err
	}
	h.mu.Lock()
	h.line = l
	h.mu.Unlock()
	return l, true, nil
}

// open dials, logs in and mounts.
func (h *Host) open(ctx context.Context) (*line, error) {
	c := h.config
	address := net.JoinHostPort(c.Server, strconv.Itoa(c.Port))
	raw, err := c.Dial(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s (is port %d open from here?): %w", address, c.Port, err)
	}
	conn := &guard{Conn: raw}
	d := smb2.Dialer{
		Negotiator: smb2.Negotiator{RequireMessageSigning: true}, // guests and anonymous sessions cannot sign
		Initiator:  &smb2.NTLMInitiator{User: c.User, Password: string(c.Password.Reveal()), Domain: c.Domain, TargetSPN: "cifs/" + c.Server},
	}
	session, err := d.DialConn(ctx, conn, address)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("logging in to %s as %s: %w", c.Server, c.User, explain(err)), conn.Close())
	}
	share, err := session.WithContext(ctx).Mount(h.unc.String())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the share %s: %w", h.unc, explain(err)), conn.Close())
	}
	return &line{conn, session, share}, nil
}

// drop ends a line that was lost. Open files of a call that was cut would keep
// others from replacing them: the server closes them with the connection.
func (h *Host) drop(l *line) {
	h.mu.Lock()
	if h.line == l {
		h.line = nil
	}
	h.mu.Unlock()
	_ = l.conn.Close() // what was wrong with it is being told already
}

// task is one call: what is done, to which name of host.Files.
type task struct {
	op, name string
	once     bool // it must not be done again when its answer was lost
}

// call runs f within the call's time. A session that was lost since the last
// call is opened again, once, and f is run again.
func call[T any](ctx context.Context, h *Host, t task, f func(session) (T, error)) (v T, err error) {
	if err = ctx.Err(); err == nil {
		ctx, cancel := context.WithTimeout(ctx, h.config.Timeout)
		defer cancel()
		h.begin()
		defer h.end()
		var again bool
		if v, again, err = try(ctx, h, f); again && !t.once {
			v, _, err = try(ctx, h, f)
		}
	}
	if err != nil {
		err = fmt.Errorf("%s %s: %w", t.op, h.unc.At(t.name), err)
	}
	return v, err
}

// try runs f once. again says that an older session was found lost.
func try[T any](ctx context.Context, h *Host, f func(session) (T, error)) (v T, again bool, err error) {
	l, fresh, err := h.get(ctx)
	if err != nil {
		return v, false, fmt.Errorf("%w: %w", host.ErrUnreachable, err)
	}
	v, err = f(session{l.share.WithContext(ctx), ctx})
	if err == nil {
		return v, false, nil
	}
	cut, lost := ctx.Err() != nil, isLost(err)
	if cut || lost {
		h.drop(l)
	}
	err = explain(err)
	if (cut || lost) && !errors.Is(err, ErrLocked) {
		err = fmt.Errorf("%w: %w", host.ErrUnreachable, err)
	}
	return v, lost && !cut && !fresh, err
}
