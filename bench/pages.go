package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/api"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/web"
)

// The farm that pages are asked of: its certificates, its nodes, on how many nodes each
// certificate is, and how many events there are.
const (
	pageSites  = 10_000
	pageNodes  = 100
	pageSpread = 10
	pageEvents = 100_000
	pageRounds = 21 // of each page, and of each route
)

// measurePages asks for the first view of pages and for routes of the API, in a store
// that keeps a large farm, as a browser and a program do: over HTTP, with a token.
func measurePages(ctx context.Context, dir string) (all []figure, err error) {
	s, err := openNew(ctx, filepath.Join(dir, "pages"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := wide(ctx, s); err != nil {
		return nil, err
	}
	_, token, err := access.Desk{Store: s}.Create(ctx, access.TokenAsk{Name: "bench", Grants: []store.Grant{{Role: string(access.Admin)}}}, access.Local("bench"))
	if err != nil {
		return nil, err
	}
	c, lines := controller.Real(s, secret.Fresh(), nil)
	defer func() { _ = lines.Close() }()
	h, err := doors(s, controller.New(c))
	if err != nil {
		return nil, err
	}
	server := httptest.NewServer(h)
	defer server.Close()
	r := reader{server.URL, string(token.Reveal())}
	if all, err = r.views(ctx); err != nil {
		return nil, err
	}
	routes, err := r.routes(ctx)
	return append(all, routes...), err
}

// doors are the dashboard and the API behind one address.
func doors(s *store.Store, c *controller.Controller) (http.Handler, error) {
	gate, err := access.NewGate(access.Config{Store: s})
	if err != nil {
		return nil, err
	}
	pages, err := web.New(web.Config{Controller: c, Gate: gate, Guard: access.NewGuard(s, nil), Version: "bench"})
	if err != nil {
		return nil, err
	}
	answers := api.New(api.Config{Controller: c, Version: "bench", Log: slog.New(slog.DiscardHandler)})
	mux := http.NewServeMux()
	mux.Handle("/v1/", gate.Protect(answers, func(w http.ResponseWriter, _ *http.Request, err error) {
		http.Error(w, err.Error(), http.StatusForbidden)
	}))
	mux.Handle("/", pages)
	return mux, nil
}

// A reader asks as somebody with a token.
type reader struct{ url, token string }

// ask says how long an answer took, and how many bytes it had.
func (r reader) ask(ctx context.Context, path string) (took time.Duration, size int64, err error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+path, http.NoBody)
	if err != nil {
		return 0, 0, err
	}
	q.Header.Set("Authorization", "Bearer "+r.token)
	began := time.Now()
	res, err := http.DefaultTransport.RoundTrip(q)
	if err != nil {
		return 0, 0, err
	}
	defer res.Body.Close()
	size, err = io.Copy(io.Discard, res.Body)
	took = time.Since(began)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s was answered with %s", path, res.Status)
	}
	return took, size, err
}

// views are the first views of pages. The floor is a page that reads nothing of the farm.
func (r reader) views(ctx context.Context) (all []figure, err error) {
	in := "/farms/" + benchFarm + "/"
	_, bare, _, err := r.times(ctx, "/access")
	if err != nil {
		return nil, err
	}
	for _, p := range []struct{ name, path string }{
		{"overview", in}, {"matrix", in + "matrix"}, {"site", in + "sites/" + siteName(pageSites/2)}, {"timeline", in + "timeline"}, {"events", in + "events"},
		{"nodes", in + "nodes"}, {"node", in + "nodes/" + pageNode(7)}, {"drift", in + "drift"}, {"rollouts", in + "rollouts"},
	} {
		first, middle, size, err := r.times(ctx, p.path)
		if err != nil {
			return nil, err
		}
		all = append(all, figure{
			name: "page-" + p.name, value: ms(first), floor: ms(bare), unit: "ms", goal: below(300, "ms"),
			notes: []string{fmt.Sprintf("first view; the median of %d more is %.3g ms; %d kB", pageRounds, ms(middle), size/1000)},
		})
	}
	return all, nil
}

// times are how long a page takes when it is asked for first, and then.
func (r reader) times(ctx context.Context, path string) (first, middle time.Duration, size int64, err error) {
	if first, size, err = r.ask(ctx, path); err != nil {
		return 0, 0, 0, err
	}
	var all []time.Duration
	for range pageRounds {
		took, _, err := r.ask(ctx, path)
		if err != nil {
			return 0, 0, 0, err
		}
		all = append(all, took)
	}
	slices.Sort(all)
	return first, all[len(all)/2], size, nil
}

// routes are the slowest of twenty answers of each of the API's lists and details, and the
// memory that is left in use.
func (r reader) routes(ctx context.Context) ([]figure, error) {
	in, site := "/v1/farms/"+benchFarm, siteName(pageSites/2)
	paths := []string{
		in + "/sites", in + "/sites/" + site, in + "/targets?site=" + site, in + "/targets/" + url.PathEscape(pageTarget(pageSites/2, 0)),
		in + "/rollouts", in + "/events", in + "/nodes",
	}
	p95 := figure{name: "api-p95", unit: "ms", goal: below(100, "ms")}
	floor, err := r.slow(ctx, "/v1/about")
	if err != nil {
		return nil, err
	}
	p95.floor = ms(floor)
	for _, path := range paths {
		took, err := r.slow(ctx, path)
		if err != nil {
			return nil, err
		}
		p95.value = max(p95.value, ms(took))
		p95.notes = append(p95.notes, fmt.Sprintf("%.3g ms %s", ms(took), path))
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	memory := figure{name: "page-memory", value: float64(m.Sys) / 1e6, floor: float64(m.HeapInuse) / 1e6, unit: "MB", goal: below(500, "MB"), notes: []string{"taken from the system; the floor is what is in use then"}}
	return []figure{p95, memory}, nil
}

// slow is the time that 95 of 100 answers stay below.
func (r reader) slow(ctx context.Context, path string) (time.Duration, error) {
	var all []time.Duration
	for range pageRounds {
		took, _, err := r.ask(ctx, path)
		if err != nil {
			return 0, err
		}
		all = append(all, took)
	}
	slices.Sort(all)
	return all[len(all)*95/100], nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func pageNode(i int) string { return fmt.Sprintf("web%03d", i) }

func pageTarget(site, n int) string {
	return siteName(site) + "@" + pageNode((site+n*7)%pageNodes)
}

// wide fills a store with the farm that pages are asked of.
func wide(ctx context.Context, s *store.Store) error {
	f := farm.Farm{Name: benchFarm, Issuers: []farm.Issuer{{Name: caName, Directory: "https://ca.bench.test/dir"}}}
	for i := range pageNodes {
		f.Nodes = append(f.Nodes, farm.Node{Name: pageNode(i), Address: "127.0.0.1", Shell: "posix", Local: true})
	}
	for i := range pageSites {
		site := keptSite(i)
		like := site.Targets[0]
		site.Targets = nil
		for n := range pageSpread {
			t := like
			t.Name, t.Node = pageTarget(i, n), pageNode((i+n*7)%pageNodes)
			t.Identity, t.Group = t.Node+" file /etc/tls/"+site.Name+".pem", t.Node+"/files"
			site.Targets = append(site.Targets, t)
		}
		f.Sites = append(f.Sites, site)
	}
	err := s.Update(ctx, func(tx *store.Tx) error {
		_, err := tx.SaveFarm(ctx, f, []byte("farm: bench\n"), "bench", 0)
		return err
	})
	for i := 0; err == nil && i < pageSites; i += perCommit {
		err = s.Update(ctx, func(tx *store.Tx) error {
			if err := keep(ctx, tx, i, min(pageSites, i+perCommit)); err != nil {
				return err
			}
			return served(ctx, tx, f.Sites[i:min(pageSites, i+perCommit)])
		})
	}
	for i := 0; err == nil && i < pageEvents; i += perCommit {
		err = s.Update(ctx, func(tx *store.Tx) error { return happened(ctx, tx, i, min(pageEvents, i+perCommit)) })
	}
	return err
}

// served writes what targets were seen to serve: all but a few what they should.
func served(ctx context.Context, tx *store.Tx, sites []farm.Site) error {
	for n, site := range sites {
		versions, err := tx.Versions(ctx, benchFarm, site.Name)
		if err != nil {
			return err
		}
		v := versions[0]
		r := farm.Rollout{ID: store.NewID("ro"), Farm: benchFarm, Site: site.Name, Reason: "renewal", Policy: site.Policy, Waves: []farm.Wave{{Name: "all"}}, Created: tx.Now(), Ended: tx.Now(), Outcome: farm.Done, To: farm.VersionFacts{ID: v.ID}}
		for i, t := range site.Targets {
			p := farm.Place{Farm: benchFarm, Target: t, Desired: []string{v.ID}, Looked: tx.Now(), Reach: farm.ReachUp}
			p.Sights = []farm.Sight{{Endpoint: t.Endpoints[0], Target: t.Name, At: tx.Now(), Answered: true, Fingerprint: v.Fingerprints(), Names: v.Names, NotAfter: v.NotAfter(), Trusted: true, Samples: 3}}
			if n%500 == 0 && i == 0 {
				p.Drift, p.Since = "serves an older version of ours", tx.Now()
			}
			if err := tx.PutPlace(ctx, p); err != nil {
				return err
			}
			r.Steps = append(r.Steps, farm.Step{Target: t.Name, Group: t.Group, State: farm.Verified, To: []string{v.ID}})
		}
		if err := tx.PutRollout(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// happened writes events.
func happened(ctx context.Context, tx *store.Tx, from, to int) error {
	for i := from; i < to; i++ {
		e := farm.Event{Farm: benchFarm, ID: store.NewID("ev"), Kind: "step.verified", Level: farm.Info, Site: siteName(i % pageSites), Target: pageTarget(i%pageSites, 0), Text: "serves the new certificate, seen in 3 handshakes"}
		if err := tx.AddEvent(ctx, e); err != nil {
			return err
		}
	}
	return nil
}
