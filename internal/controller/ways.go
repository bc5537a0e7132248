package controller

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/lookup"
	"github.com/certfarm/certfarm/internal/prove"
	"github.com/certfarm/certfarm/internal/prove/dns01"
	"github.com/certfarm/certfarm/internal/prove/dns01/provider"
	"github.com/certfarm/certfarm/internal/prove/dnspersist"
	"github.com/certfarm/certfarm/internal/prove/http01"
	"github.com/certfarm/certfarm/internal/store"
)

// ways has what answers CAs in production.
type ways struct {
	board *board

	mu      sync.Mutex
	writers map[[32]byte]dns01.Writer // a cache: helpers and lanes are used again

	providers []dns01.Provider // one list for all: what some hosters' APIs forget is kept in it
}

func newWays(s *store.Store) *ways {
	return &ways{board: newBoard(s), writers: map[[32]byte]dns01.Writer{}, providers: provider.All()}
}

// solver makes what answers for a validation.
func (w *ways) solver(ctx context.Context, p Proving, c Context) (prove.Solver, error) {
	switch p.Validation.Method {
	case farm.HTTP01:
		return w.overHTTP(p, c)
	case farm.DNS01:
		return w.overDNS(ctx, p, c)
	case farm.DNSPersist01:
		return dnspersist.Solver{Lookup: dnsOf(p.Settings, false)}, nil
	}
	return nil, fmt.Errorf("validation %s: there is nothing that answers for it", p.Validation.Method)
}

func (w *ways) overHTTP(p Proving, c Context) (prove.Solver, error) {
	v := p.Validation
	switch v.Via {
	case farm.Gateway:
		return http01.Gateway{Board: w.board}, nil
	case farm.Redirect:
		return http01.Redirect{Gateway: http01.Gateway{Board: w.board}}, nil
	case farm.Stateless:
		return http01.Stateless{Thumbprint: p.Thumbprint}, nil
	case farm.Distribute:
		var d http01.Distribute
		for _, name := range v.Nodes {
			d.Nodes = append(d.Nodes, http01.Place{
				Name: name, Webroot: v.Webroot,
				Host:   func(ctx context.Context) (host.Host, error) { return c.Host(ctx, p.Farm, name) },
				Silent: func(ctx context.Context) bool { return silent(ctx, p, c, name) },
			})
		}
		return d, nil
	}
	return nil, fmt.Errorf("validation %s via %s: there is nothing that answers for it", v.Method, v.Via)
}

// silent reports whether a node takes no connection where it serves the names: no
// CA can be sent there either.
func silent(ctx context.Context, p Proving, c Context, name string) bool {
	n, err := c.Node(ctx, p.Farm, name)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, silentAfter)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(n.Address, strconv.Itoa(p.Validation.Port)))
	if err != nil {
		return true
	}
	_ = conn.Close()
	return false
}

// silentAfter is how long a node may take to accept a connection.
const silentAfter = 5 * time.Second

// overDNS makes the solver of a way to write TXT records.
func (w *ways) overDNS(ctx context.Context, p Proving, c Context) (prove.Solver, error) {
	i := slices.IndexFunc(p.Settings.DNS, func(d farm.DNS) bool { return d.Name == p.Validation.DNS })
	if i < 0 {
		return nil, fmt.Errorf("the entry %s is gone from dns in farm.yaml: put it back until its records are taken away", p.Validation.DNS)
	}
	d := p.Settings.DNS[i]
	writer, err := w.writer(ctx, d, p, c)
	if err != nil {
		return nil, fmt.Errorf("dns %s: %w", d.Name, err)
	}
	return dns01.Solver{
		Writer: writer, Lookup: dnsOf(p.Settings, d.Resolvers), Delegate: p.Validation.Delegate, Silent: d.Silent,
	}, nil
}

// writer makes a writer, or finds the one that was made before.
func (w *ways) writer(ctx context.Context, d farm.DNS, p Proving, c Context) (dns01.Writer, error) {
	i := slices.IndexFunc(w.providers, func(k dns01.Provider) bool { return k.Name == d.Provider })
	if i < 0 {
		return nil, fmt.Errorf("there is no provider %s; `certfarm dns providers` lists them", d.Provider)
	}
	setup := dns01.Setup{
		Farm: p.Farm, Options: d.Options, Secrets: map[string]farm.Secret{}, Proxy: p.Settings.Proxy,
		Lookup: dnsOf(p.Settings, d.Resolvers), Board: records{w.board}, Commands: p.Commands, Helper: p.Helper,
	}
	seen := map[string][32]byte{}
	for name, ref := range d.Secrets {
		value, err := c.Secret(ctx, p.Farm, ref)
		if err != nil {
			return nil, fmt.Errorf("secret %s: %w", name, err)
		}
		setup.Secrets[name] = value
		seen[name] = sha256.Sum256(value.Reveal())
	}
	text, err := json.Marshal([]any{p.Farm, d, p.Settings, p.Commands, p.Helper, seen})
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(text)
	w.mu.Lock()
	defer w.mu.Unlock()
	if made, ok := w.writers[id]; ok {
		return made, nil
	}
	made, err := w.providers[i].New(ctx, setup)
	if err == nil {
		w.writers[id] = made
	}
	return made, err
}

// names asks DNS as the farm says.
func dnsOf(s store.Settings, resolversOnly bool) lookup.Client {
	return lookup.Client{Resolvers: s.Resolvers, Recursive: resolversOnly}
}
