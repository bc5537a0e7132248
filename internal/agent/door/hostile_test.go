package door_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/agent"
	"github.com/certfarm/certfarm/internal/agent/door"
	"github.com/certfarm/certfarm/internal/deploy/remote"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

// pairOf is the key and certificate in an agent's state folder.
func (b *bed) pairOf(state string) tls.Certificate {
	b.Helper()
	text, err := os.ReadFile(filepath.Join(state, "agent.json"))
	if err != nil {
		b.Fatal(err)
	}
	var d struct{ Key, Chain string }
	if err := json.Unmarshal(text, &d); err != nil {
		b.Fatal(err)
	}
	pair, err := tls.X509KeyPair([]byte(d.Chain), []byte(d.Key))
	if err != nil {
		b.Fatal(err)
	}
	return pair
}

// A rogue talks to the door as it likes.
type rogue struct{ client *http.Client }

func (b *bed) rogue(pairs ...tls.Certificate) rogue {
	t := &http.Transport{TLSClientConfig: &tls.Config{Certificates: pairs, InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	b.Cleanup(t.CloseIdleConnections)
	return rogue{&http.Client{Transport: t}}
}

// ask returns the status and the kind of the refusal.
func (r rogue) ask(t *testing.T, method, url string, body io.Reader) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	res, err := r.client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	var refused agent.Refused
	_ = json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&refused) // an answer is none
	return res.StatusCode, refused.Kind
}

func sealed(t *testing.T, a remote.Answer) []byte {
	t.Helper()
	text, err := remote.SealAnswer(a)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// selfMade is a certificate of a CA of one's own, with a node's name in it.
func selfMade(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// An endless body says how much of it was read.
type endless struct{ read int64 }

func (e *endless) Read(p []byte) (int, error) {
	if e.read >= 1<<30 {
		return 0, io.EOF
	}
	for i := range p {
		p[i] = 'x'
	}
	e.read += int64(len(p))
	return len(p), nil
}

// What a bad agent tries is refused, each time (S3).
func TestABadAgentIsRefused(t *testing.T) {
	t.Parallel()
	b, p := onSQLite(t)
	one, two := b.join("web1", p), b.join("web2", p)
	holding, hold := make(chan string, 1), make(chan struct{})
	b.run(one, answers(func(_ context.Context, c remote.Call) remote.Answer {
		holding <- c.ID
		<-hold
		return remote.Answer{ID: c.ID, Error: "web1 says"}
	}))
	b.up(p, "web1")
	answered := make(chan remote.Answer, 1)
	go func() {
		a, err := p.call(context.Background(), "web1", "call-of-web1")
		if err != nil {
			a.Error = err.Error()
		}
		answered <- a
	}()
	if id := <-holding; id != "call-of-web1" {
		t.Fatalf("web1 was asked for %s", id)
	}
	web2, web1 := b.rogue(b.pairOf(two)), b.rogue(b.pairOf(one))
	nobody, forger := b.rogue(), b.rogue(selfMade(t, "web1"))
	lie := sealed(t, remote.Answer{ID: "call-of-web1", Error: "web2 lies"})
	poll := func(v agent.Poll) io.Reader {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.NewReader(text)
	}
	for _, c := range []struct {
		what   string
		who    rogue
		method string
		path   string
		body   io.Reader
		status int
		kind   string
	}{
		{"another node's call", web2, "POST", "/call-of-web1", bytes.NewReader(lie), 410, agent.KindGone},
		{"a call that is none", web1, "POST", "/nobody-asked", bytes.NewReader(sealed(t, remote.Answer{ID: "nobody-asked"})), 410, agent.KindGone},
		{"an answer under another id", web1, "POST", "/call-of-web1", bytes.NewReader(sealed(t, remote.Answer{ID: "other"})), 400, agent.KindWrong},
		{"no answer at all", web1, "POST", "/call-of-web1", strings.NewReader("<html>"), 400, agent.KindWrong},
		{"a path for an id", web1, "POST", "/..%2f..%2fetc%2fpasswd", bytes.NewReader(sealed(t, remote.Answer{ID: "../../etc/passwd"})), 400, agent.KindWrong},
		{"a path for a session", web1, "POST", "", poll(agent.Poll{Session: "../x", Count: 1}), 400, agent.KindWrong},
		{"no count", web1, "POST", "", poll(agent.Poll{Session: "x"}), 400, agent.KindWrong},
		{"no certificate", nobody, "POST", "", poll(agent.Poll{Session: "x", Count: 1}), 401, agent.KindUnknown},
		{"no certificate, an answer", nobody, "POST", "/call-of-web1", bytes.NewReader(lie), 401, agent.KindUnknown},
		{"a certificate of one's own", forger, "POST", "", poll(agent.Poll{Session: "x", Count: 1}), 401, agent.KindUnknown},
		{"another method", web1, "GET", "", nil, 404, agent.KindWrong},
	} {
		if status, kind := c.who.ask(t, c.method, p.url+agent.PathCalls+c.path, c.body); status != c.status || kind != c.kind {
			t.Errorf("%s: %d %s, want %d %s", c.what, status, kind, c.status, c.kind)
		}
	}
	if status, kind := web2.ask(t, "POST", p.url+agent.PathRenew, bytes.NewReader([]byte(`{"csr":"AAAA"}`))); status != 401 || kind != agent.KindUnknown {
		t.Errorf("a request that is none: %d %s", status, kind)
	}
	big := &endless{}
	if status, kind := web1.ask(t, "POST", p.url+agent.PathCalls+"/call-of-web1", big); status != 413 && status != 0 {
		t.Errorf("1 GB: %d %s", status, kind)
	}
	if big.read > 16<<20 {
		t.Errorf("%d bytes of an answer were read", big.read)
	}
	close(hold)
	if a := <-answered; a.Error != "web1 says" {
		t.Errorf("the call was answered with %q", a.Error)
	}
	replay := sealed(t, remote.Answer{ID: "call-of-web1", Error: "again"})
	if status, kind := web1.ask(t, "POST", p.url+agent.PathCalls+"/call-of-web1", bytes.NewReader(replay)); status != 410 {
		t.Errorf("a replayed answer: %d %s", status, kind)
	}
}

// Desired shows a node its own targets only, and a certificate of a controller's door
// is none of an agent.
func TestOnlyOnesOwnIsSeen(t *testing.T) {
	t.Parallel()
	b, p := onSQLite(t)
	state := b.join("web1", p)
	if status, kind := b.rogue().ask(t, "GET", p.url+agent.PathDesired, nil); status != 401 {
		t.Errorf("nobody: %d %s", status, kind)
	}
	if status, _ := b.rogue(b.pairOf(state)).ask(t, "GET", p.url+agent.PathDesired, nil); status != 200 {
		t.Errorf("an agent: %d", status)
	}
	cert, err := p.AgentsDoor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if status, kind := b.rogue(*cert).ask(t, "GET", p.url+agent.PathDesired, nil); status != 401 {
		t.Errorf("a door's certificate: %d %s", status, kind)
	}
	b.pass(25 * time.Hour)
	if status, kind := b.rogue(b.pairOf(state)).ask(t, "GET", p.url+agent.PathDesired, nil); status != 401 || kind != agent.KindExpired {
		t.Errorf("a certificate that ended: %d %s", status, kind)
	}
	b.run(b.join("web1", p), said("x")) // another joins in its place
	if status, kind := b.rogue(b.pairOf(state)).ask(t, "GET", p.url+agent.PathDesired, nil); status != 401 || kind != agent.KindUnknown {
		t.Errorf("a key of before: %d %s", status, kind)
	}
}

// Who guesses tokens is soon not listened to; who says nothing is hung up on.
func TestTheDoorIsNotHeldOpen(t *testing.T) {
	t.Parallel()
	b := makeBed(t, func(o store.Options) *store.Store { return storetest.SQLite(t, o) })
	p := b.post(door.Config{Header: 300 * time.Millisecond, Joins: 5})
	b.save(p)
	guess := agent.Join{Digest: strings.Repeat("0", 64)}
	text, err := json.Marshal(guess)
	if err != nil {
		t.Fatal(err)
	}
	r, last := b.rogue(), 0
	for range 7 {
		last, _ = r.ask(t, "POST", p.url+agent.PathJoin, bytes.NewReader(text))
	}
	if last != http.StatusTooManyRequests {
		t.Errorf("the seventh guess: %d", last)
	}
	b.pass(time.Minute)
	b.join("web1", p)

	at := strings.TrimPrefix(p.url, "https://")
	silent, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	slow, err := tls.Dial("tcp", at, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	if _, err := io.WriteString(slow, "POST "+agent.PathJoin+" HTTP/1.1\r\nHost: x\r\nX-Slow: "); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]net.Conn{"no handshake": silent, "half a header": slow} {
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: it was waited for", what)
		}
	}
}
