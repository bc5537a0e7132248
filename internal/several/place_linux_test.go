package several

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	crypto "crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"time"
)

// A place is a fenced target: a receiver of kind webhook that remembers the highest
// epoch and refuses a lower, and an endpoint that serves what is live.
type place struct {
	hook     *httptest.Server
	endpoint net.Listener

	mu      sync.Mutex
	chance  *rand.Rand
	epoch   int64
	next    int
	staged  map[string]*held // by note
	live    *held
	effects []effect
	refused int
	wrong   []string
}

// held is a certificate on the place, and what was live when it was staged.
type held struct {
	note        string
	fingerprint string
	epoch       int64
	pair        tls.Certificate
	before      *held
	over        bool // restored or discarded: it never goes live again
}

// An effect is one change of what is live.
type effect struct {
	verb  string
	epoch int64 // of the one that is live now
}

func newPlace(chance *rand.Rand) (*place, error) {
	p := &place{staged: map[string]*held{}, chance: chance}
	stand, err := standIn()
	if err != nil {
		return nil, err
	}
	p.live = stand
	p.endpoint, err = tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return &p.live.pair, nil
	}})
	if err != nil {
		return nil, err
	}
	go p.serve() // ends when the endpoint is closed
	p.hook = httptest.NewTLSServer(http.HandlerFunc(p.answer))
	return p, nil
}

func (p *place) close() {
	p.hook.Close()
	_ = p.endpoint.Close() // the story has ended
}

// serve shakes hands.
func (p *place) serve() {
	for {
		c, err := p.endpoint.Accept()
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

// standIn is the certificate before the first.
func standIn() (*held, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), crypto.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(crypto.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}, &x509.Certificate{}, key.Public(), key)
	return &held{pair: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}, err
}

// A told is what a call says; see the kind webhook.
type told struct {
	Verb, Note string
	Epoch      int64
	Leaves     []struct{ Fingerprint, Chain, Key string }
}

func (p *place) answer(w http.ResponseWriter, r *http.Request) {
	var c told
	out := map[string]any{"ok": true}
	err := json.NewDecoder(r.Body).Decode(&c)
	if err == nil {
		if c.Verb != "inspect" {
			time.Sleep(p.delay()) // what the network takes, whether the caller still lives or not
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		err = p.obey(c, out)
	}
	if err != nil {
		out["ok"], out["error"] = false, err.Error()
	}
	_ = json.NewEncoder(w).Encode(out) // the caller is gone
}

// delay is how long a call is under way: most for a moment, some for longer than a
// lease lasts and the caller waits.
func (p *place) delay() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.chance.IntN(8) == 0 {
		return pace().Lease + time.Duration(p.chance.Int64N(int64(pace().Lease)))
	}
	return time.Duration(p.chance.Int64N(int64(400 * time.Millisecond)))
}

// obey does what a call says, unless it is from a controller that was relieved.
func (p *place) obey(c told, out map[string]any) error {
	if c.Verb == "inspect" {
		out["leaves"], out["placeholder"] = []string{p.live.fingerprint}, p.live.fingerprint == ""
		if p.live.fingerprint == "" {
			out["leaves"] = []string{}
		}
		return nil
	}
	s := p.staged[c.Note]
	if c.Verb == "discard" {
		if s != nil && s != p.live {
			s.over = true
		}
		return nil
	}
	if c.Epoch < p.epoch {
		p.refused++
		return fmt.Errorf("epoch %d was relieved by %d", c.Epoch, p.epoch)
	}
	p.epoch = c.Epoch
	if c.Verb == "stage" {
		return p.stage(c, out)
	}
	if s == nil {
		return fmt.Errorf("nothing is staged as %q", c.Note)
	}
	return p.turn(c.Verb, s)
}

func (p *place) stage(c told, out map[string]any) error {
	l := c.Leaves[0]
	pair, err := tls.X509KeyPair([]byte(l.Chain), []byte(l.Key))
	if err != nil {
		return err
	}
	block, _ := pem.Decode([]byte(l.Chain))
	sum := sha256.Sum256(block.Bytes)
	p.next++
	s := &held{note: strconv.Itoa(p.next), fingerprint: hex.EncodeToString(sum[:]), epoch: c.Epoch, pair: pair, before: p.live}
	p.staged[s.note], out["note"] = s, s.note
	return nil
}

// turn activates or restores. That a stage which was undone does not go live again
// is the receiver's part of the fence: both calls have the epoch of the stage.
func (p *place) turn(verb string, s *held) error {
	now := s
	switch {
	case verb == "restore":
		s.over = true
		now = s.before
	case s.over:
		p.refused++
		return fmt.Errorf("stage %s was undone", s.note)
	}
	if p.live == now {
		return nil
	}
	if now.epoch < p.live.epoch && (verb != "restore" || p.live != s) {
		p.wrong = append(p.wrong, fmt.Sprintf("%s brought epoch %d over %d", verb, now.epoch, p.live.epoch))
	}
	p.live = now
	p.effects = append(p.effects, effect{verb, now.epoch})
	return nil
}
