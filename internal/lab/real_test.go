package lab

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// realNode is a node with a real server that serves a placeholder.
func realNode(t *testing.T, p product) *Node {
	t.Helper()
	s := Finder(findProgram).look(p)
	if !s.real() {
		t.Skipf("%s is not installed", p)
	}
	n, err := StartNode(NodeConfig{Name: "web1", Dir: t.TempDir(), Placeholder: true, software: &s})
	must(t, err)
	t.Cleanup(func() { must(t, n.Close()) })
	n.serves(t, true)
	return n
}

// serves waits until the node serves anything, or nothing.
func (n *Node) serves(t *testing.T, wanted bool) (leaf string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		leaf, err := Serving(ctx, n.HTTPSAddr(), "shop.test")
		if (err == nil) == wanted {
			return leaf
		}
		if wait(ctx, 10*time.Millisecond) != nil {
			t.Fatalf("%s serves %q: %v", n.Name(), leaf, err)
		}
	}
}

// says runs a command of the node and returns its exit status.
func (n *Node) says(t *testing.T, line string) int {
	t.Helper()
	var out strings.Builder
	status := n.exec(t.Context(), line, strings.NewReader(""), &out)
	t.Logf("%s: %d %s", line, status, out.String())
	return status
}

// The faults that a real server knows, and its own commands.
func TestRealApache(t *testing.T) {
	t.Parallel()
	n := realNode(t, apache)
	before := n.serves(t, true)
	for line, want := range map[string]int{"apache2ctl -t": 0, "apache2ctl -k start": 0, "apache2ctl -X": statusUsage} {
		if got := n.says(t, line); got != want {
			t.Errorf("%s ends with %d", line, got)
		}
	}
	must(t, n.Set(Fault{Kind: DiesOnReload}))
	if n.says(t, "apache2ctl -k graceful") != 0 {
		t.Error("the reload is refused")
	}
	n.serves(t, false)
	must(t, n.Set(Fault{Kind: Down}))
	must(t, n.Clear())
	if n.Serves() {
		t.Error("what did not run was started with the machine")
	}
	if n.says(t, "apache2ctl -k graceful") != 0 || n.serves(t, true) != before {
		t.Error("a graceful restart does not start it")
	}
	must(t, n.Set(Fault{Kind: Down}))
	n.serves(t, false)
	must(t, n.Clear())
	n.serves(t, true)
	if err := n.Set(Fault{Kind: WrongChain}); err == nil {
		t.Error("a real server was made to serve another chain")
	}
}

// The runtime API by the node's own command, and a commit that does not arrive.
func TestRealHAProxy(t *testing.T) {
	t.Parallel()
	n := realNode(t, haproxy)
	ask := func(command string) string {
		t.Helper()
		var out strings.Builder
		if status := n.exec(t.Context(), "haproxy-admin", strings.NewReader(command), &out); status != 0 {
			t.Errorf("%s: %d %s", command, status, out.String())
		}
		return out.String()
	}
	if got := ask("show ssl cert " + DefaultPEM + "\n"); !strings.Contains(got, "Filename: "+DefaultPEM+"\n") {
		t.Errorf("it says %q", got)
	}
	must(t, n.Set(Fault{Kind: BadReload}))
	if got := ask("commit ssl cert " + DefaultPEM + "\n"); !strings.Contains(got, "Success!") {
		t.Errorf("it says %q", got)
	}
	must(t, n.Clear())
	if got := ask("commit ssl cert " + DefaultPEM + "\n"); !strings.Contains(got, "No ongoing transaction") {
		t.Errorf("it says %q", got)
	}
	for line, want := range map[string]int{"haproxy -c -f /etc/haproxy/haproxy.cfg": 0, "systemctl start haproxy": 0, "systemctl reload haproxy": 0, "systemctl stop haproxy": statusUsage} {
		if got := n.says(t, line); got != want {
			t.Errorf("%s ends with %d", line, got)
		}
	}
	n.serves(t, true)
	must(t, n.Set(Fault{Kind: Down}))
	n.serves(t, false)
}

// A store is looked into by the name that a client asks for, and what a certificate
// says does not matter.
func TestAShelfOfFilesByName(t *testing.T) {
	exact, wild := certOf(t, "shop.test"), certOf(t, "*.shop.test")
	s := shelf{certs: []tls.Certificate{exact, wild}, names: []string{"www.shop.test", "*.shop.test"}}
	for name, want := range map[string]*tls.Certificate{
		"www.shop.test": &s.certs[0], "WWW.shop.test": &s.certs[0], "api.shop.test": &s.certs[1],
		"a.b.shop.test": nil, "shop.test": nil, "": nil,
	} {
		if got, err := s.find(name); got != want || (err == nil) != (want != nil) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// A pantry is what a reader fetches from.
type pantry struct {
	mu    sync.Mutex
	now   shelf
	err   error
	asked chan struct{} // gets one for each time that somebody waits for
}

func (p *pantry) set(s shelf, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now, p.err = s, err
}

func (p *pantry) fetch(context.Context) (shelf, error) {
	select {
	case p.asked <- struct{}{}:
	default:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now, p.err
}

// A reader goes on with what it has when its store cannot be read, and takes what is
// new when it can, unless that is its fault.
func TestAReaderKeepsWhatItHas(t *testing.T) {
	t.Parallel()
	first, second := certOf(t, "a.test"), certOf(t, "b.test")
	p := &pantry{now: shelf{certs: []tls.Certificate{first}}, asked: make(chan struct{})}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	must(t, err)
	r, err := startReader(readerConfig{name: "iis1", every: time.Millisecond, log: log, fetch: p.fetch})
	must(t, err)
	t.Cleanup(func() { must(t, r.Close()) })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	serves := func(c tls.Certificate) {
		t.Helper()
		must(t, Await(ctx, r.HTTPSAddr(), "a.test", farm.Fingerprint(c.Certificate[0])))
	}
	serves(first)
	p.set(shelf{}, errors.New("the share is gone"))
	for range 3 {
		<-p.asked
	}
	serves(first)
	must(t, r.Set(Fault{Kind: BadReload}))
	p.set(shelf{certs: []tls.Certificate{second}}, nil)
	serves(first)
	must(t, r.Set(Fault{Kind: Down, For: time.Millisecond})) // and is up again by itself, with what is new
	serves(second)
}

func certOf(t *testing.T, name string) tls.Certificate {
	t.Helper()
	der, key, err := selfSigned(name, false)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
