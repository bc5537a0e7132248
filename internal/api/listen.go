package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/certfarm/certfarm/internal/access"
)

// Doors says where the API is served.
type Doors struct {
	Socket string       // path of a unix socket that only the same user may open; empty: none
	TCP    string       // host:port; empty: none. It needs a Gate, and TLS unless it is loopback
	Gate   *access.Gate // finds out who comes by TCP
	Web    http.Handler // what is answered by TCP beside the API, such as the dashboard; nil: nothing
	TLS    *tls.Config
	Log    *slog.Logger
}

// An Open is a set of doors that are open.
type Open struct {
	listeners []net.Listener
	handlers  []http.Handler
	log       *slog.Logger
}

// Listen opens the doors to a handler made by New.
func Listen(h http.Handler, d Doors) (o *Open, err error) {
	o = &Open{log: d.Log}
	if o.log == nil {
		o.log = slog.New(slog.DiscardHandler)
	}
	if d.Socket != "" {
		l, err := listenUnix(d.Socket)
		if err != nil {
			return nil, err
		}
		o.add(l, sameUser(h))
	}
	if d.TCP != "" {
		l, err := listenTCP(d)
		if err != nil {
			return nil, errors.Join(err, o.close())
		}
		o.add(l, d.behind(h))
	}
	return o, nil
}

func (o *Open) add(l net.Listener, h http.Handler) {
	o.listeners, o.handlers = append(o.listeners, l), append(o.handlers, h)
}

func (o *Open) close() error {
	var errs []error
	for _, l := range o.listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// Addrs are the addresses, in the order socket, TCP.
func (o *Open) Addrs() (all []net.Addr) {
	for _, l := range o.listeners {
		all = append(all, l.Addr())
	}
	return all
}

// The deadlines of a connection. Verify asks many nodes before it answers; a
// stream of events sets its own.
const (
	headerWithin = 10 * time.Second
	readWithin   = time.Minute
	writeWithin  = 5 * time.Minute
	idleFor      = 2 * time.Minute
	closeWithin  = 5 * time.Second
)

// Serve answers until the context ends, and then waits a moment for those who
// are being answered. The doors are closed when it returns.
func (o *Open) Serve(ctx context.Context) error {
	errs := make(chan error, len(o.listeners))
	// Requests end with the context, so that a stream does not hold up the end.
	within, stop := context.WithCancel(ctx)
	defer stop()
	var servers []*http.Server
	for i, l := range o.listeners {
		s := &http.Server{
			Handler: o.handlers[i], ReadHeaderTimeout: headerWithin, ReadTimeout: readWithin,
			WriteTimeout: writeWithin, IdleTimeout: idleFor, MaxHeaderBytes: 64 << 10,
			ErrorLog:    slog.NewLogLogger(o.log.Handler(), slog.LevelWarn),
			BaseContext: func(net.Listener) context.Context { return within },
		}
		servers = append(servers, s)
		go func() { errs <- s.Serve(l) }()
	}
	var failed error
	waiting := len(servers)
	if waiting > 0 {
		select {
		case <-ctx.Done():
		case failed = <-errs:
			waiting--
		}
	}
	stop()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWithin)
	defer cancel()
	for _, s := range servers {
		if s.Shutdown(grace) != nil {
			_ = s.Close() // who is still being answered had their moment
		}
	}
	for range waiting {
		if err := <-errs; !errors.Is(err, http.ErrServerClosed) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// longestSocket is what every system's sun_path holds.
const longestSocket = 103

// listenUnix makes the socket where nobody else can reach it, and only then gives
// it its name: at no time may another user open it.
func listenUnix(path string) (net.Listener, error) {
	fail := func(err error) (net.Listener, error) { return nil, fmt.Errorf("socket %s: %w", path, err) }
	if len(path) > longestSocket {
		return fail(fmt.Errorf("a socket's path has at most %d characters: choose a shorter one", longestSocket))
	}
	if c, err := net.Dial("unix", path); err == nil {
		return fail(errors.Join(errors.New("another certfarm answers there"), c.Close()))
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fail(err)
	}
	if runtime.GOOS == "windows" { // the folder's rights decide
		l, err := net.Listen("unix", path)
		return l, err
	}
	closed, err := os.MkdirTemp(filepath.Dir(path), ".s") // mode 0700
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(closed)
	hidden := filepath.Join(closed, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: hidden, Net: "unix"})
	if err != nil {
		return fail(err)
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(hidden, 0o600), os.Rename(hidden, path)); err != nil {
		return fail(errors.Join(err, l.Close()))
	}
	return &named{l, path}, nil
}

// named is a socket that was given another name than it was made with.
type named struct {
	*net.UnixListener
	path string
}

// Addr is the name.
func (n *named) Addr() net.Addr { return &net.UnixAddr{Name: n.path, Net: "unix"} }

// Close takes the name away.
func (n *named) Close() error { return errors.Join(n.UnixListener.Close(), os.Remove(n.path)) }

func listenTCP(d Doors) (net.Listener, error) {
	if d.Gate == nil {
		return nil, fmt.Errorf("listen on %s: a gate is needed, since others can connect there", d.TCP)
	}
	l, err := net.Listen("tcp", d.TCP)
	if err != nil {
		return nil, fmt.Errorf("API: %w", err)
	}
	if d.TLS != nil {
		return tls.NewListener(l, d.TLS), nil
	}
	if a, ok := l.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
		return nil, errors.Join(fmt.Errorf("listen on %s: without TLS only on loopback, since tokens would be read on the way", d.TCP), l.Close())
	}
	return l, nil
}

// ActorHeader names the person at the terminal. It is believed on the socket
// only: whoever may open that may do everything anyway.
const ActorHeader = "Certfarm-Actor"

// longestActor bounds a name in the journal.
const longestActor = 100

func sameUser(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.Header.Get(ActorHeader)
		if name == "" || len(name) > longestActor {
			name = "local user"
		}
		h.ServeHTTP(w, r.WithContext(access.WithCaller(r.Context(), access.Local(name))))
	})
}

// behind is what stands behind the gate: the API, and beside it what people see.
func (d Doors) behind(h http.Handler) http.Handler {
	api := d.Gate.Headers(d.Gate.Protect(h, refuse))
	if d.Web == nil {
		return api
	}
	mux := http.NewServeMux()
	mux.Handle("/v1/", api)
	mux.Handle("/api/", api)
	mux.Handle(MetricsPath, api)
	mux.Handle("/", d.Web)
	return mux
}
