package http01_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/prove/http01"
)

// BenchmarkPreflight asks 100 nodes for 10 names, and the same requests bare: as
// many at a time, a new connection each. x-bare is how much longer a preflight
// takes; the goal is 3 at most.
func BenchmarkPreflight(b *testing.B) {
	token, want := http01.StatelessQuestion(rand.Text(), "thumb")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, want) }))
	b.Cleanup(server.Close)
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, server.Listener.Addr().String())
	}
	s := newStreet(b, nil)
	s.name("*.farm.test", "192.0.2.1")
	ask := http01.Ask{Token: token, Want: want, How: farm.Validation{Via: farm.Stateless}, Resolvers: s.resolvers, Dial: dial}
	for i := range 10 {
		ask.Names = append(ask.Names, fmt.Sprintf("n%d.farm.test", i))
	}
	for i := range 100 {
		ask.Nodes = append(ask.Nodes, http01.NodeAddress{Name: fmt.Sprint("web", i), Address: fmt.Sprintf("10.0.0.%d", i+1)})
	}
	var ours, bare time.Duration
	for b.Loop() {
		begun := time.Now()
		for _, f := range http01.Preflight(b.Context(), ask) {
			if f.Verdict != http01.Right {
				b.Fatalf("%+v", f)
			}
		}
		ours += time.Since(begun)
		begun = time.Now()
		askBare(b, ask)
		bare += time.Since(begun)
	}
	b.ReportMetric(float64(ours)/float64(bare), "x-bare")
	b.ReportMetric(float64(ours.Milliseconds())/float64(b.N), "ms/preflight")
}

func askBare(b *testing.B, ask http01.Ask) {
	b.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: ask.Dial}}
	var g errgroup.Group
	g.SetLimit(32)
	for range len(ask.Names) * (len(ask.Nodes) + 1) {
		g.Go(func() error {
			r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://10.0.0.1"+http01.Path+ask.Token, nil)
			if err != nil {
				return err
			}
			resp, err := client.Do(r)
			if err != nil {
				return err
			}
			defer func() { _ = resp.Body.Close() }()
			_, err = io.Copy(io.Discard, resp.Body)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
}
