package ssh

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/certfarm/certfarm/internal/host"
)

// maxCommands is how many commands run at once on one connection. With the
// SFTP session they stay below the ten sessions of a stock sshd.
const maxCommands = 8

// line is one open connection.
type line struct {
	host     *Host
	client   *ssh.Client
	commands chan struct{} // a seat for each command
	dead     chan struct{} // closed when the connection is
	deadline bool          // the node ends commands itself: known once probed is closed
	probed   chan struct{}

	wg sync.WaitGroup // of calls, keep-alive and watcher

	mu    sync.Mutex
	users int
	used  time.Time // when the last call ended
	why   error     // why it is dead
	names map[string]int

	files sync.Mutex // one SFTP session
	sftp  *sftp.Client
}

func newLine(h *Host, c *ssh.Client) *line {
	l := &line{
		host: h, client: c,
		commands: make(chan struct{}, maxCommands),
		dead:     make(chan struct{}),
		probed:   make(chan struct{}),
		used:     time.Now(),
		names:    map[string]int{},
	}
	l.wg.Go(func() { l.close(c.Wait()) })
	l.wg.Go(l.keepAlive)
	l.wg.Go(l.probe)
	return l
}

// use counts a call in, whose end release tells; false: the line is dead.
func (l *line) use() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.why != nil {
		return false
	}
	l.users++
	l.wg.Add(1) // under the lock: who closes the line waits after taking it
	return true
}

func (l *line) release() {
	l.let()
	l.wg.Done()
}

// hold keeps the line from being idle until let; false: the line is dead.
func (l *line) hold() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.why != nil {
		return false
	}
	l.users++
	return true
}

func (l *line) let() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users--
	l.used = time.Now()
}

// close cuts the connection; the first reason is kept.
func (l *line) close(why error) {
	if why == nil {
		why = io.EOF
	}
	l.mu.Lock()
	first := l.why == nil
	if first {
		l.why = why
		close(l.dead)
	}
	l.mu.Unlock()
	if first {
		l.client.Close()
	}
}

func (l *line) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.why
}

// lost reports whether an error is the connection's and not the server's answer.
func (l *line) lost(err error) bool {
	if l.reason() != nil {
		return true
	}
	for _, e := range []error{errUnasked, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, io.ErrClosedPipe, sftp.ErrSSHFxConnectionLost, sftp.ErrSSHFxNoConnection} {
		if errors.Is(err, e) {
			return true
		}
	}
	_, network := errors.AsType[*net.OpError](err)
	return network
}

// keepAlive closes the connection when it is idle for long or gives no sign of life.
func (l *line) keepAlive() {
	tick := time.NewTicker(l.host.config.KeepAlive)
	defer tick.Stop()
	for {
		select {
		case <-l.dead:
			return
		case <-tick.C:
		}
		if l.idle() {
			l.close(errors.New("idle"))
			return
		}
		alive := make(chan error, 1)
		l.wg.Go(func() {
			_, _, err := l.client.SendRequest("keepalive@openssh.com", true, nil)
			alive <- err
		})
		select {
		case <-l.dead:
			return
		case err := <-alive:
			if err != nil {
				l.close(err)
				return
			}
		case <-time.After(l.host.config.KeepAlive):
			l.close(errors.New("no answer to keep-alive"))
			return
		}
	}
}

func (l *line) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.users == 0 && time.Since(l.used) > l.host.config.Idle
}

// probe finds out once whether commands can be given a deadline on the node:
// timeout(1) of coreutils and of BusyBox since 1.30 takes these words. A node
// without it, or whose forced command refuses it, gets the bare command.
func (l *line) probe() {
	defer close(l.probed)
	if l.host.config.Node.SSH.Receiver {
		return // the forced command takes calls, and ends them itself
	}
	if shell := l.host.config.Node.Shell; shell != "" && shell != host.Posix {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	var out host.Output
	status, err := l.exec(ctx, "timeout -k 5 5 true", nil, &out)
	l.deadline = err == nil && status == 0
}
