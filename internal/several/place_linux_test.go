package several

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	crypto "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// A place is a target, as far from the controllers as a real one: it takes its time,
// and serves what is live.
type place interface {
	entry(name string) string // of farm.yaml
	calls() string            // where controllers bring certificates, host:port
	seen() *front
	fenced() bool // a controller that was relieved changes nothing there
	close()
}

// A front serves what is live, and remembers what was.
type front struct {
	endpoint net.Listener

	mu      sync.Mutex
	chance  *rand.Rand
	live    tls.Certificate
	effects []effect
	busy    int // calls under way
	refused int // calls of relieved controllers
	wrong   []string
}

// An effect is one change of what is live.
type effect struct {
	at   time.Time
	what string // fingerprint; empty: a stand-in of somebody
}

func newFront(chance *rand.Rand) (*front, error) {
	stand, err := standIn()
	if err != nil {
		return nil, err
	}
	f := &front{chance: chance, live: stand, effects: []effect{{time.Now(), ""}}}
	f.endpoint, err = tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		pair := f.live // a handshake goes on when another is live already
		return &pair, nil
	}})
	if err != nil {
		return nil, err
	}
	go f.serve() // ends when the endpoint is closed
	return f, nil
}

// seen is place's.
func (f *front) seen() *front { return f }

// serve shakes hands.
func (f *front) serve() {
	for {
		c, err := f.endpoint.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = c.Close() }()
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			_ = c.(*tls.Conn).Handshake() // the prober says what it thinks of it
		}()
	}
}

// show makes a certificate live. The caller holds the lock.
func (f *front) show(pair tls.Certificate) {
	what := farm.Fingerprint(pair.Certificate[0])
	f.live = pair
	if f.effects[len(f.effects)-1].what != what {
		f.effects = append(f.effects, effect{time.Now(), what})
	}
}

// serves is the fingerprint of what is live.
func (f *front) serves() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.effects[len(f.effects)-1].what
}

// travel is how long a call is under way: most for a moment, some for longer than a
// lease lasts and the caller waits. The call arrives whether the caller still lives or
// not; arrived says so.
func (f *front) travel() (arrived func()) {
	f.mu.Lock()
	f.busy++
	d := time.Duration(f.chance.Int64N(int64(400 * time.Millisecond)))
	if f.chance.IntN(8) == 0 {
		d = pace().Lease + time.Duration(f.chance.Int64N(int64(pace().Lease)))
	}
	f.mu.Unlock()
	time.Sleep(d)
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.busy--
	}
}

// quiet reports that no call is under way.
func (f *front) quiet() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.busy == 0
}

// standIn is the certificate before the first.
func standIn() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), crypto.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := x509.CreateCertificate(crypto.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}, &x509.Certificate{}, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
