package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// rotations is how many new certificates go out under load, each beside one bare
// reload of every server.
const rotations = 10

// TestRotationsUnderLoad holds what a rotation costs the clients of a server
// against what its own bare reload costs them, in turns, so that both meet the
// same conditions.
func TestRotationsUnderLoad(t *testing.T) {
	g := newGround(t, false, nodeSpec{name: "web1", kind: "nginx"}, nodeSpec{name: "web2", kind: "apache", pair: true})
	r := start(t, g, filepath.Join(t.TempDir(), "certfarm.db"))
	r.apply(t, "canary: 0, max_parallel: 2, soak: 0s, deadline: 30s, healthy_deadline: 5s")
	r.rotate(t)

	var loads []*load
	for _, n := range g.nodes {
		loads = append(loads, newLoad(t, n.https(), g.roots))
	}
	bare, ours := make([]cost, len(loads)), make([]cost, len(loads))
	for range rotations {
		r.measured(t, bare, loads, func() {
			for _, n := range g.nodes {
				must(t, n.reload())
			}
		})
		r.measured(t, ours, loads, func() { r.rotate(t) })
	}
	for i, n := range g.nodes {
		t.Logf("%s: bare %+v, ours %+v", n.kind, bare[i], ours[i])
		if ours[i].requests < 200 || bare[i].requests < 100 {
			t.Errorf("%s was not under load", n.kind)
		}
		if ours[i].failed > bare[i].failed {
			t.Errorf("%s: %d requests failed in %d rotations, %d in as many bare reloads", n.kind, ours[i].failed, rotations, bare[i].failed)
		}
		// A client that comes back at once may meet the old worker a second time.
		if most := keeping * rotations * 3 / 2; ours[i].cut > most {
			t.Errorf("%s: %d requests were cut in %d rotations of %d kept connections, want at most %d", n.kind, ours[i].cut, rotations, keeping, most)
		}
	}
}

// rotate imports a new certificate and waits until every node serves it.
func (r *rig) rotate(t *testing.T) {
	t.Helper()
	chain, key := authority.issue(t, siteNames...)
	v, err := r.Import(t.Context(), farmName, siteName, chain, farm.NewSecret(key), "e2e")
	must(t, err)
	r.ended(t, limit, farm.Done)
	r.seen(t, v.Leaves[0].Fingerprint)
}

// A cost is what clients have seen.
type cost struct{ requests, failed, cut int }

// measured adds what the clients see while every server is reloaded once, until
// the old workers are gone with all that they kept.
func (r *rig) measured(t *testing.T, sum []cost, loads []*load, do func()) {
	t.Helper()
	var before []cost
	var old [][]int
	reloads := r.reloads(t)
	for i, l := range loads {
		before = append(before, l.cost())
		old = append(old, r.nodes[i].workers())
	}
	do()
	for i, l := range loads {
		n := r.nodes[i]
		within(t, limit, "the old workers of "+n.kind+" have ended", func() bool {
			return n.reloads(t) > reloads[i] && !slices.ContainsFunc(n.workers(), func(pid int) bool { return slices.Contains(old[i], pid) })
		})
		if again := n.reloads(t) - reloads[i]; again != 1 {
			t.Errorf("%s was reloaded %d times, not once", n.kind, again)
		}
		c := l.cost()
		sum[i].requests += c.requests - before[i].requests
		sum[i].failed += c.failed - before[i].failed
		sum[i].cut += c.cut - before[i].cut
	}
}

// A load is a number of clients of one server. Some ask over a connection that
// they keep, as browsers and proxies do; some make a new one for each request.
//
// A request has failed when its client gets no answer. One that a server's
// ending worker cut on a kept connection, before a byte of the answer, is sent
// again on a new one, as RFC 9112 §9.3.1 has it and every client does: that is
// counted by itself.
type load struct {
	addr                  string
	config                *tls.Config
	requests, failed, cut atomic.Int64
}

// The clients of each server, and how long each pauses between two requests.
const (
	keeping  = 10
	renewing = 2
	between  = 20 * time.Millisecond
)

func newLoad(t testing.TB, addr string, roots *x509.CertPool) *load {
	l := &load{addr: addr, config: &tls.Config{ServerName: siteNames[0], RootCAs: roots}}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	for i := range keeping + renewing {
		wg.Go(func() { l.client(ctx, i < keeping) })
	}
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return l
}

func (l *load) cost() cost {
	return cost{int(l.requests.Load()), int(l.failed.Load()), int(l.cut.Load())}
}

// client asks again and again, pausing so that the machine is not the limit.
func (l *load) client(ctx context.Context, keeps bool) {
	c := &client{load: l}
	defer c.drop()
	tick := time.NewTicker(between)
	defer tick.Stop()
	for ctx.Err() == nil {
		fresh := c.conn == nil
		cut, err := c.ask(ctx)
		if err != nil && cut && !fresh && ctx.Err() == nil {
			l.cut.Add(1)
			_, err = c.ask(ctx)
		}
		if ctx.Err() != nil {
			return // our own end
		}
		l.requests.Add(1)
		if err != nil {
			l.failed.Add(1)
		}
		if !keeps {
			c.drop()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// A client has at most one connection.
type client struct {
	*load
	conn *tls.Conn
	in   *bufio.Reader
}

func (c *client) drop() {
	if c.conn != nil {
		c.conn.Close() // whatever it says, it is gone
	}
	c.conn = nil
}

// ask makes one request. Cut says that no byte of an answer came.
func (c *client) ask(ctx context.Context) (cut bool, err error) {
	if c.conn == nil {
		d := tls.Dialer{Config: c.config}
		conn, err := d.DialContext(ctx, "tcp", c.addr)
		if err != nil {
			return false, err
		}
		c.conn = conn.(*tls.Conn)
		c.in = bufio.NewReader(c.conn)
	}
	defer func() {
		if err != nil {
			c.drop()
		}
	}()
	if err := c.conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return true, err
	}
	if _, err := io.WriteString(c.conn, "GET / HTTP/1.1\r\nHost: "+siteNames[0]+"\r\n\r\n"); err != nil {
		return true, err
	}
	if _, err := c.in.Peek(1); err != nil {
		return true, err
	}
	r, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return false, err
	}
	defer r.Body.Close() // nothing is left in it
	_, err = io.Copy(io.Discard, r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", r.StatusCode)
	}
	if r.Close {
		c.drop()
	}
	return false, err
}
