package controller

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/store"
)

// agents is what a controller has at hand of the agents. The store is the truth; here
// is what was read a moment ago, and what was heard and is not written yet.
type agents struct {
	since time.Time // when this controller began
	calls *calls
	hears *fold[hearing, heardRow]

	reading sync.Mutex
	known   knownCAs

	mu    sync.Mutex
	byPin map[string]*knownAgent
}

// knownCAs are the CAs of the agents as they were read.
type knownCAs struct {
	cas    *authorities // nil: not yet
	sealed []byte       // their record
	read   time.Time
	turned time.Time // when it was last seen whether one is to follow
}

// A knownAgent is its row as it was read, and the last that this controller heard of
// it.
type knownAgent struct {
	row     store.Agent
	read    time.Time // when row was read
	shown   shown     // the certificate that it showed last
	heard   Heard     // here
	at      time.Time // when that was
	written time.Time // when what was heard was last written
	odd     bool      // a question came late before
}

// shown is a certificate that one of the CAs was found to have signed for an agent. An
// agent shows the same with each of its requests.
type shown struct {
	cas  *authorities
	leaf [sha256.Size]byte
}

// rowsFresh is how old a row may be that an agent is judged by: what another
// controller said of it takes effect here within that.
const rowsFresh = 5 * time.Second

func (c *Controller) newAgents() *agents {
	return &agents{since: c.Now(), calls: c.newCalls(), hears: newFold(c.hearAll), byPin: map[string]*knownAgent{}}
}

// find is the agent with a key.
func (a *agents) find(ctx context.Context, s *store.Store, pin string, now time.Time) (store.Agent, error) {
	a.mu.Lock()
	k, ok := a.byPin[pin]
	if ok && now.Sub(k.read).Abs() < rowsFresh {
		defer a.mu.Unlock()
		return k.row, nil
	}
	a.mu.Unlock()
	var row store.Agent
	err := s.View(ctx, func(tx *store.Tx) (err error) {
		row, err = tx.AgentByPin(ctx, pin)
		return err
	})
	if err != nil {
		a.forget(pin)
		return row, err
	}
	a.learn(row, now)
	return row, nil
}

// vouched reports that one of the CAs signed a certificate for an agent.
func (a *agents) vouched(pin string, cas *authorities, leaf *x509.Certificate) bool {
	is := shown{cas, sha256.Sum256(leaf.Raw)}
	a.mu.Lock()
	k, ok := a.byPin[pin]
	before := ok && k.shown == is
	a.mu.Unlock()
	if before {
		return true
	}
	if !cas.signed(leaf) {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if k, ok := a.byPin[pin]; ok { // else it is kept the next time, if it is known at all
		k.shown = is
	}
	return true
}

// learn keeps a row that was read or written.
func (a *agents) learn(row store.Agent, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	k, ok := a.byPin[row.Pin]
	if !ok {
		k = &knownAgent{}
		a.byPin[row.Pin] = k
	}
	k.row, k.read = row, now
}

func (a *agents) forget(pin string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.byPin, pin)
}

// change changes an agent's row in one transaction, and forgets what is at hand of
// it.
func (a *agents) change(ctx context.Context, s *store.Store, farmName, node string, f func(context.Context, *store.Tx, *store.Agent) error) error {
	var pin string
	err := s.Update(ctx, func(tx *store.Tx) error {
		row, err := tx.Agent(ctx, farmName, node)
		if err != nil {
			return err
		}
		pin = row.Pin
		if err := f(ctx, tx, &row); err != nil {
			return err
		}
		return tx.PutAgent(ctx, row)
	})
	a.forget(pin)
	return err
}

// reread has the CAs read anew when they are needed next.
func (a *agents) reread() {
	a.reading.Lock()
	defer a.reading.Unlock()
	a.known = knownCAs{}
}
