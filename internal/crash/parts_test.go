package crash

import (
	"context"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
	"github.com/certfarm/certfarm/internal/notify"
	"github.com/certfarm/certfarm/internal/probe"
	"github.com/certfarm/certfarm/internal/prove"
	"github.com/certfarm/certfarm/internal/prove/dns01"
	"github.com/certfarm/certfarm/internal/prove/http01"
)

// equip puts the life between a controller and everything outside of it. Changed
// is called after each change on a node, with the node's name.
func (l *life) equip(c *controller.Config, changed func(node string)) {
	hosts := c.Hosts
	c.Hosts = func(ctx context.Context, farmName string, n farm.Node, back controller.Context) (host.Host, error) {
		h, err := hosts(ctx, farmName, n, back)
		if err != nil {
			return nil, err
		}
		m := mortalHost{h, l, n.Name, changed}
		if links, ok := h.(host.Linker); ok {
			return mortalLinker{m, links}, l.alive()
		}
		return m, l.alive()
	}
	issuers := c.Issuers
	c.Issuers = func(ctx context.Context, ic controller.IssuerConfig) (controller.Account, error) {
		a, err := issuers(ctx, ic)
		if err == nil {
			err = l.alive()
		}
		return a, err // its requests are cut at the CA
	}
	solver := c.Solver
	c.Solver = func(ctx context.Context, p controller.Proving, cc controller.Context) (prove.Solver, error) {
		s, err := solver(ctx, p, cc)
		return mortalSolver{s, l}, err
	}
	c.Prober = mortalProber{c.Prober, l}
	c.Notifier = mortalNotifier{c.Notifier, l}
	ask := c.Asker
	c.Asker = func(ctx context.Context, a http01.Ask) []http01.Finding {
		all, _ := read(l, "preflight", func() ([]http01.Finding, error) { return ask(ctx, a), nil })
		return all
	}
}

// mortalHost is a node as a controller that may die has it.
type mortalHost struct {
	host.Host
	life    *life
	node    string
	changed func(node string)
}

// names of folders that differ from run to run.
var epochs = regexp.MustCompile(`[0-9]{6,}-[0-9a-z]+`)
var hashes = regexp.MustCompile(`[0-9a-f]{12,}`)

func (h mortalHost) step(verb, name string) string {
	name = hashes.ReplaceAllString(epochs.ReplaceAllString(name, "VERSION"), "TARGET")
	return h.node + " " + verb + " " + name
}

func (h mortalHost) change(verb, name string, do func() error) error {
	_, err := effect(h.life, h.step(verb, name), func() (struct{}, error) {
		err := do()
		h.changed(h.node)
		return struct{}{}, err
	})
	return err
}

func (h mortalHost) Read(ctx context.Context, name string) ([]byte, error) {
	return read(h.life, h.step("read", name), func() ([]byte, error) { return h.Host.Read(ctx, name) })
}

func (h mortalHost) List(ctx context.Context, folder string) ([]host.Entry, error) {
	return read(h.life, h.step("list", folder), func() ([]host.Entry, error) { return h.Host.List(ctx, folder) })
}

func (h mortalHost) Write(ctx context.Context, name string, data []byte, a host.Attr) error {
	return h.change("write", name, func() error { return h.Host.Write(ctx, name, data, a) })
}

func (h mortalHost) Rename(ctx context.Context, from, to string) error {
	return h.change("rename", from+" "+to, func() error { return h.Host.Rename(ctx, from, to) })
}

func (h mortalHost) Remove(ctx context.Context, name string) error {
	return h.change("remove", name, func() error { return h.Host.Remove(ctx, name) })
}

func (h mortalHost) Run(ctx context.Context, argv []string, stdin []byte) (output []byte, err error) {
	err = h.change("run", strings.Join(argv, " "), func() error {
		output, err = h.Host.Run(ctx, argv, stdin)
		return err
	})
	return output, err
}

func (h mortalHost) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if err := h.life.alive(); err != nil {
		return nil, err
	}
	return h.Host.Dial(ctx, network, address)
}

// mortalLinker is a mortalHost with symlinks.
type mortalLinker struct {
	mortalHost
	links host.Linker
}

func (h mortalLinker) Link(ctx context.Context, target, name string) error {
	return h.change("link", target+" "+name, func() error { return h.links.Link(ctx, target, name) })
}

func (h mortalLinker) Readlink(ctx context.Context, name string) (string, error) {
	return read(h.life, h.step("readlink", name), func() (string, error) { return h.links.Readlink(ctx, name) })
}

func (h mortalLinker) Mkdir(ctx context.Context, name string, a host.Attr) error {
	return h.change("mkdir", name, func() error { return h.links.Mkdir(ctx, name, a) })
}

// mortalSolver puts up answers for a controller that may die.
type mortalSolver struct {
	prove.Solver
	life *life
}

func (s mortalSolver) Present(ctx context.Context, c farm.Challenge) (prove.Receipt, error) {
	return effect(s.life, "solver present", func() (prove.Receipt, error) { return s.Solver.Present(ctx, c) })
}

func (s mortalSolver) Ready(ctx context.Context, c farm.Challenge, r prove.Receipt) (bool, error) {
	return read(s.life, "solver ready", func() (bool, error) { return s.Solver.Ready(ctx, c, r) })
}

func (s mortalSolver) CleanUp(ctx context.Context, c farm.Challenge, r prove.Receipt) error {
	_, err := effect(s.life, "solver clean up", func() (struct{}, error) { return struct{}{}, s.Solver.CleanUp(ctx, c, r) })
	return err
}

// Spread tells how far an answer of dns-01 has come.
func (s mortalSolver) Spread(ctx context.Context, r prove.Receipt) ([]dns01.Sight, error) {
	return read(s.life, "solver spread", func() ([]dns01.Sight, error) {
		return s.Solver.(interface {
			Spread(context.Context, prove.Receipt) ([]dns01.Sight, error)
		}).Spread(ctx, r)
	})
}

// mortalProber looks for a controller that may die. A look is no point: it changes
// nothing, and how many there are depends on the time.
type mortalProber struct {
	probe.Prober
	life *life
}

func (p mortalProber) Probe(ctx context.Context, q probe.Question) (farm.Sight, error) {
	if err := p.life.alive(); err != nil {
		return farm.Sight{}, err
	}
	return p.Prober.Probe(ctx, q)
}

type mortalNotifier struct {
	notify.Notifier
	life *life
}

func (n mortalNotifier) Notify(ctx context.Context, events []farm.Event) error {
	_, err := effect(n.life, "notify", func() (struct{}, error) { return struct{}{}, n.Notifier.Notify(ctx, events) })
	return err
}

// A line stands before a CA and cuts the requests of a controller that is dead,
// or that dies by them: those before their point do not reach the CA, those after
// it take effect and are not answered.
type line struct{ of atomic.Pointer[life] }

func (n *line) wrap(ca http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := &answer{header: http.Header{}}
		if err := n.of.Load().ask(r, func() { ca.ServeHTTP(answer, r) }); err != nil {
			panic(http.ErrAbortHandler)
		}
		answer.send(w)
	})
}

// ask is a request to the CA. All that is signed is a POST (RFC 8555 §6.3); what
// only fetches by it is no step.
func (l *life) ask(r *http.Request, serve func()) error {
	at := issuetest.EndpointOf(r)
	do := func() (struct{}, error) { serve(); return struct{}{}, nil }
	var err error
	switch {
	case r.Method != http.MethodPost: // the directory, a nonce, renewal information
		err = l.alive()
		serve()
	case slices.Contains([]issuetest.Endpoint{issuetest.Order, issuetest.Authz, issuetest.Certificate}, at):
		_, err = read(l, "ca "+string(at), do)
	default:
		_, err = effect(l, "ca "+string(at), do)
	}
	return err
}

// answer keeps what a handler answers until it is known that it is sent.
type answer struct {
	header http.Header
	status int
	body   []byte
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	a.body = append(a.body, b...)
	return len(b), nil
}

func (a *answer) send(w http.ResponseWriter) {
	maps.Copy(w.Header(), a.header)
	a.WriteHeader(http.StatusOK)
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // a client that has gone is told nothing
}
