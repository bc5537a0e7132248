package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
)

// What issuing is measured with.
const (
	inFlight    = 64  // orders open at the CA at a time
	perRound    = 256 // certificates
	issueRounds = 3
	retryAfter  = time.Second // of the CA
	caProfile   = "default"
	caName      = "ca"
	benchFarm   = "bench"

	databaseName = "certfarm.db"
)

// An issued round is how long perRound certificates took, and what was asked of
// the CA for them.
type issued struct {
	took     time.Duration
	requests map[issuetest.Endpoint]int
}

func (i issued) perSecond() float64 { return perRound / i.took.Seconds() }

func (i issued) perCertificate() float64 {
	n := 0
	for _, of := range i.requests {
		n += of
	}
	return float64(n) / perRound
}

// measureIssue compares the whole controller (checks, orders, preflights, jobs,
// keys sealed in SQLite with synchronous=FULL, answers from the store) with the
// bare client, in turns. Neither has more than 64 orders open at the CA. Sites have
// no targets, so that nothing but issuing is measured. Both have an account, and
// one certificate, before the clock starts.
func measureIssue(ctx context.Context, dir string) ([]figure, error) {
	var ours, bare []issued
	for round := range issueRounds {
		b, err := inWorld(ctx, issueBare)
		if err != nil {
			return nil, err
		}
		o, err := inWorld(ctx, func(ctx context.Context, w *world) (issued, error) {
			return issueOurs(ctx, w, filepath.Join(dir, fmt.Sprintf("issue%d", round)))
		})
		if err != nil {
			return nil, err
		}
		bare, ours = append(bare, b), append(ours, o)
	}
	speed := figure{name: "issue", unit: "/s", goal: atLeast(0.8), value: middle(ours, issued.perSecond), floor: middle(bare, issued.perSecond)}
	asked := figure{name: "issue-requests", goal: atMost(1.1), value: middle(ours, issued.perCertificate), floor: middle(bare, issued.perCertificate)}
	for i := range ours {
		speed.notes = append(speed.notes, fmt.Sprintf("round %d: ours %.1f/s, bare %.1f/s", i+1, ours[i].perSecond(), bare[i].perSecond()))
	}
	asked.notes = []string{"ours " + requests(ours[0]), "bare " + requests(bare[0])}
	return []figure{speed, asked}, nil
}

func middle(rounds []issued, of func(issued) float64) float64 {
	var all []float64
	for _, r := range rounds {
		all = append(all, of(r))
	}
	return median(all)
}

func requests(i issued) (text string) {
	for _, e := range slices.Sorted(maps.Keys(i.requests)) {
		text += fmt.Sprintf("%s %d, ", e, i.requests[e])
	}
	return text + fmt.Sprintf("%.2f a certificate", i.perCertificate())
}

func inWorld(ctx context.Context, f func(context.Context, *world) (issued, error)) (issued, error) {
	w, err := newWorld()
	if err != nil {
		return issued{}, err
	}
	i, err := f(ctx, w)
	return i, errors.Join(err, w.close())
}

// siteName is a site, and with the zone its only name. The first warms up.
func siteName(i int) string { return fmt.Sprintf("s%06d", i) }

func dnsName(i int) string { return siteName(i) + ".bench.test" }

// clocked times f and counts what it asks of the CA.
func (w *world) clocked(f func() error) (issued, error) {
	before := w.ca.Stats().Requests
	begin := time.Now()
	err := f()
	i := issued{took: time.Since(begin), requests: w.ca.Stats().Requests}
	i.less(before)
	return i, err
}

func (i issued) less(before map[issuetest.Endpoint]int) {
	for e, n := range before {
		i.requests[e] -= n
	}
}

func issueBare(ctx context.Context, w *world) (issued, error) {
	b, err := newBare(ctx, w)
	if err != nil {
		return issued{}, err
	}
	if err := b.get(ctx, dnsName(0)); err != nil {
		return issued{}, err
	}
	var names []string
	for i := range perRound {
		names = append(names, dnsName(i+1))
	}
	return w.clocked(func() error { return b.all(ctx, names) })
}

func issueOurs(ctx context.Context, w *world, dir string) (i issued, err error) {
	s, err := openNew(ctx, dir)
	if err != nil {
		return i, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	c, lines := controller.Real(s, secret.Fresh(), nil)
	defer func() { err = errors.Join(err, lines.Close()) }()
	c.CAPort = w.port
	c.Issuers = bounded(c.Issuers, make(chan struct{}, inFlight))
	c.Workers = 2 * perRound // one for each order that waits to be opened
	ctl := controller.New(c)
	w.answers(ctl.ChallengeHandler())
	if err := saveSites(ctx, s, w, perRound+1); err != nil {
		return i, err
	}
	defer running(ctx, ctl, &err)()

	if err := backlog(ctx, s, []string{siteName(0)}); err != nil {
		return i, err
	}
	if err := w.asked(ctx, issuetest.RenewalInfo, 1); err != nil {
		return i, err
	}
	var sites []string
	for n := range perRound {
		sites = append(sites, siteName(n+1))
	}
	before := w.ca.Stats().Requests
	if i, err = w.clocked(func() error { return backlog(ctx, s, sites) }); err != nil {
		return i, err
	}
	if err := w.asked(ctx, issuetest.RenewalInfo, perRound+1); err != nil {
		return i, err
	}
	i.requests = w.ca.Stats().Requests
	i.less(before)
	return i, nil
}

// openNew opens an empty store in a folder of its own.
func openNew(ctx context.Context, dir string) (*store.Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return store.Open(ctx, filepath.Join(dir, databaseName), store.Options{})
}

// running lets a controller work until the returned function is called.
func running(ctx context.Context, c *controller.Controller, err *error) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	return func() {
		cancel()
		*err = errors.Join(*err, <-ended)
	}
}

// saveSites puts a farm of sites without targets into the store. Nothing is armed.
func saveSites(ctx context.Context, s *store.Store, w *world, n int) error {
	f := farm.Farm{
		Name: benchFarm, Resolvers: map[string][]string{".": {w.dns.Address}},
		Issuers: []farm.Issuer{{Name: caName, Directory: w.ca.Directory, Profile: caProfile, Roots: w.ca.ListenRoots + w.ca.Roots}},
	}
	for i := range n {
		f.Sites = append(f.Sites, farm.Site{
			Name: siteName(i), Names: []string{dnsName(i)}, Issuer: caName, KeyTypes: []farm.KeyType{farm.EC256},
			Strategy: farm.Central, Validations: []farm.Validation{{Method: farm.HTTP01, Via: farm.Gateway}},
		})
	}
	return s.Update(ctx, func(tx *store.Tx) error {
		_, err := tx.SaveFarm(ctx, f, []byte("farm: bench\n"), "bench", 0)
		return err
	})
}

// backlog makes the sites due for their first certificates, all at once as Apply
// does, and returns when every one has a version in the store.
func backlog(ctx context.Context, s *store.Store, sites []string) error {
	err := s.Update(ctx, func(tx *store.Tx) error {
		for _, name := range sites {
			if err := tx.Enqueue(ctx, farm.Job{Farm: benchFarm, Kind: "check", Subject: name}); err != nil {
				return err
			}
		}
		return nil
	})
	for left := sites; err == nil && len(left) > 0; {
		written := s.Written()
		if left, err = withoutVersion(ctx, s, left); err != nil || len(left) == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-written:
		}
	}
	return err
}

// withoutVersion drops the sites at the front that have one: to look at them all
// after each commit would be a load of its own.
func withoutVersion(ctx context.Context, s *store.Store, sites []string) ([]string, error) {
	err := s.View(ctx, func(tx *store.Tx) error {
		for len(sites) > 0 {
			c, err := tx.Certificate(ctx, benchFarm, sites[0])
			if err != nil || c.Version == "" {
				return err
			}
			sites = sites[1:]
		}
		return nil
	})
	return sites, err
}
