package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/probe"
	"github.com/certfarm/certfarm/internal/store"
)

// A Served is what the endpoints of a site were seen to serve just now, held
// against leaves that should be served no more.
type Served struct {
	Endpoints int      `json:"endpoints" doc:"how many were asked"`
	Answered  int      `json:"answered" doc:"how many of them served anything"`
	By        []string `json:"by,omitempty" doc:"targets and balancers that serve one of the leaves"`
	Silent    []string `json:"silent,omitempty" doc:"targets and balancers of which nothing can be told, since an endpoint does not answer"`
}

// A lookout is where leaves may be served: targets, those that are gone from
// farm.yaml among them, and balancers.
type lookout struct {
	farm      string
	places    []farm.Place
	balancers []farm.Endpoint
}

// lookouts reads where the leaves of a site may be served: at the site's own
// targets, and at those of sites that were given the same certificate.
func lookouts(ctx context.Context, tx *store.Tx, farmName, site string, leaves []farm.Leaf) (l lookout, err error) {
	l.farm = farmName
	sites, err := sharing(ctx, tx, farmName, site, leaves)
	if err != nil {
		return l, err
	}
	for _, name := range sites {
		places, err := everOf(ctx, tx, farmName, name)
		if err != nil {
			return l, err
		}
		l.places = append(l.places, places...)
		s, err := tx.Site(ctx, farmName, name)
		if err := unlessGone(err); err != nil {
			return l, err
		}
		l.balancers = append(l.balancers, s.Balancers...)
	}
	return l, nil
}

// asks is how many endpoints there are to ask.
func (l lookout) asks() (n int) {
	for _, p := range l.places {
		n += len(p.Target.Endpoints)
	}
	return n + len(l.balancers)
}

// served asks every endpoint whether it serves one of the leaves.
func (c *Controller) served(ctx context.Context, l lookout, leaves []farm.Leaf) (s Served) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, looksAtOnce)
	ask := func(name string, sights func(context.Context, probe.Question) []farm.Sight) {
		slots <- struct{}{}
		wg.Go(func() {
			within, cancel := context.WithTimeout(ctx, lookWithin)
			got := sights(within, question(leaves))
			cancel()
			mu.Lock()
			s.add(name, got, leaves)
			mu.Unlock()
			<-slots
		})
	}
	for _, p := range l.places {
		ask(p.Target.Name, func(ctx context.Context, q probe.Question) []farm.Sight { return c.look(ctx, l.farm, p.Target, q) })
	}
	for _, b := range l.balancers {
		ask("balancer "+b.Address, func(ctx context.Context, q probe.Question) []farm.Sight { return c.through(ctx, b, q, len(l.places)) })
	}
	wg.Wait()
	slices.Sort(s.By)
	slices.Sort(s.Silent)
	return s
}

// looksBack is how often an endpoint is asked: several workers may be behind it,
// of which one is on its way out.
const looksBack = 3

func question(leaves []farm.Leaf) probe.Question {
	q := probe.Question{Samples: looksBack}
	for _, l := range leaves {
		if !slices.Contains(q.KeyTypes, l.KeyType) {
			q.KeyTypes = append(q.KeyTypes, l.KeyType)
		}
	}
	return q
}

// through asks a balancer often enough that every node should have answered, and
// makes one sight of it.
func (c *Controller) through(ctx context.Context, b farm.Endpoint, q probe.Question, nodes int) []farm.Sight {
	q.Endpoint = b
	sum := farm.Sight{Endpoint: b, At: c.Now()}
	t, err := probe.Sample(ctx, c.Prober, q, max(20, 4*nodes))
	if err != nil {
		sum.Error = err.Error()
		return []farm.Sight{sum}
	}
	for f := range t.Leaves {
		sum.Answered, sum.Fingerprint = true, append(sum.Fingerprint, f)
	}
	return []farm.Sight{sum}
}

// add counts what was seen of one target or balancer.
func (s *Served) add(name string, sights []farm.Sight, leaves []farm.Leaf) {
	by, silent := false, false
	for _, sight := range sights {
		s.Endpoints++
		shown := append(slices.Clone(sight.Fingerprint), farm.LeafFingerprint(sight.Chain))
		by = by || slices.ContainsFunc(leaves, func(l farm.Leaf) bool { return slices.Contains(shown, l.Fingerprint) })
		if sight.Answered || len(sight.Chain) > 0 {
			s.Answered++
		} else {
			silent = true
		}
	}
	if by {
		s.By = append(s.By, name)
	}
	if silent {
		s.Silent = append(s.Silent, name)
	}
}

// silence tells in words of whom nothing can be told; empty: of nobody.
func (s Served) silence() string {
	if len(s.Silent) == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d endpoints answered; silent: %s", s.Answered, s.Endpoints, list(s.Silent))
}

// mostNamed is how many targets are named before the rest is counted.
const mostNamed = 10

func list(names []string) string {
	shown := names[:min(len(names), mostNamed)]
	text := strings.Join(shown, ", ")
	if more := len(names) - len(shown); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
