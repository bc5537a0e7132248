package deploytest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/hosttest"
)

// A Practice runs the contract on a person's own machine: in the shadow place of a
// target, on the real host or service, with its calls cut as in every test. What is
// live is not touched, and the place is taken away in the end, whatever happens.
type Practice struct {
	Kinds   deploy.Kinds
	Kind    string
	Options []byte       // of the target, found right by its kind
	Setup   deploy.Setup // of the target; its records are not used
	Mark    string       // see deploy.Trial
	Reload  bool         // the server may be reloaded, again and again
	// Told is called after each rule; nil: nobody is told.
	Told func(Outcome)

	mu     sync.Mutex
	known  map[string]farm.Bundle
	opened map[[sha256.Size]byte][2][]byte
	used   []deploy.Place // places that are no files: each rule has new ones
	rounds int
}

// An Outcome is what came of one rule.
type Outcome struct {
	Rule    string        `json:"rule"`
	Result  string        `json:"result" enum:"kept,broken,not-for-it,not-run"`
	Details []string      `json:"details,omitempty"`
	Took    time.Duration `json:"took"`
}

// The results of a rule.
const (
	Kept     = "kept"
	Broken   = "broken"
	NotForIt = "not-for-it" // the kind has nothing that the rule is about
	NotRun   = "not-run"    // the run was stopped before
)

// clearWithin is how long taking the place away may take in the end.
const clearWithin = 2 * time.Minute

// Places are the shadow places that Run uses, for a person to assent to. An error
// that is deploy.ErrNoShadow says that the kind cannot be tried so.
func (p *Practice) Places() ([]deploy.Place, error) {
	first, err := p.shadow("first")
	if err != nil {
		return nil, err
	}
	return []deploy.Place{first}, nil
}

// Reach looks at the place once, before all rules do: what cannot be reached, lets
// nobody log in, or has nothing of what the kind asks for, is an error now. Asked again
// by every rule, a wrong password would lock the account. So is a server whose configuration does not pass its own test: no
// rule would tell anything. That error is deploy.ErrTest.
func (p *Practice) Reach(ctx context.Context) error {
	place, err := p.shadow("first")
	if err != nil {
		return err
	}
	setup := p.Setup
	setup.Look = nil
	d, err := place.Open(setup)
	if err == nil {
		_, err = d.Inspect(ctx)
		if c, ok := d.(io.Closer); ok {
			err = errors.Join(err, c.Close())
		}
	}
	if errors.Is(err, host.ErrUnreachable) || err != nil && len(place.Make) == 0 {
		return err
	}
	return p.passes(ctx, place.Test) // where a folder is to be made first, the rules say better what else there is
}

// passes runs a config test as the deployers will.
func (p *Practice) passes(ctx context.Context, test []string) error {
	if len(test) == 0 || p.Setup.Host == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, clearWithin)
	defer cancel()
	if _, err := p.Setup.Host.Run(ctx, test, nil); err != nil {
		return fmt.Errorf("%w: %w", deploy.ErrTest, err)
	}
	return nil
}

func (p *Practice) shadow(name string) (deploy.Place, error) {
	return p.Kinds.Shadow(p.Kind, p.Options, deploy.Trial{Mark: p.Mark, Names: Names, Apart: true, Place: name, Reload: p.Reload})
}

// Run runs the rules; with some names, only those. When ctx ends, so does the rule
// that runs; the rest is not run. The error says that the place could not be taken
// away.
func (p *Practice) Run(ctx context.Context, only ...string) (all []Outcome, err error) {
	places, err := p.Places()
	if err != nil {
		return nil, err
	}
	if p.Setup.Host == nil && places[0].Files != nil { // one way for all rules
		files, err := places[0].Files(p.Setup)
		if err != nil {
			return nil, err
		}
		if c, ok := files.(io.Closer); ok {
			defer c.Close()
		}
		p.Setup.Host = unlinked{files, nil}
	}
	p.known, p.opened = map[string]farm.Bundle{}, map[[sha256.Size]byte][2][]byte{}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clearWithin)
		defer cancel()
		err = errors.Join(err, p.clear(ctx))
	}()
	r := &Rehearsal{ctx: ctx, only: only, told: func(o Outcome) {
		all = append(all, o)
		if p.Told != nil {
			p.Told(o)
		}
	}}
	Run(r, p.fresh)
	return all, nil
}

// clear takes all places away.
func (p *Practice) clear(ctx context.Context) error {
	var errs []error
	for _, place := range p.used {
		errs = append(errs, place.Clear(ctx, p.Setup))
	}
	return errors.Join(errs...)
}

// fresh makes a bench of the shadow place as if nothing had ever been there.
func (p *Practice) fresh(t *Rehearsal) Bench {
	first, err := p.shadow("first")
	must(t, err)
	b := Bench{Host: &hosttest.Faulty{Linked: nowhere{}}, Bare: first.Bare}
	if len(first.Live) > 0 || p.Setup.Host != nil {
		files, err := first.Folder(p.Setup)
		must(t, err)
		b.Host.Linked = linkedOf(files, p.Setup.Host)
	}
	if len(first.Live) == 0 {
		return p.service(t, b)
	}
	b.Target = p.target(t, b, "first")
	b.Second = p.target(t, b, "second")
	for _, place := range p.used {
		must(t, place.Empty(t.Context(), p.Setup))
	}
	for _, place := range p.used {
		must(t, place.Prepare(t.Context(), p.Setup))
	}
	b.Test, b.Reload = commands(first.Raw)
	if first.Unpack != nil {
		b.Open = func(data []byte) (chain, key []byte, err error) { return p.open(first, data) }
	}
	b.Plain = p.plain(b, first)
	return b
}

// target opens the deployer of a shadow place, over the faults of the bench.
func (p *Practice) target(t T, b Bench, name string) Target {
	place, err := p.shadow(name)
	must(t, err)
	if !slices.ContainsFunc(p.used, func(u deploy.Place) bool { return bytes.Equal(u.Raw, place.Raw) }) {
		p.used = append(p.used, place)
	}
	d, err := place.Open(p.setup(b))
	must(t, err)
	return Target{Deployer: d, Keys: []farm.KeyType{farm.EC256}, Live: place.Live}
}

// setup is the target's, with the faults of the bench before it.
func (p *Practice) setup(b Bench) deploy.Setup {
	s := p.Setup
	s.Host, s.Look = b.Host, nil
	s.Records.Bundle = func(_ context.Context, leaf string) (farm.Bundle, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		c, ok := p.known[leaf]
		if !ok {
			return c, errors.New("it is none of this run's")
		}
		return c, nil
	}
	s.Wire = func(over http.RoundTripper) http.RoundTripper { return wire{b.Host, over} }
	return s
}

// service is the bench of a kind that is no files, on a node or not: a place that is
// as new is one of another name, since vaults keep the names of what is deleted.
func (p *Practice) service(t T, b Bench) Bench {
	d := &renewed{}
	b.Target = Target{Deployer: d, Keys: []farm.KeyType{farm.EC256}}
	b.Empty = func(t T) {
		p.rounds++
		next := p.target(t, b, strconv.Itoa(p.rounds))
		d.set(next.Deployer, p.remember)
	}
	b.Empty(t)
	return b
}

func (p *Practice) remember(s deploy.Stage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range s.Bundles {
		p.known[farm.LeafFingerprint(c.Chain)] = c
	}
}

// open opens a live file, each content once: it is slow by design.
func (p *Practice) open(place deploy.Place, data []byte) (chain, key []byte, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	sum := sha256.Sum256(data)
	if both, ok := p.opened[sum]; ok {
		return both[0], both[1], nil
	}
	chain, key, err = place.Unpack(p.Setup, data)
	if err == nil {
		p.opened[sum] = [2][]byte{chain, key}
	}
	return chain, key, err
}

// plain puts files at the live paths, as a person does who was there before us.
func (p *Practice) plain(b Bench, place deploy.Place) func(T, Target, farm.Bundle) {
	return func(t T, of Target, c farm.Bundle) {
		put := func(name string, data []byte) {
			must(t, b.Host.Linked.Mkdir(t.Context(), folderOf(name), host.Attr{Mode: 0o755}))
			must(t, b.Host.Linked.Write(t.Context(), name, data, host.Attr{Mode: 0o600}))
		}
		whole := slices.Concat(c.Chain, c.Key.Reveal())
		if place.Pack != nil {
			var err error
			whole, err = place.Pack(p.Setup, c)
			must(t, err)
		}
		for _, pair := range of.Live {
			if pair[0] == pair[1] {
				put(pair[0], whole)
				continue
			}
			put(pair[0], c.Chain)
			put(pair[1], c.Key.Reveal())
		}
	}
}

func folderOf(name string) string { return name[:max(strings.LastIndexByte(name, '/'), 0)] }

// wire sends HTTP requests through the faults of a bench.
type wire struct {
	faults *hosttest.Faulty
	over   http.RoundTripper
}

type requestKey struct{}

// RoundTrip is http.RoundTripper's.
func (w wire) RoundTrip(r *http.Request) (answer *http.Response, err error) {
	ctx := context.WithValue(r.Context(), requestKey{}, func() (err error) {
		answer, err = w.over.RoundTrip(r) //nolint:bodyclose // whoever asked closes it
		return err
	})
	if _, err := w.faults.Run(ctx, []string{r.Method, r.URL.Path}, nil); err != nil {
		return nil, err
	}
	return answer, nil
}

// nowhere is the host of a service: all that it runs are requests.
type nowhere struct{ hosttest.Linked }

// Run sends the request that the context holds.
func (nowhere) Run(ctx context.Context, argv []string, _ []byte) ([]byte, error) {
	send, ok := ctx.Value(requestKey{}).(func() error)
	if !ok {
		return nil, fmt.Errorf("running %q: this target has no node", argv)
	}
	return nil, send()
}

// linkedOf is the way to files as benches have it. A host without symlinks, or a share,
// has none; and a share has no commands.
func linkedOf(files deploy.Folder, h host.Host) hosttest.Linked {
	if l, ok := files.(hosttest.Linked); ok {
		return l
	}
	return unlinked{files, h}
}

type unlinked struct {
	deploy.Folder
	host host.Host // nil: there are only files
}

// Readlink says that nothing is a link.
func (unlinked) Readlink(context.Context, string) (string, error) { return "", host.ErrNotLink }

// Link makes none.
func (unlinked) Link(_ context.Context, _, name string) error {
	return fmt.Errorf("making %s a symlink: %w", name, errors.ErrUnsupported)
}

// Run runs a command on the node, if there is one.
func (u unlinked) Run(ctx context.Context, argv []string, stdin []byte) ([]byte, error) {
	if u.host == nil {
		return nil, fmt.Errorf("running %q: %w", argv, errors.ErrUnsupported)
	}
	return u.host.Run(ctx, argv, stdin)
}

// Dial connects from the node, if there is one.
func (u unlinked) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if u.host == nil {
		return nil, fmt.Errorf("connecting to %s: %w", address, errors.ErrUnsupported)
	}
	return u.host.Dial(ctx, network, address)
}

var _ hosttest.Linked = unlinked{}
