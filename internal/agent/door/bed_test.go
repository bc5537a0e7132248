package door_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/agent"
	"github.com/certfarm/certfarm/internal/agent/door"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/deploy/remote"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

func TestMain(m *testing.M) { os.Exit(storetest.Main(m)) }

// A clock goes on only when it is told to.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Now().UTC().Truncate(time.Second)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// A bed is a store with a farm of agents, and controllers with doors on it.
type bed struct {
	*testing.T
	*clock
	open func(store.Options) *store.Store
	keys *secret.Keyring
	log  *slog.Logger
}

// A post is one controller and its door.
type post struct {
	*controller.Controller
	url  string
	stop func() // the controller and its door die
}

const patience = 20 * time.Second // on a machine that is busy with other tests

func makeBed(t *testing.T, open func(store.Options) *store.Store) *bed {
	keys, err := secret.Load(secret.Source{File: filepath.Join(t.TempDir(), "master.key")})
	if err != nil {
		t.Fatal(err)
	}
	return &bed{T: t, clock: newClock(), open: open, keys: keys, log: slog.New(slog.DiscardHandler)}
}

// onSQLite is a bed with one controller.
func onSQLite(t *testing.T) (*bed, *post) {
	b := makeBed(t, func(o store.Options) *store.Store { return storetest.SQLite(t, o) })
	p := b.post(door.Config{})
	b.save(p)
	return b, p
}

// post starts a controller with a door.
func (b *bed) post(c door.Config) *post {
	b.Helper()
	s := b.open(store.Options{Now: b.now})
	c.Controller = controller.New(controller.Config{Store: s, Keys: b.keys, Now: b.now, Log: b.log})
	c.Address, c.Log = "127.0.0.1:0", b.log
	d, err := door.Listen(b.Context(), c)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Serve(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			b.Errorf("the door: %v", err)
		}
	})
	b.Cleanup(stop)
	return &post{c.Controller, "https://" + d.Addr().String(), stop}
}

// save makes the farm: web1 and web2 have agents, web3 is reached by SSH.
func (b *bed) save(p *post) {
	b.Helper()
	pool := map[string]string{"pool": "web"}
	err := p.Store.Update(b.Context(), func(tx *store.Tx) error {
		_, err := tx.SaveFarm(b.Context(), farm.Farm{
			Name: "f", Issuers: []farm.Issuer{{Name: "ca", Directory: "https://ca.test/dir"}},
			Nodes: []farm.Node{
				{Name: "web1", Address: "10.0.0.1", Agent: true, Labels: pool}, {Name: "web2", Address: "10.0.0.2", Agent: true, Labels: pool},
				{Name: "web3", Address: "10.0.0.3", SSH: &farm.SSH{Port: 22}},
			},
		}, []byte("farm: f\n"), "alice", 0)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
}

// token makes a token for a node.
func (b *bed) token(p *post, ask controller.AgentTokenAsk) agent.Token {
	b.Helper()
	k := agent.Token{Secret: agent.NewTokenSecret()}
	ask.Digest = k.Digest()
	t, err := p.NewAgentToken(b.Context(), "f", ask, "alice")
	if err != nil {
		b.Fatal(err)
	}
	k.Pins = t.Pins
	return k
}

func (b *bed) setup(k agent.Token, posts ...*post) agent.JoinSetup {
	s := agent.JoinSetup{Token: k, State: filepath.Join(b.TempDir(), "agent"), Version: "v1", Now: b.now}
	for _, p := range posts {
		s.Servers = append(s.Servers, p.url)
	}
	return s
}

// join lets an agent join as a node; it returns its state folder.
func (b *bed) join(node string, posts ...*post) string {
	b.Helper()
	s := b.setup(b.token(posts[0], controller.AgentTokenAsk{Node: node}), posts...)
	if _, err := agent.JoinFarm(b.Context(), s); err != nil {
		b.Fatal(err)
	}
	return s.State
}

// answers is an Answerer made of a function.
type answers func(context.Context, remote.Call) remote.Answer

func (f answers) Answer(ctx context.Context, c remote.Call) remote.Answer { return f(ctx, c) }

// said answers everything with the id of the call and a word.
func said(word string) answers {
	return func(_ context.Context, c remote.Call) remote.Answer {
		return remote.Answer{ID: c.ID, Error: word}
	}
}

var quick = agent.Pace{First: 10 * time.Millisecond, Most: 50 * time.Millisecond, Turned: 50 * time.Millisecond, Grace: time.Second, Look: 50 * time.Millisecond}

// run starts the agent of a state folder; the function that it returns ends it and
// waits.
func (b *bed) run(state string, a remote.Answerer) (*agent.Loop, func()) {
	b.Helper()
	i, err := agent.LoadIdentity(state)
	if err != nil {
		b.Fatal(err)
	}
	l, err := agent.NewLoop(agent.LoopSetup{Identity: i, State: state, Answerer: a, Version: "v1", Log: b.log, Now: b.now, Pace: quick})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			b.Errorf("the agent: %v", err)
		}
	})
	b.Cleanup(stop)
	return l, stop
}

// call asks a node to inspect something.
func (p *post) call(ctx context.Context, node, id string) (remote.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return p.Call(ctx, remote.Call{ID: id, Do: remote.DoInspect, Farm: "f", Node: node, Kind: "files", At: time.Now(), Deadline: patience})
}

// until waits until something is so, by looking after every commit.
func (b *bed) until(p *post, what string, is func(*store.Tx) (bool, error)) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	for {
		written := p.Store.Written()
		so := false
		err := p.Store.View(ctx, func(tx *store.Tx) (err error) {
			so, err = is(tx)
			return err
		})
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			b.Fatalf("waiting for %s: %v", what, err)
		}
		if so {
			return
		}
		select {
		case <-ctx.Done():
			b.journal(p)
			b.Fatalf("%s: not in %s", what, patience)
		case <-written:
		case <-time.After(time.Second): // another controller's may not be heard
		}
	}
}

// journal tells what happened, where something did not.
func (b *bed) journal(p *post) {
	err := p.Store.View(context.Background(), func(tx *store.Tx) error {
		farms, err := tx.Farms(context.Background())
		if err != nil {
			return err
		}
		for _, f := range farms {
			all, err := tx.Events(context.Background(), f, store.EventQuery{Limit: 100})
			if err != nil {
				return err
			}
			for _, e := range all {
				b.Log(e.At.Format("05.000"), e.Kind, e.Text)
			}
		}
		return nil
	})
	if err != nil {
		b.Log(err)
	}
}

// up waits until the agent of a node was heard of.
func (b *bed) up(p *post, node string) {
	b.Helper()
	b.until(p, "the agent of "+node+" is heard of", func(tx *store.Tx) (bool, error) {
		a, err := tx.Agent(b.Context(), "f", node)
		return !a.Seen.IsZero(), err
	})
}

// lines hands what is logged to a channel.
type lines struct {
	slog.Handler
	to chan<- string
}

func logTo(to chan<- string) *slog.Logger { return slog.New(lines{slog.DiscardHandler, to}) }

func (l lines) Enabled(context.Context, slog.Level) bool { return true }

func (l lines) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		text += " " + a.String()
		return true
	})
	select {
	case l.to <- text:
	default: // nobody reads so much
	}
	return nil
}
