package probe

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"sync"
	"time"
)

// A Memory spares a prober the same signatures again: a certificate that is served
// by many nodes, to many looks, has one chain. What it holds is that a chain led to
// the roots a moment ago. Whether the server has the leaf's key, the leaf's own
// dates and its names are looked at in every handshake. It is for many goroutines.
type Memory struct {
	mu    sync.Mutex
	pools map[string]*x509.CertPool       // by their text
	led   map[[sha256.Size]byte]time.Time // when a chain was last followed to its roots
}

const (
	remembered = time.Minute // a chain is followed anew after that: an intermediate may have expired
	mostKnown  = 4096        // chains; and of pools, a farm has a few
)

// NewMemory makes an empty memory.
func NewMemory() *Memory {
	return &Memory{pools: map[string]*x509.CertPool{}, led: map[[sha256.Size]byte]time.Time{}}
}

// pool is the pool of private roots.
func (m *Memory) pool(roots string) (*x509.CertPool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p, ok := m.pools[roots]; ok {
		return p, nil
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM([]byte(roots)) {
		return nil, errors.New("the issuer's roots hold no certificate in PEM")
	}
	if len(m.pools) >= mostKnown {
		clear(m.pools)
	}
	m.pools[roots] = p
	return p, nil
}

// leads follows a chain as verify does, or knows that it led to the roots not long
// before now. What does not lead there is followed each time.
func (m *Memory) leads(served []*x509.Certificate, roots string, now time.Time, verify func() error) error {
	id := chainID(served, roots)
	m.mu.Lock()
	last, known := m.led[id]
	m.mu.Unlock()
	if since := now.Sub(last); known && since >= 0 && since < remembered {
		return nil
	}
	if err := verify(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.led) >= mostKnown {
		clear(m.led)
	}
	m.led[id] = now
	return nil
}

// chainID stands for all that was served, in order, and the roots that it is held
// against.
func chainID(served []*x509.Certificate, roots string) (id [sha256.Size]byte) {
	h := sha256.New()
	add := func(part []byte) {
		_ = binary.Write(h, binary.BigEndian, uint64(len(part))) // a hash takes everything
		_, _ = h.Write(part)
	}
	add([]byte(roots))
	for _, c := range served {
		add(c.Raw)
	}
	h.Sum(id[:0])
	return id
}
