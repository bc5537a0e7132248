// Package door is where agents come to the controllers: a listener of its own, under
// TLS with certificates of a CA of its own, with nothing behind it but what agents
// need.
//
//	agent ── TLS, its own key ──▶ who has this key? ─▶ banned? copied? ─▶ route ─▶ controller
//
// What holds at all times: an agent is known by the key that it proved in the
// handshake, and nothing that it says names its node or farm, so that it can ask for no
// other's; every body is bounded before it is read, and every request in time.
package door

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"github.com/certfarm/certfarm/internal/controller"
)

// Config is what a door takes.
type Config struct {
	Controller *controller.Controller
	Address    string        // host:port to listen at
	Log        *slog.Logger  // nil: nothing is written
	Poll       time.Duration // how long an agent that has nothing to do is kept waiting; 0: 25 s
	Header     time.Duration // within which a request's head must come, and the handshake; 0: 10 s
	Joins      int           // that may fail in a minute from one address; 0: 30
}

// The bounds of a door.
const (
	pollFor      = 25 * time.Second
	headerWithin = 10 * time.Second
	bodySlack    = 10 * time.Second // for a body, beside the time of a poll
	writeSlack   = 30 * time.Second
	idleFor      = 2 * time.Minute
	closeWithin  = 5 * time.Second
	maxHeader    = 16 << 10
	maxBody      = 64 << 10 // of all but answers, which have a bound of their own
	maxLines     = 20000    // open connections
	maxStreams   = 32       // requests at once on one connection
	failedJoins  = 30       // a minute, from one address
	allJoins     = 1200     // a minute, from everywhere
)

// A Door is open.
type Door struct {
	config   Config
	listener net.Listener
	server   *http.Server
	joins    *rate

	mu   sync.Mutex
	cert *tls.Certificate
	by   string // the pin of the CA that signed it
}

// Listen opens the door. Serve answers.
func Listen(ctx context.Context, c Config) (*Door, error) {
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	c.Poll, c.Header, c.Joins = cmp.Or(c.Poll, pollFor), cmp.Or(c.Header, headerWithin), cmp.Or(c.Joins, failedJoins)
	d := &Door{config: c, joins: &rate{each: c.Joins, all: allJoins, now: c.Controller.Now}}
	if _, err := d.certificate(ctx); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", c.Address)
	if err != nil {
		return nil, fmt.Errorf("listen for agents: %w", err)
	}
	d.listener = netutil.LimitListener(l, maxLines)
	d.server = &http.Server{
		Handler: d.routes(), ReadHeaderTimeout: c.Header, ReadTimeout: c.Poll + bodySlack, WriteTimeout: c.Poll + writeSlack,
		IdleTimeout: idleFor, MaxHeaderBytes: maxHeader,
		HTTP2:    &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog: slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS13,
			// One that joins has no certificate yet, and one whose ended may still renew
			// it: who it is, is looked at in each route (see Door.agent).
			ClientAuth:     tls.RequestClientCert,
			GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return d.certificate(h.Context()) },
		},
	}
	return d, nil
}

// certificate is the door's own, made anew at half its life, and when another CA signs.
func (d *Door) certificate(ctx context.Context) (*tls.Certificate, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	pins, err := d.config.Controller.AgentsPins(ctx)
	if err != nil {
		return nil, fmt.Errorf("certificate of the agents' door: %w", err)
	}
	now := d.config.Controller.Now()
	if d.cert != nil && d.by == pins[0] && now.Before(d.cert.Leaf.NotBefore.Add(d.cert.Leaf.NotAfter.Sub(d.cert.Leaf.NotBefore)/2)) {
		return d.cert, nil
	}
	cert, err := d.config.Controller.AgentsDoor(ctx)
	if err != nil {
		return nil, fmt.Errorf("certificate of the agents' door: %w", err)
	}
	d.cert, d.by = cert, pins[0]
	return cert, nil
}

// Addr is where the door is.
func (d *Door) Addr() net.Addr { return d.listener.Addr() }

// Close closes a door at which nobody serves.
func (d *Door) Close() error { return d.listener.Close() }

// Serve answers until the context ends, and then sends those home who wait.
func (d *Door) Serve(ctx context.Context) error {
	within, stop := context.WithCancel(ctx)
	defer stop()
	d.server.BaseContext = func(net.Listener) context.Context { return within }
	ended := make(chan error, 1)
	go func() { ended <- d.server.ServeTLS(d.listener, "", "") }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWithin)
	defer cancel()
	if d.server.Shutdown(grace) != nil {
		_ = d.server.Close() // who is still being answered had their moment
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
