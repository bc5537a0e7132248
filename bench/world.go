package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/certfarm/certfarm/internal/issue/issuetest"
)

// A world is a CA, a name server that sends every name below bench.test to one
// HTTP server, and that server.
type world struct {
	ca     *issuetest.CA
	dns    *issuetest.DNS
	server *http.Server
	port   int
	answer atomic.Value // http.Handler
}

// newWorld starts a CA that wants its orders polled a second after finalize, and
// refuses five good nonces in a hundred.
func newWorld() (*world, error) {
	w := &world{}
	var err error
	if w.dns, err = issuetest.StartDNS(map[string][]netip.Addr{"*.bench.test": {netip.MustParseAddr("127.0.0.1")}}); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	w.port = listener.Addr().(*net.TCPAddr).Port
	w.server = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		w.answer.Load().(http.HandlerFunc)(out, r)
	})}
	w.answers(http.NotFoundHandler())
	go func() { _ = w.server.Serve(listener) }() // always an error: Close was called
	w.ca, err = issuetest.Start(issuetest.Options{DNS: w.dns.Address, HTTPPort: w.port, RetryAfter: time.Second})
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// answers makes h answer the CA's questions.
func (w *world) answers(h http.Handler) { w.answer.Store(http.HandlerFunc(h.ServeHTTP)) }

// issued waits until the CA has seen n requests to an endpoint, for as long as
// the context allows.
func (w *world) asked(ctx context.Context, e issuetest.Endpoint, n int) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for w.ca.Stats().Requests[e] < n {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (w *world) close() error {
	var errs []error
	if w.ca != nil {
		errs = append(errs, w.ca.Close())
	}
	if w.server != nil {
		errs = append(errs, w.server.Close())
	}
	if w.dns != nil {
		errs = append(errs, w.dns.Close())
	}
	return errors.Join(errs...)
}
