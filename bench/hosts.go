package main

import (
	"context"
	"net"
	"sync"
	"sync/atomic"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
)

// A linked host is what the nodes of the lab are.
type linked interface {
	host.Host
	host.Linker
	host.Creator
}

// hosts keeps the lines to the nodes that a controller opens, for the bare
// deployment to use the same ones, and counts the calls that go through them.
type hosts struct {
	mu    sync.Mutex
	lines map[string]linked // by node
	calls atomic.Int64
}

// through makes every line that open opens a counting one.
func (h *hosts) through(open controller.Hosts) controller.Hosts {
	return func(ctx context.Context, farmName string, n farm.Node, c controller.Context) (host.Host, error) {
		line, err := open(ctx, farmName, n, c)
		if err != nil {
			return nil, err
		}
		counted := counting{line.(linked), &h.calls}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.lines[n.Name] = counted
		return counted, nil
	}
}

// line is the line to a node; nil: none was opened.
func (h *hosts) line(node string) linked {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lines[node]
}

// counting counts the calls of a host.
type counting struct {
	linked
	calls *atomic.Int64
}

func (c counting) Read(ctx context.Context, name string) ([]byte, error) {
	c.calls.Add(1)
	return c.linked.Read(ctx, name)
}

func (c counting) Write(ctx context.Context, name string, data []byte, a host.Attr) error {
	c.calls.Add(1)
	return c.linked.Write(ctx, name, data, a)
}

func (c counting) Create(ctx context.Context, name string, data []byte, a host.Attr) ([]byte, error) {
	c.calls.Add(1)
	return c.linked.Create(ctx, name, data, a)
}

func (c counting) Rename(ctx context.Context, from, to string) error {
	c.calls.Add(1)
	return c.linked.Rename(ctx, from, to)
}

func (c counting) Remove(ctx context.Context, name string) error {
	c.calls.Add(1)
	return c.linked.Remove(ctx, name)
}

func (c counting) List(ctx context.Context, folder string) ([]host.Entry, error) {
	c.calls.Add(1)
	return c.linked.List(ctx, folder)
}

func (c counting) Run(ctx context.Context, argv []string, stdin []byte) ([]byte, error) {
	c.calls.Add(1)
	return c.linked.Run(ctx, argv, stdin)
}

func (c counting) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	c.calls.Add(1)
	return c.linked.Dial(ctx, network, address)
}

func (c counting) Link(ctx context.Context, target, name string) error {
	c.calls.Add(1)
	return c.linked.Link(ctx, target, name)
}

func (c counting) Readlink(ctx context.Context, name string) (string, error) {
	c.calls.Add(1)
	return c.linked.Readlink(ctx, name)
}

func (c counting) Mkdir(ctx context.Context, name string, a host.Attr) error {
	c.calls.Add(1)
	return c.linked.Mkdir(ctx, name, a)
}
