package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/agent"
	"github.com/certfarm/certfarm/internal/agent/door"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/deploy/remote"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
)

// A crowd is a controller with its door, a bare server, and a thousand agents that have
// joined.
type crowd struct {
	ctl       *controller.Controller
	store     *store.Store
	dir       string // of the agents' states
	own, bare sender
	ends      []func() error // in this order
}

func (c *crowd) close() error {
	var errs []error
	for _, end := range c.ends {
		errs = append(errs, end())
	}
	return errors.Join(errs...)
}

// newCrowd makes the farm and has every agent join.
func newCrowd(ctx context.Context, dir string) (c *crowd, err error) {
	c = &crowd{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	dir = filepath.Join(dir, "agents")
	if c.store, err = openNew(ctx, dir); err != nil {
		return nil, err
	}
	c.ends = append(c.ends, c.store.Close)
	c.ctl = controller.New(controller.Config{Store: c.store, Keys: secret.Fresh()})
	if c.dir, err = othersDir(dir); err != nil {
		return nil, err
	}
	c.ends = append(c.ends, func() error { return os.RemoveAll(c.dir) })
	if err := c.listen(ctx); err != nil {
		return nil, err
	}
	return c, c.join(ctx)
}

// dirOf is where the agents of a sender remember.
func (c *crowd) dirOf(name string) string { return filepath.Join(c.dir, name) }

// listen opens the door and the bare server beside it.
func (c *crowd) listen(ctx context.Context) error {
	d, err := door.Listen(ctx, door.Config{Controller: c.ctl, Address: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	cert, err := c.ctl.AgentsDoor(ctx)
	if err != nil {
		return errors.Join(err, d.Close())
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return errors.Join(err, d.Close())
	}
	b := &broadcaster{waiting: map[string]chan []byte{}, answers: map[string]chan remote.Answer{}}
	server := &http.Server{
		Handler: b, ReadHeaderTimeout: agentWithin, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{*cert}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS13},
	}
	serving, end := context.WithCancel(ctx)
	var parts sync.WaitGroup
	var failed error
	parts.Go(func() { failed = d.Serve(serving) })
	parts.Go(func() { _ = server.ServeTLS(l, "", "") }) // it ends when it is closed
	c.ends = append([]func() error{func() error {
		end()
		err := server.Close()
		parts.Wait()
		return errors.Join(failed, err)
	}}, c.ends...)
	c.own = sender{name: "own", url: "https://" + d.Addr().String(), here: c.here, bring: c.bring}
	c.bare = sender{name: "bare", url: "https://" + l.Addr().String(), here: b.here, bring: b.bring}
	return nil
}

// join has every agent join with one token.
func (c *crowd) join(ctx context.Context) error {
	pool := map[string]string{"pool": "all"}
	f := farm.Farm{Name: benchFarm}
	for i := range agentCount {
		f.Nodes = append(f.Nodes, farm.Node{Name: agentName(i), Address: "127.0.0.1", Agent: true, Labels: pool})
	}
	err := c.store.Update(ctx, func(tx *store.Tx) error {
		_, err := tx.SaveFarm(ctx, f, nil, "bench", 0)
		return err
	})
	if err != nil {
		return err
	}
	t := agent.Token{Secret: agent.NewTokenSecret()}
	made, err := c.ctl.NewAgentToken(ctx, benchFarm, controller.AgentTokenAsk{Digest: t.Digest(), Labels: pool, Uses: agentCount}, "bench")
	if err != nil {
		return err
	}
	t.Pins = made.Pins
	for i := range agentCount {
		state := agentsSpec{Dir: c.dirOf(c.own.name)}.state(i)
		id, err := agent.JoinFarm(ctx, agent.JoinSetup{Servers: []string{c.own.url}, Token: t, Node: agentName(i), State: state})
		if err == nil {
			err = id.Save(agentsSpec{Dir: c.dirOf(c.bare.name)}.state(i))
		}
		if err != nil {
			return fmt.Errorf("agent %d: %w", i, err)
		}
	}
	return nil
}

// here counts the agents that the controller has heard of since they were started.
func (c *crowd) here(ctx context.Context) (n int, err error) {
	err = c.store.View(ctx, func(tx *store.Tx) error {
		all, err := tx.Agents(ctx, benchFarm)
		for _, a := range all {
			if time.Since(a.Seen) < agentWithin {
				n++
			}
		}
		return err
	})
	return n, err
}

// bring has the controller call the agents.
func (c *crowd) bring(ctx context.Context, calls []remote.Call, count int) (map[string]remote.Answer, time.Time, error) {
	rest, giveUp := context.WithCancel(ctx)
	defer giveUp()
	answers, errs := make([]remote.Answer, len(calls)), make([]error, count)
	var waited, others sync.WaitGroup
	began := time.Now()
	for i, call := range calls {
		if i < count {
			waited.Go(func() { answers[i], errs[i] = c.ctl.Call(ctx, call) })
		} else {
			others.Go(func() { _, _ = c.ctl.Call(rest, call) }) // those that are dead, or come and go
		}
	}
	waited.Wait()
	giveUp()
	others.Wait()
	all := map[string]remote.Answer{}
	for i := range count {
		all[calls[i].Node] = answers[i]
	}
	return all, began, errors.Join(errs...)
}

// A broadcaster is the least that can do it: it keeps each agent's question open, and
// answers all with bytes that it has at hand.
type broadcaster struct {
	mu      sync.Mutex
	waiting map[string]chan []byte        // by node
	answers map[string]chan remote.Answer // by call
}

func (b *broadcaster) here(context.Context) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.waiting), nil
}

// bring writes to all that are there.
func (b *broadcaster) bring(ctx context.Context, calls []remote.Call, count int) (map[string]remote.Answer, time.Time, error) {
	texts, came := make([][]byte, len(calls)), make([]chan remote.Answer, len(calls))
	for i, call := range calls {
		text, err := remote.Seal(call)
		if err != nil {
			return nil, time.Time{}, err
		}
		body, err := json.Marshal(agent.Calls{Calls: []json.RawMessage{text}})
		if err != nil {
			return nil, time.Time{}, err
		}
		texts[i], came[i] = body, make(chan remote.Answer, 1)
	}
	b.mu.Lock()
	began := time.Now()
	for i, call := range calls {
		b.answers[call.ID] = came[i]
		if to, ok := b.waiting[call.Node]; ok {
			delete(b.waiting, call.Node)
			to <- texts[i] // it has room for one
		}
	}
	b.mu.Unlock()
	all := map[string]remote.Answer{}
	for i := range count {
		select {
		case all[calls[i].Node] = <-came[i]:
		case <-ctx.Done():
			return nil, began, fmt.Errorf("%s: %w", calls[i].Node, ctx.Err())
		}
	}
	return all, began, nil
}

// ServeHTTP is a question, or an answer.
func (b *broadcaster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, _ := io.ReadAll(r.Body) // an agent that is gone asks again
	if id, ok := strings.CutPrefix(r.URL.Path, agent.PathCalls+"/"); ok {
		b.answer(id, text)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	node, mine := r.TLS.PeerCertificates[0].Subject.CommonName, make(chan []byte, 1)
	b.mu.Lock()
	b.waiting[node] = mine
	b.mu.Unlock()
	select {
	case body := <-mine:
		_, _ = w.Write(body) // it is measured whether it came
	case <-r.Context().Done():
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.waiting[node] == mine {
			delete(b.waiting, node)
		}
	}
}

func (b *broadcaster) answer(id string, text []byte) {
	a, err := remote.OpenAnswer(text)
	b.mu.Lock()
	defer b.mu.Unlock()
	if to, ok := b.answers[id]; ok && err == nil {
		delete(b.answers, id)
		to <- a // it has room for one
	}
}
