package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/certfarm/certfarm/internal/host"
)

const (
	// longest is the deadline on the node of a command whose context has none.
	longest = 5 * time.Minute
	// linger is how long a command's output is awaited after its end: a server
	// that it started may hold the output open for ever.
	linger = time.Second
	// crowded is for how long a server's word that there are too many sessions is
	// doubted, and crowdedPause the time between two questions.
	crowded, crowdedPause = 2 * time.Second, 20 * time.Millisecond
	// timedOut is the exit status of timeout(1) for a command that it ended, and
	// killed the one where it had to use SIGKILL.
	timedOut, killed = 124, 137
)

// Run runs a command through the node's shell; see host.Runner. With
// `become: sudo` it runs as `sudo -n -- …`.
func (h *Host) Run(ctx context.Context, argv []string, stdin []byte) ([]byte, error) {
	words := argv
	if h.config.Node.Become == "sudo" {
		words = append([]string{"sudo", "-n", "--"}, argv...)
	}
	if _, err := host.Quote(h.config.Node.Shell, words); err != nil {
		return nil, err
	}
	return call(ctx, h, func(ctx context.Context, l *line) ([]byte, error) {
		select {
		case <-l.probed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return l.run(ctx, argv, words, stdin)
	})
}

// run runs the words that argv became, with a deadline on the node where that
// can be.
func (l *line) run(ctx context.Context, argv, words []string, stdin []byte) ([]byte, error) {
	limit, begin := seconds(ctx), time.Now()
	if l.deadline {
		words = append([]string{"timeout", "-k", "5", strconv.Itoa(limit)}, words...)
	}
	text, err := host.Quote(l.host.config.Node.Shell, words)
	if err != nil {
		return nil, err
	}
	var out host.Output
	status, err := l.exec(ctx, text, stdin, &out)
	switch {
	case err != nil:
		return out.Bytes(), fmt.Errorf("running %s: %w", argv[0], err)
	case l.deadline && (status == timedOut || status == killed) && time.Since(begin) >= time.Duration(limit)*time.Second:
		return out.Bytes(), fmt.Errorf("running %s: the node ended it after %d s: %w", argv[0], limit, context.DeadlineExceeded)
	case status != 0:
		return out.Bytes(), &host.ExitError{Argv: argv, Status: status, Output: out.Bytes()}
	}
	return out.Bytes(), nil
}

// seconds is what the node may take, in whole seconds and at least one: a second
// less than the context has left, so that the node's answer still comes.
func seconds(ctx context.Context) int {
	left := longest
	if d, ok := ctx.Deadline(); ok {
		left = min(left, time.Until(d)-time.Second)
	}
	return max(1, int(left/time.Second))
}

// exec runs one line in a session of its own. It does not use ssh.Session,
// which returns only when the output is closed, not when the command has ended.
func (l *line) exec(ctx context.Context, text string, stdin []byte, out *host.Output) (int, error) {
	select {
	case l.commands <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	var channel ssh.Channel
	var requests <-chan *ssh.Request
	err := l.uncrowded(func() (err error) {
		channel, requests, err = l.client.OpenChannel("session", nil)
		return err
	})
	if err != nil {
		<-l.commands
		if _, answered := errors.AsType[*ssh.OpenChannelError](err); !answered {
			err = fmt.Errorf("%w: %w", errUnasked, err)
		}
		return 0, fmt.Errorf("opening a session: %w", err)
	}
	defer l.wg.Go(func() { // the server counts the session until it has closed it, too
		ssh.DiscardRequests(requests)
		<-l.commands
	})
	defer channel.Close()
	stop := context.AfterFunc(ctx, func() {
		_, _ = channel.SendRequest("signal", false, ssh.Marshal(struct{ Name string }{"KILL"}))
		channel.Close()
	})
	defer stop()
	ok, err := channel.SendRequest("exec", true, ssh.Marshal(struct{ Line string }{text}))
	if err != nil {
		return 0, err
	}
	if !ok {
		return 0, errors.New("the server refuses commands")
	}
	var copying sync.WaitGroup
	l.wg.Go(func() {
		_, _ = io.Copy(channel, bytes.NewReader(stdin))
		_ = channel.CloseWrite()
	})
	copying.Go(func() { _, _ = io.Copy(out, channel) })
	copying.Go(func() { _, _ = io.Copy(out, channel.Stderr()) })
	copied := make(chan struct{})
	l.wg.Go(func() { copying.Wait(); close(copied) })
	status, err := ending(requests)
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if err != nil {
		return 0, err
	}
	late := time.NewTimer(linger)
	defer late.Stop()
	select {
	case <-copied:
	case <-late.C:
	case <-ctx.Done():
	}
	return status, nil
}

// uncrowded opens a session. sshd counts one that was closed out only when it has read
// all that was sent meanwhile: with the request for the next one right behind, it may say
// that there are too many (MaxSessions), and is asked again.
func (l *line) uncrowded(open func() error) error {
	begin := time.Now()
	for {
		err := open()
		refused, ok := errors.AsType[*ssh.OpenChannelError](err)
		if !ok || refused.Reason != ssh.ConnectionFailed || time.Since(begin) > crowded {
			return err
		}
		select {
		case <-time.After(crowdedPause):
		case <-l.dead:
			return err
		}
	}
}

// ending waits for a command's end (RFC 4254 §6.10).
func ending(requests <-chan *ssh.Request) (int, error) {
	for r := range requests {
		if r.WantReply {
			_ = r.Reply(false, nil)
		}
		switch r.Type {
		case "exit-status":
			var end struct{ Status uint32 }
			err := ssh.Unmarshal(r.Payload, &end)
			return int(end.Status), err
		case "exit-signal":
			var end struct {
				Signal  string
				Core    bool
				Message string
				Lang    string
			}
			err := ssh.Unmarshal(r.Payload, &end)
			return 0, errors.Join(fmt.Errorf("it was ended by signal %s", end.Signal), err)
		}
	}
	return 0, fmt.Errorf("its end is not known: %w", io.EOF)
}

// Dial opens a connection from the node; see host.Dialer.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return call(ctx, h, func(ctx context.Context, l *line) (net.Conn, error) {
		c, err := l.client.DialContext(ctx, network, address)
		if refused, ok := errors.AsType[*ssh.OpenChannelError](err); ok && refused.Reason == ssh.Prohibited {
			return nil, fmt.Errorf("%w; node %s must allow it: AllowTcpForwarding or AllowStreamLocalForwarding in its sshd_config, no PermitOpen or DisableForwarding against it, and permit-port-forwarding in a user certificate",
				err, h.config.Node.Name)
		}
		if err != nil {
			return nil, err
		}
		if !l.hold() { // a connection in use keeps the line from being idle
			c.Close()
			return nil, l.reason()
		}
		return &forwarded{Conn: c, line: l}, nil
	})
}

// forwarded is a connection through a node.
type forwarded struct {
	net.Conn
	line *line
	once sync.Once
}

// Close closes it; the line may be idle then.
func (f *forwarded) Close() error {
	f.once.Do(f.line.let)
	return f.Conn.Close()
}
