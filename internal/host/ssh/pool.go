package ssh

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
)

// A Source says how nodes are reached.
type Source struct {
	// Key returns a private key by its reference in a farm's configuration.
	Key func(ctx context.Context, farmName string, ref farm.SecretRef) (farm.Secret, error)
	// Certificate returns the user certificate of a node that has no fixed one: from a
	// secret or a command of the controller's list. Nil: such nodes are refused.
	Certificate func(ctx context.Context, farmName string, n farm.Node) (string, error)
	// Node returns a farm's node by name, to go through it to another.
	Node func(ctx context.Context, farmName, node string) (farm.Node, error)
	// Local is the controller's own machine; nil: such nodes are refused.
	Local func(farm.Node) (host.Host, error)
	// Adjust may change what is not said by the node, such as Dial; nil: nothing.
	Adjust func(*Config)
}

// A Pool keeps one Host for each node of each farm, as long as the node is
// reached the same way.
type Pool struct {
	source Source

	mu     sync.Mutex
	hosts  map[place]*kept
	closed bool
	wg     sync.WaitGroup // of hosts that are being closed
}

type place struct{ farm, node string }

// kept is a host and what it was made from.
type kept struct {
	node  farm.Node
	jumps []farm.Node
	host  host.Host
}

// NewPool makes an empty pool.
func NewPool(s Source) *Pool { return &Pool{source: s, hosts: map[place]*kept{}} }

// Host returns the host for a node of a farm. It is the same one until the
// node, or one on the way to it, is configured in another way; the old one is
// closed then. It does not connect.
func (p *Pool) Host(ctx context.Context, farmName string, n farm.Node) (host.Host, error) {
	jumps, err := p.jumps(ctx, farmName, n)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errors.New("the pool of hosts is closed")
	}
	return p.host(farmName, n, jumps)
}

// host finds or makes the host for a node behind jumps, the nearest to it first.
func (p *Pool) host(farmName string, n farm.Node, jumps []farm.Node) (host.Host, error) {
	at := place{farmName, n.Name}
	if k, ok := p.hosts[at]; ok {
		if same(k.node, n) && slices.EqualFunc(k.jumps, jumps, same) {
			return k.host, nil
		}
		p.forget(at)
	}
	made, err := p.make(farmName, n, jumps)
	if err != nil {
		return nil, err
	}
	p.hosts[at] = &kept{n, jumps, made}
	return made, nil
}

func same(a, b farm.Node) bool { return reflect.DeepEqual(a, b) }

func (p *Pool) make(farmName string, n farm.Node, jumps []farm.Node) (host.Host, error) {
	if n.Local {
		if p.source.Local == nil {
			return nil, fmt.Errorf("node %s: this controller has no local node", n.Name)
		}
		return p.source.Local(n)
	}
	c := Config{Node: n, Key: func(ctx context.Context) (farm.Secret, error) {
		return p.source.Key(ctx, farmName, n.SSH.Key)
	}}
	if !n.SSH.CertificateFrom.IsZero() || n.SSH.CertificateCommand != "" {
		if p.source.Certificate == nil {
			return nil, fmt.Errorf("node %s: nobody can get its user certificate here", n.Name)
		}
		c.Certificate = func(ctx context.Context) (string, error) { return p.source.Certificate(ctx, farmName, n) }
	}
	if len(jumps) > 0 {
		jump, err := p.host(farmName, jumps[0], jumps[1:])
		if err != nil {
			return nil, fmt.Errorf("node %s: its jump host: %w", n.Name, err)
		}
		c.Jump = jump
	}
	if p.source.Adjust != nil {
		p.source.Adjust(&c)
	}
	return New(c)
}

// jumps are the nodes on the way to n, the nearest to it first.
func (p *Pool) jumps(ctx context.Context, farmName string, n farm.Node) ([]farm.Node, error) {
	var way []farm.Node
	names := []string{n.Name}
	for n.SSH != nil && n.SSH.Jump != "" {
		next := n.SSH.Jump
		if slices.Contains(names, next) {
			return nil, fmt.Errorf("node %s: its jump hosts go in a circle: %s → %s", names[0], strings.Join(names, " → "), next)
		}
		if p.source.Node == nil {
			return nil, fmt.Errorf("node %s: nobody knows its jump host %s", names[0], next)
		}
		j, err := p.source.Node(ctx, farmName, next)
		if err != nil {
			return nil, fmt.Errorf("node %s: its jump host %s: %w", names[0], next, err)
		}
		names, way, n = append(names, next), append(way, j), j
	}
	return way, nil
}

// forget closes the host of a place and drops it. A host that others go
// through breaks their lines too; they connect anew.
func (p *Pool) forget(at place) {
	if c, ok := p.hosts[at].host.(interface{ Close() error }); ok {
		p.wg.Go(func() { _ = c.Close() }) // it waits for calls that may take their time
	}
	delete(p.hosts, at)
}

// Close closes every host and waits for their calls.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.closed = true
	hosts := p.hosts
	p.hosts = nil
	p.mu.Unlock()
	for _, k := range hosts {
		if c, ok := k.host.(interface{ Close() error }); ok {
			p.wg.Go(func() { _ = c.Close() })
		}
	}
	p.wg.Wait()
	return nil
}
