package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/fence"
	"github.com/certfarm/certfarm/internal/probe"
)

// A Readiness answers whether this node serves what it should: by handshakes of its
// own with each endpoint of each of its targets, on this machine. It goes on answering
// by what it was last told when the controllers are gone.
type Readiness struct {
	loop   *Loop
	prober probe.Prober
	log    *slog.Logger

	mu     sync.Mutex
	wishes *Desired
	told   time.Time // when the wishes were last asked for
	looked time.Time
	report Report
}

// A Report is what the readiness URL answers.
type Report struct {
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons,omitempty"` // why it is not
}

const (
	desiredFile  = "desired.json"
	toldEvery    = 15 * time.Second
	toldWithin   = 3 * time.Second
	lookedWithin = 5 * time.Second
)

// NewReadiness makes what answers for the node of a loop.
func NewReadiness(l *Loop, p probe.Prober) *Readiness {
	r := &Readiness{loop: l, prober: p, log: l.s.Log}
	text, err := os.ReadFile(filepath.Join(l.s.State, desiredFile))
	var d Desired
	if err == nil && json.Unmarshal(text, &d) == nil {
		r.wishes = &d
	}
	return r
}

// ServeHTTP answers 200 when the node serves all that it should, else 503 with why not.
func (r *Readiness) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	report := r.Look(req.Context())
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !report.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(report) // who asked is gone
}

// Look makes the handshakes, unless that was done a moment ago.
func (r *Readiness) Look(ctx context.Context) Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.loop.s.Now()
	if !r.looked.IsZero() && now.Sub(r.looked).Abs() < r.loop.s.Pace.Look {
		return r.report
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookedWithin)
	defer cancel()
	r.ask(ctx, now)
	r.report = r.judge(ctx, now)
	r.looked = now
	return r.report
}

// ask asks the controllers what should be served; while it is not, each time.
func (r *Readiness) ask(ctx context.Context, now time.Time) {
	if r.wishes != nil && r.report.Ready && now.Sub(r.told).Abs() < toldEvery {
		return
	}
	var d Desired
	if err := r.loop.ask(ctx, toldWithin, http.MethodGet, PathDesired, nil, &d); err != nil {
		r.log.Debug("ask what this node should serve", "error", err)
		return
	}
	r.wishes, r.told = &d, now
	if text, err := json.Marshal(d); err == nil {
		err = fence.Write(filepath.Join(r.loop.s.State, desiredFile), text)
		if err != nil {
			r.log.Warn("keep what this node should serve", "error", err)
		}
	}
}

func (r *Readiness) judge(ctx context.Context, now time.Time) Report {
	if r.wishes == nil {
		return Report{Reasons: []string{"it is not known yet what this node should serve"}}
	}
	if len(r.wishes.Targets) == 0 {
		return Report{Reasons: []string{"farm.yaml has no target on this node"}}
	}
	var reasons []string
	for _, w := range r.wishes.Targets {
		if why := r.unserved(ctx, w, now); why != "" {
			reasons = append(reasons, w.Target+": "+why)
		}
	}
	return Report{Ready: len(reasons) == 0, Reasons: reasons}
}

// unserved is why a target does not serve what it should; empty where it does.
func (r *Readiness) unserved(ctx context.Context, w Wish, now time.Time) (why string) {
	if len(w.Sets) == 0 {
		return "nothing was brought here yet"
	}
	for _, set := range w.Sets {
		if why = r.differs(ctx, w, set, now); why == "" {
			return ""
		}
	}
	return why
}

// differs is why the endpoints of a target do not serve a set of leaves.
func (r *Readiness) differs(ctx context.Context, w Wish, set []farm.Leaf, now time.Time) string {
	q := probe.Question{Target: w.Target, Names: w.Names, Samples: 1}
	for _, l := range set {
		q.KeyTypes = append(q.KeyTypes, l.KeyType)
	}
	for _, e := range w.Endpoints {
		q.Endpoint = e
		s, err := r.sight(ctx, q)
		if err != nil {
			return err.Error()
		}
		s.Trusted = true // whom the clients trust is the controllers' to judge
		if ok, _, why := probe.Judge(set, s, now); !ok {
			return why
		}
	}
	return ""
}

// sight asks an endpoint at each of its addresses on this machine, until one answers.
func (r *Readiness) sight(ctx context.Context, q probe.Question) (s farm.Sight, err error) {
	for _, address := range r.here(ctx, q.Endpoint) {
		q.Endpoint.Address, q.Endpoint.Path = address, ""
		if s, err = r.prober.Probe(ctx, q); err == nil && s.Answered {
			break
		}
	}
	return s, err
}

// here is where an endpoint is on this machine: its own address if that is one of the
// machine's, and the loopback ones.
func (r *Readiness) here(ctx context.Context, e farm.Endpoint) []string {
	host, port, err := net.SplitHostPort(e.Address)
	if err != nil {
		return []string{e.Address}
	}
	var all []string
	own, _ := net.InterfaceAddrs() // without them there is loopback
	ips, _ := net.DefaultResolver.LookupIPAddr(ctx, host)
	for _, ip := range ips {
		for _, o := range own {
			if n, ok := o.(*net.IPNet); ok && (n.IP.Equal(ip.IP) || ip.IP.IsLoopback() && n.IP.IsLoopback()) {
				all = append(all, net.JoinHostPort(ip.IP.String(), port))
				break
			}
		}
	}
	return append(all, net.JoinHostPort("127.0.0.1", port), net.JoinHostPort("::1", port))
}

// ServeReady answers GET /ready at a loopback address until ctx ends.
func ServeReady(ctx context.Context, l net.Listener, r *Readiness) error {
	mux := http.NewServeMux()
	mux.Handle("GET /ready", r)
	s := &http.Server{
		Handler: mux, ReadHeaderTimeout: lookedWithin, ReadTimeout: lookedWithin, WriteTimeout: 4 * lookedWithin,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(r.log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() }) // a balancer asks again
	defer stop()
	if err := s.Serve(l); ctx.Err() == nil {
		return fmt.Errorf("readiness at %s: %w", l.Addr(), err)
	}
	return nil
}
