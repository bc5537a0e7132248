package probe

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/certfarm/certfarm/internal/farm"
)

// A Tally counts what the connections through a balancer met.
type Tally struct {
	Sights   int            // connections that were tried
	Leaves   map[string]int // connections by the fingerprint that was served
	Failed   int            // connections without a handshake
	Problems []string       // why some failed or were not trusted, each reason once
}

// Agreed reports that every connection met the same leaf, and which. A balancer
// that is sticky (by address, by session) sends all of ours to one node: then
// this says little.
func (t Tally) Agreed() (fingerprint string, ok bool) {
	for f := range t.Leaves {
		fingerprint = f
	}
	return fingerprint, len(t.Leaves) == 1 && t.Failed == 0
}

// Sample asks an endpoint with many nodes behind it n times, each time with a
// new connection, and counts the answers. q.Samples does not matter, and
// q.KeyTypes should be empty: then a connection shows one leaf. An error says
// that we could not ask at all.
func Sample(ctx context.Context, p Prober, q Question, n int) (Tally, error) {
	q.Samples = 1
	sights := make([]farm.Sight, n)
	errs := make([]error, n)
	slots := make(chan struct{}, inFlight)
	var wg sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			sights[i], errs[i] = p.Probe(ctx, q)
			<-slots
		})
	}
	wg.Wait()

	t := Tally{Leaves: map[string]int{}}
	for i, s := range sights {
		if errs[i] != nil {
			return t, fmt.Errorf("sample %s, connection %d of %d: %w", q.Endpoint.Address, i+1, n, errs[i])
		}
		t.add(s)
	}
	slices.Sort(t.Problems)
	t.Problems = slices.Compact(t.Problems)
	return t, nil
}

func (t *Tally) add(s farm.Sight) {
	t.Sights++
	for _, f := range s.Fingerprint {
		t.Leaves[f]++
	}
	switch {
	case !s.Answered:
		t.Failed++
		t.Problems = append(t.Problems, s.Error)
	case !s.Trusted:
		t.Problems = append(t.Problems, s.Distrust)
	}
}
