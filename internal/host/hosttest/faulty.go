package hosttest

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"

	"github.com/certfarm/certfarm/internal/host"
)

// Linked is a host with symlinks.
type Linked interface {
	host.Host
	host.Linker
}

// Faulty is a host whose calls fail on request. Its fields are set between
// calls.
type Faulty struct {
	Linked
	// Refuse is asked before each call, as in "write /etc/x" or "run nginx -t";
	// its error is the call's, which then does nothing.
	Refuse func(call string) error
	// Alter changes the content of files on the way; nil: not.
	Alter func(name string, data []byte) []byte
	// FullAt makes the n-th write, link or mkdir from now on fail as a full disk
	// does, and those after it; 0: the disk is not full.
	FullAt int
	// After is called after each call, whether it failed or not.
	After func()
	// Hang makes every call wait for the end of its context.
	Hang bool

	mu    sync.Mutex
	calls []string
	cut   int // calls that are left; -1: no cut
	after bool
	armed bool
}

// DieAfter cuts the line after n more calls: each later one fails and does
// nothing. With answerLost the first of them is done, but its answer is lost.
// Mend ends it.
func (f *Faulty) DieAfter(n int, answerLost bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut, f.after, f.armed = n, answerLost, true
}

// Mend ends all faults; After stays.
func (f *Faulty) Mend() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed = false
	f.Refuse, f.Alter, f.FullAt, f.Hang = nil, nil, 0, false
}

// Calls lists the calls so far.
func (f *Faulty) Calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.calls...)
}

// fault is what happens to a call; the error of done is given after it was done.
func (f *Faulty) fault(ctx context.Context, op, what string) (before, done error) {
	if f.Hang {
		<-ctx.Done()
		return fmt.Errorf("%s %s: %w: %w", op, what, host.ErrUnreachable, ctx.Err()), nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, op+" "+what)
	if f.armed {
		lost := fmt.Errorf("%s %s: %w: the line was cut", op, what, host.ErrUnreachable)
		f.cut--
		if f.cut == -1 && f.after {
			return nil, lost
		}
		if f.cut < 0 {
			return lost, nil
		}
	}
	if f.FullAt > 0 && strings.Contains(" write link mkdir ", " "+op+" ") {
		if f.FullAt == 1 {
			return fmt.Errorf("%s %s: %w", op, what, syscall.ENOSPC), nil
		}
		f.FullAt--
	}
	if f.Refuse != nil {
		return f.Refuse(op + " " + what), nil
	}
	return nil, nil
}

// do runs a call between its faults.
func do[T any](ctx context.Context, f *Faulty, op, what string, call func() (T, error)) (v T, err error) {
	if f.After != nil {
		defer f.After()
	}
	before, done := f.fault(ctx, op, what)
	if before != nil {
		return v, before
	}
	v, err = call()
	if err == nil && done != nil {
		var none T
		return none, done
	}
	return v, err
}

func (f *Faulty) act(ctx context.Context, op, what string, call func() error) error {
	_, err := do(ctx, f, op, what, func() (struct{}, error) { return struct{}{}, call() })
	return err
}

// Read is host.Files' with faults.
func (f *Faulty) Read(ctx context.Context, name string) ([]byte, error) {
	return do(ctx, f, "read", name, func() ([]byte, error) { return f.Linked.Read(ctx, name) })
}

// Write is host.Files' with faults.
func (f *Faulty) Write(ctx context.Context, name string, data []byte, a host.Attr) error {
	return f.act(ctx, "write", name, func() error {
		if f.Alter != nil {
			data = f.Alter(name, data)
		}
		return f.Linked.Write(ctx, name, data, a)
	})
}

// Rename is host.Files' with faults.
func (f *Faulty) Rename(ctx context.Context, from, to string) error {
	return f.act(ctx, "rename", from, func() error { return f.Linked.Rename(ctx, from, to) })
}

// Remove is host.Files' with faults.
func (f *Faulty) Remove(ctx context.Context, name string) error {
	return f.act(ctx, "remove", name, func() error { return f.Linked.Remove(ctx, name) })
}

// List is host.Files' with faults.
func (f *Faulty) List(ctx context.Context, folder string) ([]host.Entry, error) {
	return do(ctx, f, "list", folder, func() ([]host.Entry, error) { return f.Linked.List(ctx, folder) })
}

// Link is host.Linker's with faults.
func (f *Faulty) Link(ctx context.Context, target, name string) error {
	return f.act(ctx, "link", name, func() error { return f.Linked.Link(ctx, target, name) })
}

// Readlink is host.Linker's with faults.
func (f *Faulty) Readlink(ctx context.Context, name string) (string, error) {
	return do(ctx, f, "readlink", name, func() (string, error) { return f.Linked.Readlink(ctx, name) })
}

// Mkdir is host.Maker's with faults.
func (f *Faulty) Mkdir(ctx context.Context, name string, a host.Attr) error {
	return f.act(ctx, "mkdir", name, func() error { return f.Linked.Mkdir(ctx, name, a) })
}

// Run is host.Runner's with faults.
func (f *Faulty) Run(ctx context.Context, argv []string, stdin []byte) ([]byte, error) {
	return do(ctx, f, "run", strings.Join(argv, " "), func() ([]byte, error) { return f.Linked.Run(ctx, argv, stdin) })
}

// Dial is host.Dialer's with faults.
func (f *Faulty) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return do(ctx, f, "dial", address, func() (net.Conn, error) { return f.Linked.Dial(ctx, network, address) })
}
