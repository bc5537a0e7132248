package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

// A pairWatch reads, again and again, what a server would read if it were
// started now: from the moment when a certificate is there, there must always be
// one with its key.
type pairWatch struct {
	mu      sync.Mutex
	excused string   // a node on which the test itself breaks the pair
	wrong   []string // what was seen that must not be
	looks   int
}

func watchPairs(t *testing.T, nodes []*node) *pairWatch {
	w := &pairWatch{}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() { w.follow(ctx, n) })
	}
	t.Cleanup(func() {
		stop()
		wg.Wait()
	})
	return w
}

func (w *pairWatch) follow(ctx context.Context, n *node) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var last []byte
	for {
		if pair, err := n.read(); err != nil && last != nil {
			w.say(n, err)
		} else if pair != nil && !bytes.Equal(pair, last) {
			w.say(n, matches(pair))
			last = pair
		}
		w.mu.Lock()
		w.looks++
		w.mu.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// read is chain and key as they lie there, or nil where a switch came between the
// two. The chain is read again after the key: if it is still the same, the key is
// of the same time.
func (n *node) read() ([]byte, error) {
	var all [][]byte
	for _, file := range append(n.files(), n.files()[0]) {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		all = append(all, text)
	}
	if !bytes.Equal(all[0], all[len(all)-1]) {
		return nil, nil
	}
	return slices.Concat(all[:len(all)-1]...), nil
}

func matches(pair []byte) error {
	_, err := tls.X509KeyPair(pair, pair)
	return err
}

func (w *pairWatch) say(n *node, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil && n.name != w.excused && len(w.wrong) < 20 {
		w.wrong = append(w.wrong, fmt.Sprintf("%s at %s: %v", n.name, time.Now().Format("05.000"), err))
	}
}

// excuse takes the watch from a node; empty: from none.
func (w *pairWatch) excuse(node string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.excused = node
}

// check fails the test for what was seen since the last time.
func (w *pairWatch) check(t testing.TB) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.wrong {
		t.Errorf("what a server would read was no matching pair: %s", s)
	}
	if w.looks == 0 {
		t.Error("nobody has looked at the pairs")
	}
	w.wrong, w.looks = nil, 0
}
