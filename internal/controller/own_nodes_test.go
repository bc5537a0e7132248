package controller_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/agent"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/remote"
	kinds "github.com/certfarm/certfarm/internal/deploy/target"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/fence"
	"github.com/certfarm/certfarm/internal/host"
)

// ownNodes are receivers behind the SSH servers of a bed, which reach their machine over
// that line: what they take is a call, and nothing else.
type ownNodes struct {
	t     *testing.T
	bed   *bed
	state string
	mu    sync.Mutex
	all   map[string]*ownNode
}

// ownNode is one of them. It has no file and runs no command for a controller.
type ownNode struct {
	host.Host // nil
	*agent.Answerer
	liar *liar // in its place, where the node was taken over
}

// A liar stages as it is told, and from then on says that all was done, and has done
// nothing.
type liar struct {
	honest remote.Answerer
	mu     sync.Mutex
	leaves []string // that it says are live
}

func (l *liar) Answer(ctx context.Context, c remote.Call) remote.Answer {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch c.Do {
	case remote.DoStage:
		l.leaves = nil
		for _, b := range c.Stage.Bundles {
			l.leaves = append(l.leaves, b.Leaf)
		}
		return l.honest.Answer(ctx, c)
	case remote.DoInspect:
		if l.leaves != nil {
			return remote.Answer{ID: c.ID, Installed: deploy.Installed{Leaves: l.leaves}}
		}
		return l.honest.Answer(ctx, c)
	case remote.DoActivate, remote.DoRestore, remote.DoDiscard, remote.DoRequest, remote.DoForget:
	}
	return remote.Answer{ID: c.ID}
}

// Run is the login with its forced command.
func (n *ownNode) Run(ctx context.Context, _ []string, stdin []byte) ([]byte, error) {
	c, err := remote.Open(stdin)
	if err != nil {
		return nil, err
	}
	if n.liar != nil {
		return remote.Frame(n.liar.Answer(ctx, c))
	}
	return remote.Frame(n.Answer(ctx, c))
}

// hosts gives those of the nodes that have a receiver in place of their lines.
func (o *ownNodes) hosts(inner controller.Hosts) controller.Hosts {
	return func(ctx context.Context, farmName string, n farm.Node, c controller.Context) (host.Host, error) {
		h, err := inner(ctx, farmName, n, c)
		if err != nil || n.SSH == nil || !n.SSH.Receiver {
			return h, err
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.all[n.Name] == nil {
			linked, ok := h.(fence.Linked)
			if !ok {
				return nil, fmt.Errorf("node %s has no links", n.Name)
			}
			a, err := agent.NewAnswerer(agent.AnswererSetup{
				Kinds: kinds.All(), Host: linked, State: filepath.Join(o.state, n.Name), Now: o.bed.clock.now,
				Policy: sync.OnceValues(func() (fence.Policy, error) {
					s, err := o.bed.Controller.NodePolicy(context.WithoutCancel(ctx), farmName, n.Name)
					if err != nil {
						return fence.Policy{}, err
					}
					return fence.Parse([]byte(s.Parts[0].Text))
				}),
			})
			if err != nil {
				return nil, err
			}
			o.all[n.Name] = &ownNode{Answerer: a}
		}
		return o.all[n.Name], nil
	}
}

// newOwnBed is a farm whose every node decides for itself, by the policy that the
// controller writes for it.
func newOwnBed(t *testing.T) (*bed, *ownNodes) {
	o := &ownNodes{t: t, state: t.TempDir(), all: map[string]*ownNode{}}
	o.bed = newBed(t, setting{
		policy: steady(),
		edit: func(_ *bed, text string) string {
			return strings.ReplaceAll(text, "connect_timeout: 2s", "receiver: true\n      connect_timeout: 2s")
		},
		adjust: func(b *bed, c *controller.Config) {
			o.bed = b
			c.Hosts = o.hosts(c.Hosts)
		},
	})
	return o.bed, o
}

// A rollout goes over nodes that decide for themselves as over others; they are told to
// be fenced. When the database has lost its last commits, a node knows it: it refuses
// the epoch that it has seen before, and the database goes on above that by itself.
func TestNodesThatDecideForThemselves(t *testing.T) {
	t.Parallel()
	b, o := newOwnBed(t)
	b.apply()
	b.ended(farm.Done, 1)
	b.rests()
	places := b.describe().Places
	d, err := b.Controller.Target(b.ctx, b.Farm, places[0].Target.Name)
	must(t, err)
	if d.Fence != "fenced" {
		t.Errorf("the target is %s", d.Fence)
	}
	k, err := b.Controller.Checkup(b.ctx, b.Farm)
	must(t, err)
	if len(k.Fences) != 1 || k.Fences[0].Class != "fenced" {
		t.Errorf("fences: %+v", k.Fences)
	}
	for _, r := range k.Checks {
		if r.Area == "node" && r.Verdict != controller.CheckupOK {
			t.Errorf("node %s: %s", r.Name, r.Saw)
		}
	}
	if _, err := b.Controller.Host(b.ctx, b.Farm, "web1"); err == nil || !strings.Contains(err.Error(), "decides for itself") {
		t.Errorf("its files and commands are at hand: %v", err)
	}

	lost := remote.Call{
		ID: "lost", Do: remote.DoForget, Farm: b.Farm, Node: "web1", Lane: "node web1", Deadline: time.Minute,
		Lease: deploy.Lease{Owner: "lost", Epoch: b.clock.now().Add(time.Hour).UnixMilli(), Nonce: "lost"},
	}
	if a := o.all["web1"].Answer(b.ctx, lost); a.Error != "" {
		t.Fatal(a.Error)
	}
	b.renew()
	e := b.happens("node.epoch", "")
	if e.Level != farm.Alarm || e.Node != "web1" {
		t.Errorf("told %+v", e)
	}
	b.clock.ahead.Add(int64(time.Minute)) // the lease that was lost by it ends
	b.wake(b.ctx)
	b.ended(farm.Done, 2)
	if n := b.count("node.epoch"); n != 1 {
		t.Errorf("it was told %d times", n)
	}
}

// What the node's policy does not allow ends the rollout without another try, with the
// line of the policy that is missing.
func TestANodeRefuses(t *testing.T) {
	t.Parallel()
	b, o := newOwnBed(t)
	b.apply()
	b.ended(farm.Done, 1)
	b.rests()
	o.mu.Lock()
	var err error
	o.all["web1"].Answerer, err = agent.NewAnswerer(agent.AnswererSetup{
		Kinds: kinds.All(), State: filepath.Join(o.state, "web1"), Now: b.clock.now,
		Policy: func() (fence.Policy, error) { return fence.Policy{Node: "web1", Farm: b.Farm}, nil },
	})
	o.mu.Unlock()
	must(t, err)
	b.renew()
	b.ended(farm.RolledBack, 2)
	if !strings.Contains(b.story(), "kinds: [nginx]") {
		t.Errorf("it does not say what is missing:\n%s", b.story())
	}
}

// A node that was taken over says that it activated, and that what was staged is on its
// disk; its endpoint serves what it did. The controller's own handshakes contradict it:
// nobody else gets the new version, all go back, and it is told which node it was (S3).
func TestANodeLies(t *testing.T) {
	t.Parallel()
	b, o := newOwnBed(t)
	b.apply()
	v1 := b.fingerprint(b.ended(farm.Done, 1).To.ID)
	b.rests()
	o.mu.Lock()
	o.all["web1"].liar = &liar{honest: o.all["web1"].Answerer}
	o.mu.Unlock()
	b.renew()
	r := b.ended(farm.RolledBack, 2)
	b.allServe(v1)
	for _, s := range r.Steps {
		if lied := strings.HasSuffix(s.Target, "@web1"); (s.Fault != "") != lied {
			t.Errorf("%s is at fault: %q %s", s.Target, s.Fault, s.Error)
		}
	}
	if !strings.Contains(b.story(), " serves "+farm.Short(v1)+", not ") {
		t.Errorf("it is not told what was seen:\n%s", b.story())
	}
}
