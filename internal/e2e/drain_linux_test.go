package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/deploy/haproxyctl"
	"github.com/certfarm/certfarm/internal/host/local"
)

// TestDrainUnderLoad takes each of two nodes out of a real balancer for each of its
// activations, under clients that make a new connection for each request: none
// fails, and both nodes are in at the end.
func TestDrainUnderLoad(t *testing.T) {
	const changes = 5 // of both nodes
	g := newGround(t, false, nodeSpec{name: "web1", kind: "nginx"}, nodeSpec{name: "web2", kind: "apache", pair: true})
	r := start(t, g, filepath.Join(t.TempDir(), "certfarm.db"))
	text := string(g.farmYAML("canary: 0, max_parallel: 1, soak: 0s, deadline: 1m, healthy_deadline: 20s"))
	for _, n := range g.nodes {
		was := "    address: " + n.addr + "\n"
		text = strings.Replace(text, was, was+fmt.Sprintf("    drain: [{address: %q, servers: nodes/%s, wait: 20s}]\n", g.adminSocket(), n.name), 1)
	}
	r.applyText(t, []byte(text))
	r.rotate(t)
	for _, n := range g.nodes {
		g.inBalancer(t, n)
	}

	l := newcomers(t, net.JoinHostPort(g.gateway, strconv.Itoa(httpsPort)), r)
	before := drained(g)
	for range changes {
		r.rotate(t)
	}
	c := l.cost()
	t.Logf("%d requests, %d drains", c.requests, drained(g)-before)
	if c.requests < 50 || c.failed > 0 {
		t.Errorf("%d of %d requests failed", c.failed, c.requests)
	}
	if n := drained(g) - before; n != changes*len(g.nodes) {
		t.Errorf("%d drains of %d nodes in %d rotations", n, len(g.nodes), changes)
	}
	for _, n := range g.nodes {
		g.inBalancer(t, n)
	}
}

// inBalancer waits until the balancer sends connections to a node.
func (g *ground) inBalancer(t *testing.T, n *node) {
	t.Helper()
	line := haproxyctl.Line{Host: local.New(local.Config{}), Network: "tcp", Address: g.adminSocket()}
	within(t, 20*time.Second, n.name+" is in the balancer", func() bool {
		reply, err := line.Ask(t.Context(), "show servers state nodes\n")
		must(t, err)
		for row := range strings.Lines(reply) {
			// The columns of HAProxy's management guide: backend and server by number and
			// name, address, whether it runs (2), why it was taken out (0: it was not).
			if w := strings.Fields(row); len(w) > 6 && w[3] == n.name {
				return w[5] == "2" && w[6] == "0"
			}
		}
		return false
	})
}

// drained counts the drains that the balancer tells of.
func drained(g *ground) int { return strings.Count(g.said.String(), "enters drain state") }

// newcomers are clients that make a new connection for each request.
func newcomers(t *testing.T, addr string, r *rig) *load {
	l := &load{addr: addr, config: &tls.Config{ServerName: siteNames[0], RootCAs: r.roots}}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { l.client(ctx, false) })
	}
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return l
}
