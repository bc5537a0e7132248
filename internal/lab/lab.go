package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
)

// Options says what to start.
type Options struct {
	Layout
	File FarmFile          // Directory, Profile and Roots are filled in
	CA   issuetest.Options // DNS and HTTPPort are filled in
	Controlling
}

// Controlling is how the controller is started; it may be another way each time.
type Controlling struct {
	Log   *slog.Logger
	Store store.Options
	// Adjust may change the controller's parts before it starts; nil: nothing.
	Adjust func(*controller.Config)
}

// A Lab is a whole farm in one process: the machines, a CA, and a controller
// with its store.
type Lab struct {
	*Machines
	CA         *issuetest.CA
	Controller *controller.Controller
	Farm       string // name in farm.yaml
	Site       string
	FarmFile   string // path of farm.yaml

	store     *store.Store
	lines     io.Closer
	challenge *http.Server
	stop      context.CancelFunc
	done      chan error
}

// The names in the lab's farm.yaml.
const (
	farmName = "lab"
	siteName = "shop"
	profile  = "default"
)

// Pace of the lab: so quick that one can watch.
var pace = controller.Pace{Look: 2 * time.Second, Late: 500 * time.Millisecond, Retry: time.Minute, Lease: 20 * time.Second}

// Start starts everything and the controller's work; nothing is applied yet.
func Start(ctx context.Context, o Options) (*Lab, error) {
	l := &Lab{Farm: farmName, Site: siteName}
	if err := l.start(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("start the lab: %w", err), l.Close())
	}
	return l, nil
}

func (l *Lab) start(ctx context.Context, o Options) (err error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return err
	}
	if l.Machines, err = StartMachines(o.Layout); err != nil {
		return err
	}
	o.CA.DNS = l.DNS.Addr()
	if o.CA.HTTPPort, err = portNumber(l.Balancer.HTTPAddr()); err != nil {
		return err
	}
	if len(o.CA.Profiles) == 0 {
		o.CA.Profiles = map[string]time.Duration{profile: 90 * 24 * time.Hour}
	}
	if l.CA, err = issuetest.Start(o.CA); err != nil {
		return err
	}
	o.File.Directory, o.File.Profile, o.File.Roots = l.CA.Directory, profile, l.CA.ListenRoots+l.CA.Roots
	if l.FarmFile, err = l.WriteFarm(o.File); err != nil {
		return err
	}
	return l.StartController(ctx, o.Controlling)
}

func portNumber(addr string) (int, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(port)
}

// StartController starts the controller over the lab's store, and leads the
// challenge path of the balancer to it.
func (l *Lab) StartController(ctx context.Context, how Controlling) (err error) {
	state := filepath.Join(l.Layout.Dir, "controller")
	if l.store, err = store.Open(ctx, filepath.Join(state, "certfarm.db"), how.Store); err != nil {
		return err
	}
	keys, err := secret.Load(secret.Source{File: filepath.Join(state, "master.key")})
	if err != nil {
		return err
	}
	c, lines := controller.Real(l.store, keys, how.Log)
	l.lines = lines
	c.InPlace, c.Pace = true, pace
	port, err := portNumber(l.Balancer.HTTPAddr())
	if err != nil {
		return err
	}
	c.CAPort = port
	if l.Vault != nil {
		k := l.Vault.kind()
		c.Kinds[k.Name] = k
	}
	if how.Adjust != nil {
		how.Adjust(&c)
	}
	l.Controller = controller.New(c)
	if err := l.answer(ctx); err != nil {
		return err
	}
	ctx, l.stop = context.WithCancel(context.WithoutCancel(ctx))
	l.done = make(chan error, 1)
	go func() { l.done <- l.Controller.Run(ctx) }()
	return nil
}

// StopController ends the controller and closes its store; the machines and the
// CA go on.
func (l *Lab) StopController() error {
	var errs []error
	if l.stop != nil {
		l.stop()
		errs = append(errs, <-l.done)
		l.stop = nil
	}
	if l.challenge != nil {
		errs = append(errs, l.challenge.Close())
	}
	for _, c := range []io.Closer{l.lines, l.store} {
		if !isNil(c) {
			errs = append(errs, c.Close())
		}
	}
	l.lines, l.store, l.challenge = nil, nil, nil
	return errors.Join(errs...)
}

// answer serves the controller's answers to the CA's questions.
func (l *Lab) answer(ctx context.Context) error {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: l.Controller.ChallengeHandler(), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }() // always an error: Close was called
	l.challenge = server
	l.Balancer.RouteChallenges(listener.Addr().String())
	return nil
}

// Apply applies the lab's farm.yaml.
func (l *Lab) Apply(ctx context.Context) (controller.Plan, error) {
	text, err := os.ReadFile(l.FarmFile)
	if err != nil {
		return controller.Plan{}, err
	}
	p, err := l.Controller.Plan(ctx, text, l.FarmFile)
	if err != nil {
		return p, err
	}
	return l.Controller.Apply(ctx, text, l.FarmFile, "lab", p.Revision)
}

// Close ends everything, the controller first.
func (l *Lab) Close() error {
	errs := []error{l.StopController()}
	for _, c := range []io.Closer{l.CA, l.Machines} {
		if !isNil(c) {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

func isNil(c io.Closer) bool {
	switch c := c.(type) {
	case nil:
		return true
	case *store.Store:
		return c == nil
	case *issuetest.CA:
		return c == nil
	case *Machines:
		return c == nil
	}
	return false
}

// A Witness is what a node, or a reader, of the lab was seen to serve, by the lab itself and
// not by the controller: the proof of what the controller says.
type Witness struct {
	Node   string `json:"node"`
	Serves string `json:"serves,omitempty" doc:"fingerprint; empty: nothing"`
	Error  string `json:"error,omitempty"`
}

// Witness asks each machine that serves the site what it serves.
func (l *Lab) Witness(ctx context.Context) []Witness {
	var all []Witness
	for _, n := range l.Parts() {
		if n.HTTPSAddr() == "" {
			continue
		}
		w := Witness{Node: n.Name()}
		fingerprint, err := Serving(ctx, n.HTTPSAddr(), l.Layout.Names[0])
		if w.Serves = fingerprint; err != nil {
			w.Error = err.Error()
		}
		all = append(all, w)
	}
	return all
}
