package lab

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"time"
)

// challengePath begins the path that a CA asks for (RFC 8555 §8.3).
const challengePath = "/.well-known/acme-challenge/"

// A Backend is a node as the balancer sees it.
type Backend struct {
	Name  string
	HTTP  string // host:port
	HTTPS string // host:port
}

// A Balancer is the farm's front: round robin over the nodes, for HTTP by
// request and for HTTPS by connection, which it passes through unopened. It
// checks no health, and like a real one goes on to the next node where one
// refuses the connection.
type Balancer struct {
	http, https *gate
	server      *http.Server
	backends    []Backend
	plain       *ring
	secure      *ring

	mu         sync.Mutex
	challenges string // host:port of the controller; empty: no such route

	done   context.Context // until Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// NewBalancer starts a balancer in front of the nodes, without a challenge route.
func NewBalancer(backends []Backend) (*Balancer, error) {
	b := &Balancer{backends: backends, plain: newRing(), secure: newRing()}
	for _, be := range backends {
		b.plain.add(be.Name, be.HTTP)
		b.secure.add(be.Name, be.HTTPS)
	}
	var err error
	if b.http, err = newGate(0); err != nil {
		return nil, err
	}
	if b.https, err = newGate(0); err != nil {
		return nil, errors.Join(err, b.http.Close())
	}
	b.done, b.cancel = context.WithCancel(context.Background())
	b.server = &http.Server{Handler: b.routes(), ErrorLog: quiet(), ReadHeaderTimeout: 10 * time.Second}
	b.wg.Go(func() { _ = b.server.Serve(b.http) })
	b.wg.Go(b.passThrough)
	return b, nil
}

// HTTPAddr is host:port of the HTTP listener: where a CA's question arrives.
func (b *Balancer) HTTPAddr() string { return b.http.addr }

// HTTPSAddr is host:port of the HTTPS listener.
func (b *Balancer) HTTPSAddr() string { return b.https.addr }

// RouteChallenges sends the challenge path to the controller's responder at
// host:port. Empty takes the route away: then any node is asked, which is the
// wrong configuration to rehearse.
func (b *Balancer) RouteChallenges(responder string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.challenges = responder
}

// Requests counts the HTTP requests that each node was given.
func (b *Balancer) Requests() map[string]int { return b.plain.counts() }

// Connections counts the HTTPS connections that each node was given.
func (b *Balancer) Connections() map[string]int { return b.secure.counts() }

// routes is the HTTP side. Each request to a node is a connection of its own,
// so that the order rotates by request.
func (b *Balancer) routes() http.Handler {
	nodes := proxy(func(ctx context.Context, _, _ string) (net.Conn, error) { return b.plain.dial(ctx) })
	controller := proxy(func(ctx context.Context, network, _ string) (net.Conn, error) {
		b.mu.Lock()
		to := b.challenges
		b.mu.Unlock()
		return new(net.Dialer).DialContext(ctx, network, to)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		routed := b.challenges != ""
		b.mu.Unlock()
		if routed && strings.HasPrefix(r.URL.Path, challengePath) {
			controller.ServeHTTP(w, r)
			return
		}
		nodes.ServeHTTP(w, r)
	})
}

// proxy passes requests on as they are, over what dial connects to.
func proxy(dial func(context.Context, string, string) (net.Conn, error)) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", r.In.Host
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true, DisableCompression: true},
		ErrorLog:  quiet(),
	}
}

func (b *Balancer) passThrough() {
	for {
		front, err := b.https.Accept()
		if err != nil {
			return // Close
		}
		b.wg.Go(func() {
			defer func() { _ = front.Close() }()
			back, err := b.secure.dial(b.done)
			if err != nil {
				return // no node is up: the client sees a closed connection
			}
			defer func() { _ = back.Close() }()
			b.splice(front, back)
		})
	}
}

// splice copies both ways until both have ended, or the balancer closes.
func (b *Balancer) splice(front, back net.Conn) {
	stop := context.AfterFunc(b.done, func() {
		_ = front.Close()
		_ = back.Close()
	})
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { oneWay(back, front) })
	both.Go(func() { oneWay(front, back) })
	both.Wait()
}

func oneWay(to, from net.Conn) {
	if _, err := io.Copy(to, from); err != nil {
		_ = to.Close() // cut off on one side: cut off on the other
		return
	}
	if h, ok := to.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
	}
}

// Close ends the balancer, cuts what is connected, and waits.
func (b *Balancer) Close() error {
	b.cancel()
	err := errors.Join(b.server.Close(), b.http.Close(), b.https.Close())
	b.wg.Wait()
	return err
}

// quiet drops what net/http would print: a handshake that fails is what the lab is about.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }
