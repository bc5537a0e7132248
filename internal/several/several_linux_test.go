// Package several has several controllers work on one PostgreSQL, and treats them
// badly.
//
// Each controller is a process of its own: the test binary again. It reaches the
// database, and every place where certificates go, through lines of its own that can
// be cut. A story is a farm, two or three of them, and a schedule drawn by chance
// (trouble_linux_test.go). What must be true in the end is in check_linux_test.go.
package several

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/probe"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

// variable tells the test binary that it is to be a controller.
const variable = "CERTFARM_TEST_CONTROLLER"

// duty is what a controller's process is told.
type duty struct {
	Database, KeyFile, Owner string
	CAPort                   int
	Ways                     map[string]string // of places, host:port, to the lines that lead there
}

// pace is so quick that a lease ends while one waits.
func pace() controller.Pace {
	return controller.Pace{Look: 2 * time.Second, Late: time.Second, Retry: time.Second, Lease: 3 * time.Second}
}

func TestMain(m *testing.M) {
	told := os.Getenv(variable)
	if told == "" {
		os.Exit(storetest.Main(m))
	}
	var d duty
	err := json.Unmarshal([]byte(told), &d)
	if err == nil {
		err = d.serve()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "controller:", err)
		os.Exit(1)
	}
}

// config is a controller's, in the child and in the test.
func (d duty) config(ctx context.Context, log *slog.Logger) (c controller.Config, lines io.Closer, err error) {
	s, err := store.Open(ctx, d.Database, store.Options{})
	if err != nil {
		return c, nil, err
	}
	keys, err := secret.Load(secret.Source{File: d.KeyFile})
	if err != nil {
		return c, nil, err
	}
	c, lines = controller.Real(s, keys, log)
	c.Pace, c.CAPort, c.Owner = pace(), d.CAPort, d.Owner
	return c, lines, nil
}

// serve is the whole life of a controller. It ends with SIGTERM, or when the test
// that started it is gone.
func (d duty) serve() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() { // ends with the process
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
	c, lines, err := d.config(ctx, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	c.Kinds, c.Hosts, c.Prober = d.kinds(c.Kinds), d.hosts(c.Hosts), d.prober(c.Prober)
	ctl := controller.New(c)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: ctl.ChallengeHandler(), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(l) }() // ends with the process
	fmt.Println(l.Addr())
	err = ctl.Run(ctx)
	_ = lines.Close()   // the process ends
	_ = c.Store.Close() // so do its lines
	return err
}

// way is the line that leads to an address.
func (d duty) way(to string) string {
	if through, ok := d.Ways[to]; ok {
		return through
	}
	return to
}

// asWritten are options of any kind.
type asWritten struct{ json.RawMessage }

// Facts is deploy.Options's: a controller that works does not ask.
func (asWritten) Facts() (identity, group string, err error) { return "", "", nil }

// kinds have calls go through the lines.
func (d duty) kinds(real deploy.Kinds) deploy.Kinds {
	through := deploy.Kinds{}
	for name, kind := range real {
		through[name] = deploy.Define(kind, asWritten{}, func(o asWritten, s deploy.Setup) (deploy.Deployer, error) {
			s.Wire = func(over http.RoundTripper) http.RoundTripper { return rerouted{over, d} }
			return real.Open(name, o.RawMessage, s)
		})
	}
	return through
}

type rerouted struct {
	over http.RoundTripper
	duty
}

// RoundTrip is http.RoundTripper's.
func (r rerouted) RoundTrip(q *http.Request) (*http.Response, error) {
	q = q.Clone(q.Context())
	q.URL.Host = r.way(q.URL.Host)
	return r.over.RoundTrip(q)
}

// hosts have SSH go through the lines.
func (d duty) hosts(real controller.Hosts) controller.Hosts {
	return func(ctx context.Context, farmName string, n farm.Node, c controller.Context) (host.Host, error) {
		if n.SSH != nil {
			to, port, err := net.SplitHostPort(d.way(net.JoinHostPort(n.Address, strconv.Itoa(n.SSH.Port))))
			if err != nil {
				return nil, err
			}
			ssh := *n.SSH
			n.Address, n.SSH = to, &ssh
			if ssh.Port, err = strconv.Atoi(port); err != nil {
				return nil, err
			}
		}
		return real(ctx, farmName, n, c)
	}
}

// A prober has handshakes go through the lines.
type prober struct {
	probe.Prober
	duty
}

func (d duty) prober(real probe.Prober) probe.Prober { return prober{real, d} }

// Probe is probe.Prober's.
func (p prober) Probe(ctx context.Context, q probe.Question) (farm.Sight, error) {
	asked := q.Endpoint
	q.Endpoint.Address = p.way(asked.Address)
	s, err := p.Prober.Probe(ctx, q)
	s.Endpoint = asked
	return s, err
}
