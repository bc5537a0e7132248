package lab

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// web is a node's web server, which the node's commands know as webd. Like
// nginx it reads its certificate files when it starts and when it is told to
// reload, and at no other time; a reload that fails leaves it as it was; what
// is connected goes on with the certificate that it began with.
//
//	stopped ── start ──→ running ── reload ──→ running
//	   └───── stop ─────────┘
type web struct {
	c      webConfig
	gate   *gate
	server *http.Server
	log    *log.Logger
	wg     sync.WaitGroup
	turn   chan struct{} // held by the command that runs

	mu      sync.Mutex
	running bool
	powered bool
	workers []worker
	fault   Kind
	known   []string // leaves that were served when the fault was set
}

// webConfig is what a web is made of.
type webConfig struct {
	name    string
	read    func() (shelf, error) // what it serves, read anew
	workers int
	reload  time.Duration // how long a reload takes
	cutOver time.Duration // how long after it the last worker has changed
	rtt     time.Duration
	log     io.Writer
	died    func() // the fault dies-for-good has struck
}

// A worker serves connections with what it has loaded. It changes over at a
// time of its own.
type worker struct {
	serves, next *content
	at           time.Time
}

func (w *worker) content(now time.Time) *content {
	if w.next != nil && !now.Before(w.at) {
		return w.next
	}
	return w.serves
}

// newWeb makes a web server that is stopped.
func newWeb(c webConfig) (*web, error) {
	g, err := newGate(c.rtt)
	if err != nil {
		return nil, err
	}
	g.shut()
	w := &web{
		c: c, gate: g, powered: true, log: log.New(c.log, "", log.LstdFlags),
		turn: make(chan struct{}, 1), workers: make([]worker, max(1, c.workers)),
	}
	w.server = &http.Server{
		Handler: page(c.name), ErrorLog: quiet(), ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: w.pick},
	}
	w.wg.Go(func() { _ = w.server.ServeTLS(g, "", "") })
	return w, nil
}

// page names the node that answers, and has nothing else: a challenge that
// ends up here gets a 404.
func page(name string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = fmt.Fprintf(w, "served by %s\n", name)
	})
	return mux
}

// pick gives a connection to one of the workers, as the kernel does: by chance.
func (w *web) pick(*tls.ClientHelloInfo) (*tls.Config, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.workers[rand.IntN(len(w.workers))].content(time.Now())
	if c == nil {
		return nil, errors.New("the server is stopped")
	}
	return c.config, nil
}

// check is `webd -t`: it loads what a reload would load.
func (w *web) check(context.Context) error {
	_, err := w.c.read()
	return err
}

// start is `webd start`.
func (w *web) start(ctx context.Context) error { return w.command(ctx, w.startNow) }

// reload is `webd reload`.
func (w *web) reload(ctx context.Context) error {
	return w.command(ctx, func() error {
		if err := wait(ctx, w.c.reload); err != nil {
			return err
		}
		return w.reloadNow()
	})
}

// stop is `webd stop`.
func (w *web) stop(ctx context.Context) error {
	return w.command(ctx, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.running {
			return errNoServer
		}
		w.halt("stopped")
		return nil
	})
}

// errNoServer is what nginx says where its pid file is missing.
var errNoServer = errors.New(`open() "/run/webd.pid" failed (2: No such file or directory)`)

// command runs one command at a time.
func (w *web) command(ctx context.Context, run func() error) error {
	select {
	case w.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-w.turn }()
	err := run()
	if err != nil {
		w.log.Printf("[emerg] %v", err)
	}
	return err
}

func (w *web) startNow() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running {
		return fmt.Errorf("bind() to %s failed (98: Address already in use)", w.gate.addr)
	}
	if err := w.launch(); err != nil {
		return err
	}
	w.strike()
	return nil
}

// launch loads the files and opens the port.
func (w *web) launch() error {
	c, err := w.load()
	if err != nil {
		return err
	}
	for i := range w.workers {
		w.workers[i] = worker{serves: c}
	}
	if err := w.gate.open(); err != nil {
		return fmt.Errorf("bind() to %s failed: %w", w.gate.addr, err)
	}
	w.running = true
	w.log.Printf("[notice] started, serving %s", c)
	return nil
}

func (w *web) reloadNow() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.running {
		return errNoServer
	}
	if w.fault == BadReload {
		w.log.Printf("[notice] signal 1 (SIGHUP) received, reconfiguring")
		return nil
	}
	c, err := w.load()
	if err != nil {
		return err
	}
	if w.fault == DiesOnReload {
		w.halt("worker process exited on signal 11")
		return nil
	}
	now := time.Now()
	for i := range w.workers {
		old := w.workers[i].content(now)
		lag := w.c.cutOver * time.Duration(i+1) / time.Duration(len(w.workers))
		w.workers[i] = worker{serves: old, next: c, at: now.Add(lag)}
	}
	w.log.Printf("[notice] reconfigured, serving %s", c)
	w.strike()
	return nil
}

// load reads the files into what a worker serves. Each load has session ticket
// keys of its own, so that no client resumes what was served before.
func (w *web) load() (*content, error) {
	s, err := w.c.read()
	if err != nil {
		return nil, err
	}
	if w.fault == WrongChain {
		for i := range s.certs {
			if err := w.misguide(&s.certs[i]); err != nil {
				return nil, err
			}
		}
	}
	return s.content(), nil
}

// misguide puts a foreign CA in the place of a new leaf's chain.
func (w *web) misguide(c *tls.Certificate) error {
	if slices.Contains(w.known, farm.Fingerprint(c.Certificate[0])) {
		return nil
	}
	ca, _, err := selfSigned("A CA of Somebody Else", true)
	if err != nil {
		return err
	}
	c.Certificate = [][]byte{c.Certificate[0], ca}
	return nil
}

// strike ends the node where that is its fault.
func (w *web) strike() {
	if w.fault == DiesForGood {
		w.c.died()
	}
}

// halt ends the server process: the port refuses, connections are cut.
func (w *web) halt(why string) {
	w.running = false
	w.gate.shut()
	for i := range w.workers {
		w.workers[i] = worker{}
	}
	w.log.Printf("[notice] %s", why)
}

// setFault makes the server misbehave from now on; none mends it.
func (w *web) setFault(k Kind) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = k
	w.known = nil
	if c := w.workers[0].content(time.Now()); c != nil {
		w.known = c.leaves
	}
}

// power is what happens to the machine below the server. When it comes back, a
// server that ran is started again and reads its files, as at boot; the error
// says that it cannot take its port yet.
func (w *web) power(on bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case on == w.powered:
	case !on:
		w.powered = false
		w.gate.shut()
	case w.running:
		if err := w.gate.open(); err != nil {
			return err
		}
		w.powered = true
		if err := w.launch(); err != nil {
			w.halt(err.Error())
		}
	default:
		w.powered = true
	}
	return nil
}

// address is where it listens.
func (w *web) address() string { return w.gate.addr }

// up reports whether the server runs.
func (w *web) up() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.running && w.powered
}

func (w *web) close() error {
	err := errors.Join(w.server.Close(), w.gate.Close())
	w.wg.Wait()
	return err
}

// wait returns after d, or with the context's error if that ends before.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
