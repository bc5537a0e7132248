package e2e

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
)

// The names in farm.yaml.
const (
	farmName = "e2e"
	siteName = "shop"
)

var siteNames = []string{"shop.test", "www.shop.test"}

// ground is what the controller finds: machines, a balancer, a name server and a
// CA. It knows nothing of the controller but where it answers challenges.
type ground struct {
	dir     string
	gateway string // the balancer's address
	said    locked // what the balancer wrote
	nodes   []*node
	dns     *lab.DNS
	ca      *issuetest.CA // nil: none
	roots   *x509.CertPool
	hooks   challenges // what answers the CA
	keyFile string     // the controller's login key
}

// challenges is the address that the balancer sends the CA's questions to,
// whichever controller runs.
type challenges struct {
	mu      sync.Mutex
	handler http.Handler
	addr    string
}

func (c *challenges) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	h := c.handler
	c.mu.Unlock()
	if h == nil {
		http.Error(w, "no controller", http.StatusServiceUnavailable)
		return
	}
	h.ServeHTTP(w, r)
}

func (c *challenges) set(h http.Handler) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handler = h
}

// newGround starts everything but the controller.
func newGround(t *testing.T, withCA bool, specs ...nodeSpec) *ground {
	t.Helper()
	needs(t)
	g := &ground{dir: newFolder(t)}
	t.Cleanup(func() {
		if t.Failed() {
			g.tell(t)
		}
		must(t, drop(g.dir))
	})
	g.keyFile = filepath.Join(g.dir, "id_ed25519")
	key := newKey(t, g.keyFile)
	net := freeNet(t)
	g.gateway = net + "100"
	for i, s := range specs {
		n := &node{nodeSpec: s, addr: net + strconv.Itoa(i+1), dir: filepath.Join(g.dir, s.name)}
		n.setUp(t, key)
		g.nodes = append(g.nodes, n)
	}
	g.allow(t)
	g.answer(t)
	g.balance(t)
	var err error
	g.dns, err = lab.NewDNS()
	must(t, err)
	t.Cleanup(func() { must(t, g.dns.Close()) })
	for _, name := range siteNames {
		must(t, g.dns.Set(name, g.gateway))
	}
	g.roots = x509.NewCertPool()
	g.roots.AddCert(authority.root)
	if withCA {
		g.ca, err = issuetest.Start(issuetest.Options{DNS: g.dns.Addr(), HTTPPort: gatewayPort})
		must(t, err)
		t.Cleanup(func() { must(t, g.ca.Close()) })
		g.roots = x509.NewCertPool()
		g.roots.AppendCertsFromPEM([]byte(g.ca.Roots))
	}
	return g
}

// freeNet finds 127.77.x. that nobody else uses, and keeps it: who has its last
// address has the net.
func freeNet(t testing.TB) string {
	t.Helper()
	for range 50 {
		prefix := fmt.Sprintf("127.77.%d.", 1+rand.IntN(250))
		l, err := net.Listen("tcp", prefix+"254:"+strconv.Itoa(httpsPort))
		if err == nil {
			t.Cleanup(func() { must(t, l.Close()) })
			return prefix
		}
	}
	t.Fatal("port " + strconv.Itoa(httpsPort) + " is taken on every address of 127.77.0.0/16")
	return ""
}

// allow writes the sudo rule: exactly the commands of farm.yaml.
func (g *ground) allow(t testing.TB) {
	t.Helper()
	var all []string
	for _, n := range g.nodes {
		test, reload, start := n.commands()
		for _, argv := range [][]string{test, reload, start} {
			all = append(all, strings.Join(argv, " "))
		}
	}
	file := filepath.Join(g.dir, "sudoers")
	must(t, os.WriteFile(file, []byte(login+" ALL=(root) NOPASSWD: "+strings.Join(all, ", ")+"\n"), 0o440))
	must(t, command("visudo", "-cf", file))
	must(t, command("install", "-m", "0440", file, sudoersOf(g.dir)))
}

// answer serves the controller's answers to the CA's questions.
func (g *ground) answer(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	g.hooks.addr = l.Addr().String()
	s := &http.Server{Handler: &g.hooks, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.Serve(l) }() // always an error: Close was called
	t.Cleanup(func() { must(t, s.Close()) })
}

// balance starts HAProxy: round robin over the nodes for TLS, and the challenge
// path to the controller.
func (g *ground) balance(t testing.TB) {
	t.Helper()
	var servers strings.Builder
	for _, n := range g.nodes {
		fmt.Fprintf(&servers, "  server %s %s check inter 200ms\n", n.name, n.https())
	}
	file := filepath.Join(g.dir, "haproxy.cfg")
	must(t, os.WriteFile(file, []byte(fmt.Sprintf(`global
  stats socket ipv4@%[6]s level admin
defaults
  timeout connect 2s
  timeout client 30s
  timeout server 30s
frontend gateway
  mode http
  bind %[1]s:%[2]d
  use_backend controller if { path_beg /.well-known/acme-challenge/ }
  default_backend nothing
backend controller
  mode http
  server controller %[3]s
backend nothing
  mode http
  http-request return status 404
frontend tls
  mode tcp
  bind %[1]s:%[4]d
  default_backend nodes
backend nodes
  mode tcp
  balance roundrobin
  option redispatch
%[5]s`, g.gateway, gatewayPort, g.hooks.addr, httpsPort, servers.String(), g.adminSocket())), 0o644))
	c := exec.Command(haproxyPath, "-db", "-f", file)
	c.Stdout, c.Stderr = &g.said, &g.said
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, c.Start())
	t.Cleanup(func() {
		_ = c.Process.Kill() // it may have ended
		_ = c.Wait()         // an error: it was killed
		if t.Failed() {
			t.Logf("haproxy:\n%s", g.said.String())
		}
	})
	within(t, 20*time.Second, "haproxy takes connections", func() bool {
		return answers(net.JoinHostPort(g.gateway, strconv.Itoa(gatewayPort)))
	})
}

// adminSocket is the balancer's, for everybody on this machine.
func (g *ground) adminSocket() string { return net.JoinHostPort(g.gateway, strconv.Itoa(adminPort)) }

// tell shows what the servers wrote.
func (g *ground) tell(t testing.TB) {
	for _, n := range g.nodes {
		for _, file := range []string{"error.log", "sshd.log"} {
			text, err := os.ReadFile(n.path(file))
			if err == nil {
				t.Logf("%s of %s, the end:\n%s", file, n.name, text[max(0, len(text)-2000):])
			}
		}
	}
}

func (g *ground) node(t testing.TB, name string) *node {
	t.Helper()
	for _, n := range g.nodes {
		if n.name == name {
			return n
		}
	}
	t.Fatal("no node " + name)
	return nil
}

// farmYAML is the farm as a person would write it. Where there is no CA it names
// one that does not answer and has signed nothing that is served, so that all
// certificates are imported ones.
func (g *ground) farmYAML(policy string) []byte {
	var b strings.Builder
	directory, pem := "https://127.0.0.1:9/dir", string(stranger.pem())
	if g.ca != nil {
		directory, pem = g.ca.Directory, g.ca.ListenRoots+g.ca.Roots
	}
	roots := "    roots: |\n"
	for line := range strings.Lines(pem) {
		roots += "      " + strings.TrimRight(line, "\n") + "\n"
	}
	fmt.Fprintf(&b, "farm: %s\nresolvers: {\".\": [%q]}\nissuers:\n  pebble:\n    acme: %s\n    profile: default\n%snodes:\n", farmName, g.dns.Addr(), directory, roots)
	for _, n := range g.nodes {
		fmt.Fprintf(&b, "  %s:\n    address: %s\n    become: sudo\n    labels: {pool: web}\n    ssh: {port: %d, user: %s, key: {file: %q}, host_key: [%q], connect_timeout: 2s}\n",
			n.name, n.addr, sshPort, login, g.keyFile, strings.TrimSpace(n.hostKey))
	}
	fmt.Fprintf(&b, "sites:\n  %s:\n    names: [%s]\n    issuer: pebble\n    targets:\n", siteName, strings.Join(siteNames, ", "))
	for _, n := range g.nodes {
		test, reload, start := n.commands()
		files := fmt.Sprintf("pem: %q", n.files()[0])
		if n.pair {
			files = fmt.Sprintf("chain: %q, key: %q", n.files()[0], n.files()[1])
		}
		fmt.Fprintf(&b, "      - kind: %s\n        on: %s\n        options: {%s, store: %q, test: %s, reload: %s, start: %s}\n        endpoints: [{port: %d}]\n",
			n.kind, n.name, files, n.path("store"), words(test), words(reload), words(start), httpsPort)
	}
	fmt.Fprintf(&b, "    balancers: [{address: \"%s:%d\"}]\n    policy: {%s}\n", g.gateway, httpsPort, policy)
	return []byte(b.String())
}

func words(argv []string) string {
	var all []string
	for _, w := range argv {
		all = append(all, strconv.Quote(w))
	}
	return "[" + strings.Join(all, ", ") + "]"
}

// pace is so quick that a test can wait for what takes hours in production.
var pace = controller.Pace{Look: time.Second, Late: 300 * time.Millisecond, Retry: time.Second, Lease: 20 * time.Second}

// A rig is a ground with a controller at work.
type rig struct {
	*ground
	*controller.Controller
	trouble *trouble
	log     *locked // the controller's
	last    string  // the last rollout that was looked at
}

// start runs a controller over the database at an address until the test ends.
func start(t *testing.T, g *ground, database string) *rig {
	t.Helper()
	r := &rig{ground: g, trouble: &trouble{}}
	s, err := store.Open(t.Context(), database, store.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	keys, err := secret.Load(secret.Source{File: filepath.Join(t.TempDir(), "master.key")})
	must(t, err)
	log := &locked{}
	c, lines := controller.Real(s, keys, slog.New(slog.NewTextHandler(log, nil)))
	t.Cleanup(func() { must(t, lines.Close()) })
	c.InPlace, c.Pace = true, pace
	c.CAPort = gatewayPort
	c.Hosts = r.trouble.on(t, g, c.Hosts)
	r.Controller = controller.New(c)
	g.hooks.set(r.ChallengeHandler())
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		g.hooks.set(nil)
		stop()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if t.Failed() {
			r.journal(t)
			for line := range strings.Lines(log.String()) {
				if !strings.Contains(line, " event=") { // these are in the journal
					t.Log(strings.TrimSpace(line))
				}
			}
		}
	})
	return r
}

// locked is a buffer that may be written and read at once.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// journal shows what the controller says has happened.
func (r *rig) journal(t testing.TB) {
	events, err := r.Events(context.WithoutCancel(t.Context()), farmName, store.EventQuery{Limit: 500})
	if err != nil {
		t.Log(err)
	}
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "%s %-7s %-18s %-8s %s\n", e.At.Format("05.000"), e.Level, e.Kind, farm.Short(strings.TrimPrefix(e.Rollout, "ro")), e.Text)
	}
	t.Logf("the journal:\n%s", b.String())
}

// apply applies the farm.yaml.
func (r *rig) apply(t testing.TB, policy string) {
	t.Helper()
	r.applyText(t, r.farmYAML(policy))
}

func (r *rig) applyText(t testing.TB, text []byte) {
	t.Helper()
	p, err := r.Plan(t.Context(), text, "farm.yaml")
	if err != nil {
		t.Fatalf("plan: %v\n%s", err, text)
	}
	_, err = r.Apply(t.Context(), text, "farm.yaml", "e2e", p.Revision)
	must(t, err)
}

// next waits for the end of the rollout after the last one that was looked at.
func (r *rig) next(t testing.TB, limit time.Duration) farm.Rollout {
	t.Helper()
	ctx, cancel := timeout(t, limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond) // commits come far oftener than that
	defer tick.Stop()
	for {
		all, err := r.Rollouts(ctx, farmName, siteName, 4) // newest first
		must(t, err)
		var next farm.Rollout
		for _, ro := range all {
			if ro.ID == r.last {
				break
			}
			next = ro
		}
		if next.ID != "" && next.Outcome != farm.Running {
			r.last = next.ID
			return next
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("no rollout ended within %s; the last that began is %q: %+v", limit, next.ID, next.Steps)
		}
	}
}

// ended is next, with the outcome that it must have.
func (r *rig) ended(t testing.TB, limit time.Duration, want farm.Outcome) farm.Rollout {
	t.Helper()
	ro := r.next(t, limit)
	if ro.Outcome != want {
		t.Fatalf("the rollout (%s) ended as %q, want %q: %s", ro.Reason, ro.Outcome, want, ro.Why)
	}
	return ro
}

// seen asks every node by a handshake of the test's own: each must serve the
// leaf, trusted, for every name.
func (r *rig) seen(t testing.TB, leaf string, nodes ...*node) {
	t.Helper()
	if len(nodes) == 0 {
		nodes = r.nodes
	}
	for _, n := range nodes {
		for _, name := range siteNames {
			got, err := leafAt(t, n.https(), name, r.roots)
			if err != nil || got != leaf {
				t.Errorf("%s serves %s for %s (%v), want %s", n.name, farm.Short(got), name, err, farm.Short(leaf))
			}
		}
	}
}

// leaf is the leaf of the version that a rollout brings.
func (r *rig) leaf(t testing.TB, version string) string {
	t.Helper()
	d, err := r.Describe(t.Context(), farmName, siteName)
	must(t, err)
	for _, v := range d.Versions {
		if v.ID == version {
			return v.Leaves[0].Fingerprint
		}
	}
	t.Fatalf("no version %s", version)
	return ""
}

// certificates is how many certificates the CA has issued for the site, of as
// many orders.
func (r *rig) certificates(t testing.TB, want int) {
	t.Helper()
	s := r.ca.Stats()
	set := strings.Join(siteNames, ",")
	if s.Certificates[set] != want || s.Finalized[set] != want || s.Orders[set] != want {
		t.Errorf("the CA issued %d certificates of %d orders, %d finalized; want %d of each", s.Certificates[set], s.Orders[set], s.Finalized[set], want)
	}
}
