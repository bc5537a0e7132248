package encode

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"sync"

	"github.com/certfarm/certfarm/internal/farm"
)

// A Memory spares the same texts a second check: a version goes to many nodes, is read
// back from each, and is the one to go back to at the next. What it holds is that a pair
// belongs together, by the hash of its bytes, and the leaf; what failed is checked each
// time. Nil remembers nothing. It is for many goroutines.
type Memory struct {
	mu    sync.Mutex
	pairs map[pairID]*x509.Certificate
}

// A pairID stands for the bytes of a chain and a key, and for what was found of them.
type pairID [sha256.Size]byte

// mostPairs is how many pairs are remembered; then it begins anew.
const mostPairs = 8192

// NewMemory makes an empty memory.
func NewMemory() *Memory { return &Memory{pairs: map[pairID]*x509.Certificate{}} }

// Pair is Pair, or knows its answer. The leaf is for reading.
func (m *Memory) Pair(chain, key []byte) (*x509.Certificate, error) {
	return m.check(Pair, "pair", chain, key)
}

// Fits is Fits, or knows of key and chain that they belong together.
func (m *Memory) Fits(b farm.Bundle) error {
	leaf, err := m.check(chained, "chained", b.Chain, b.Key.Reveal())
	return fits(b, leaf, err)
}

// check asks of a pair what was not found yet.
func (m *Memory) check(ask func(chain, key []byte) (*x509.Certificate, error), what string, chain, key []byte) (*x509.Certificate, error) {
	if m == nil {
		return ask(chain, key)
	}
	id := idOf([]byte(what), chain, key)
	m.mu.Lock()
	leaf := m.pairs[id]
	m.mu.Unlock()
	if leaf != nil {
		return leaf, nil
	}
	leaf, err := ask(chain, key)
	if err != nil {
		return leaf, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.pairs) >= mostPairs {
		clear(m.pairs)
	}
	m.pairs[id] = leaf
	return leaf, nil
}

// idOf hashes texts and where each ends. A PEM that holds both is hashed once.
func idOf(what, chain, key []byte) (id pairID) {
	parts := [][]byte{what, chain, key}
	if bytes.Equal(chain, key) {
		parts = parts[:2]
	}
	h := sha256.New()
	var size [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(size[:], uint64(len(p)))
		_, _ = h.Write(size[:]) // a hash takes everything
		_, _ = h.Write(p)
	}
	h.Sum(id[:0])
	return id
}
