package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
	"github.com/certfarm/certfarm/internal/prove/http01"
)

// What a preflight is measured with.
const (
	askedNodes, askedNames = 100, 10
	askRounds              = 5
	askAtOnce              = 32
)

// measurePreflight compares the matrix of many nodes and names with the bare
// requests that it is made of, in turns.
func measurePreflight(ctx context.Context, _ string) ([]figure, error) {
	token, want := http01.StatelessQuestion(rand.Text(), "thumbprint")
	nodes := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, want) }))
	defer nodes.Close()
	names, err := issuetest.StartDNS(map[string][]netip.Addr{"*.farm.test": {netip.MustParseAddr("192.0.2.1")}})
	if err != nil {
		return nil, err
	}
	defer func() { _ = names.Close() }()
	ask := http01.Ask{
		Site: "shop", Token: token, Want: want, How: farm.Validation{Via: farm.Stateless}, Resolvers: map[string][]string{".": {names.Address}},
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, nodes.Listener.Addr().String())
		},
	}
	for i := range askedNames {
		ask.Names = append(ask.Names, fmt.Sprintf("n%d.farm.test", i))
	}
	for i := range askedNodes {
		ask.Nodes = append(ask.Nodes, http01.NodeAddress{Name: fmt.Sprint("web", i), Address: fmt.Sprintf("10.0.0.%d", i+1)})
	}
	var ours, bare []float64
	for range askRounds {
		begun := time.Now()
		for _, f := range http01.Preflight(ctx, ask) {
			if f.Verdict != http01.Right {
				return nil, fmt.Errorf("a node that is right was found %s: %s", f.Verdict, f.Saw)
			}
		}
		ours = append(ours, time.Since(begun).Seconds())
		begun = time.Now()
		if err := askBare(ctx, ask); err != nil {
			return nil, err
		}
		bare = append(bare, time.Since(begun).Seconds())
	}
	return []figure{{
		name: "preflight", unit: "s", value: median(ours), floor: median(bare), goal: atMost(3),
		notes: []string{fmt.Sprintf("%d names at %d nodes and one address each: median of %d", askedNames, askedNodes, askRounds)},
	}}, nil
}

// askBare makes the same number of requests and nothing else.
func askBare(ctx context.Context, ask http01.Ask) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: ask.Dial}}
	var g errgroup.Group
	g.SetLimit(askAtOnce)
	for range len(ask.Names) * (len(ask.Nodes) + 1) {
		g.Go(func() error {
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://10.0.0.1"+http01.Path+ask.Token, nil)
			if err != nil {
				return err
			}
			resp, err := client.Do(r)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, resp.Body)
			return errors.Join(err, resp.Body.Close())
		})
	}
	return g.Wait()
}
