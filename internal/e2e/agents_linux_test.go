package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/agent"
	"github.com/certfarm/certfarm/internal/agent/door"
	"github.com/certfarm/certfarm/internal/api"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/snippet"
)

const agentsPort = 8404

// TestKeysStayOnTheirNodes: three nginx, each on a machine that lets nobody in, with the
// agent as it is shipped. The site is per-node, each certificate with a name of the
// node's own; the canary goes first, and one word of a person lets the wave of the other
// two begin. Then all are renewed. The keys are on their own nodes, and on the wire, in
// the store, in the logs and in what the API says there is none of them.
func TestKeysStayOnTheirNodes(t *testing.T) {
	if !inWorld(t) {
		return
	}
	w := newNetwork(t)
	built := w.program(t)
	wire := tap(t)
	folder := t.TempDir()
	r := w.ownKeys(t, folder)
	for _, m := range w.webs {
		must(t, w.dns.Set(m.ownName(), acmeAt))
	}
	r.applyText(t, w.ownKeysYAML())
	program := built(t)
	for _, m := range w.webs {
		r.runAgent(t, m, program)
	}
	canary, others := w.webs[:1], w.webs[1:]
	r.serveOwn(t, canary, nil)
	for _, m := range others {
		if answers(m.https()) {
			t.Errorf("%s serves something, and nobody assented to its wave", m.name)
		}
	}
	r.assent(t)
	first := r.serveOwn(t, w.webs, nil)
	keys := w.keys(t)

	must(t, r.Renew(t.Context(), farmName, siteName, "e2e"))
	r.serveOwn(t, canary, first)
	r.assent(t)
	r.serveOwn(t, w.webs, first)
	for owner, texts := range w.keys(t) {
		keys[owner] = append(keys[owner], texts...)
	}

	where := map[string][]byte{"the wire": wire(), "the controllers' log": []byte(r.log.String()), "the API": r.answers(t)}
	for _, file := range []string{"certfarm.db", "certfarm.db-wal"} {
		text, err := os.ReadFile(filepath.Join(folder, file))
		must(t, err)
		where["the store's "+file] = text
	}
	for _, m := range w.webs {
		text, err := os.ReadFile(m.path("state", "node.log"))
		must(t, err)
		where["the log on "+m.name] = append(text, m.out.String()...)
	}
	search(t, keys, where)
}

// ownKeys makes the machines, the CA, and a controller with a door for agents.
func (w *world) ownKeys(t *testing.T, folder string) *rig {
	t.Helper()
	for i := range 3 {
		m := w.machine(t, "web"+strconv.Itoa(i+1), snippet.Nginx, worldNet+strconv.Itoa(11+i))
		for _, d := range []string{"tls", "store", "state"} {
			must(t, os.MkdirAll(m.path(d), 0o700))
		}
		must(t, os.WriteFile(m.path("nginx.conf"), []byte(m.nginxConf()), 0o644))
		w.webs = append(w.webs, m)
	}
	var err error
	w.dns, err = lab.NewDNS()
	must(t, err)
	t.Cleanup(func() { must(t, w.dns.Close()) })
	must(t, w.dns.Set(siteNames[0], acmeAt))
	w.ca, err = issuetest.Start(issuetest.Options{DNS: w.dns.Addr()})
	must(t, err)
	t.Cleanup(func() { must(t, w.ca.Close()) })
	r := w.rig(t, "keys", filepath.Join(folder, "certfarm.db"), filepath.Join(folder, "master.key"))
	w.hooks.set(r.ChallengeHandler())
	d, err := door.Listen(t.Context(), door.Config{Controller: r.Controller, Address: net.JoinHostPort(controllersAt, strconv.Itoa(agentsPort))})
	must(t, err)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 2)
	go func() { done <- r.Run(ctx) }()
	go func() { done <- d.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-done, <-done); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return r
}

// ownName is the name that only the machine's own certificate has.
func (m *machine) ownName() string { return m.name + ".nodes.test" }

func (w *world) ownKeysYAML() []byte {
	var b strings.Builder
	roots := ""
	for line := range strings.Lines(w.ca.ListenRoots + w.ca.Roots) {
		roots += "      " + strings.TrimRight(line, "\n") + "\n"
	}
	fmt.Fprintf(&b, "farm: %s\nresolvers: {\".\": [%q]}\nissuers:\n  pebble:\n    acme: %s\n    profile: default\n    roots: |\n%snodes:\n", farmName, w.dns.Addr(), w.ca.Directory, roots)
	for i, m := range w.webs {
		fmt.Fprintf(&b, "  %s: {address: %s, agent: true, labels: {zone: %q}}\n", m.name, m.addr, "abb"[i:i+1])
	}
	fmt.Fprintf(&b, "sites:\n  %s:\n    names: [%s]\n    strategy: per-node\n    node_name: \"{node}.nodes.test\"\n    issuer: pebble\n    validation: {via: gateway}\n    targets:\n", siteName, siteNames[0])
	for _, m := range w.webs {
		test, reload, start := m.commands()
		fmt.Fprintf(&b, "      - kind: nginx\n        on: %s\n        options: {pem: %q, store: %q, test: %s, reload: %s, start: %s}\n        endpoints: [{port: %d}]\n",
			m.name, m.files()[0], m.path("store"), words(test), words(reload), words(start), httpsPort)
	}
	b.WriteString("    policy:\n      waves: [{name: careful, match: {zone: b}, approve: true}]\n      max_parallel: 100%\n      soak: 0s\n      deadline: 30s\n      healthy_deadline: 20s\n")
	return []byte(b.String())
}

// runAgent has a machine join, with the policy that the controller prints for it, and
// runs its agent there.
func (r *rig) runAgent(t *testing.T, m *machine, program string) {
	t.Helper()
	k := agent.Token{Secret: agent.NewTokenSecret()}
	made, err := r.NewAgentToken(t.Context(), farmName, controller.AgentTokenAsk{Digest: k.Digest(), Node: m.name}, "e2e")
	must(t, err)
	k.Pins = made.Pins
	must(t, os.WriteFile(m.path("token"), k.Text().Reveal(), 0o600))
	policy, err := r.NodePolicy(t.Context(), farmName, m.name)
	must(t, err)
	must(t, os.WriteFile(m.path("policy.yaml"), []byte(policy.Parts[0].Text), 0o600))
	server := "https://" + net.JoinHostPort(controllersAt, strconv.Itoa(agentsPort))
	must(t, m.begin(t, program, "agent", "join", "--server", server, "--token-file", m.path("token"), "--state", m.path("state")).Wait())
	run := m.begin(t, program, "agent", "run", "--state", m.path("state"), "--policy", m.path("policy.yaml"))
	t.Cleanup(func() { quit(run) })
}

// assent waits until the careful wave waits for a person, and assents to it for the
// whole site.
func (r *rig) assent(t *testing.T) {
	t.Helper()
	within(t, limit, "a wave waits for a person", func() bool {
		_, err := r.Tell(t.Context(), farmName, siteName, controller.Approve, "careful", "e2e")
		return err == nil
	})
}

// serveOwn waits until each machine serves a certificate of its own for the site's name
// and the node's own, trusted, and none of those before; it returns the leaves.
func (r *rig) serveOwn(t *testing.T, all []*machine, before []string) (leaves []string) {
	t.Helper()
	for _, m := range all {
		within(t, limit, m.name+" serves its own", func() bool {
			leaf, err := leafAt(t, m.https(), m.ownName(), r.roots)
			also, notYet := leafAt(t, m.https(), siteNames[0], r.roots)
			if err != nil || notYet != nil || leaf != also || slices.Contains(before, leaf) {
				return false
			}
			leaves = append(leaves, leaf)
			return true
		})
	}
	if len(slices.Compact(slices.Sorted(slices.Values(leaves)))) != len(all) {
		t.Errorf("two machines serve one certificate: %v", leaves)
	}
	return leaves
}

// keys are the private keys on the machines, by what they are: those of certificates,
// and that by which the agent is known.
func (w *world) keys(t *testing.T) map[string][][]byte {
	t.Helper()
	all := map[string][][]byte{}
	for _, m := range w.webs {
		files, err := filepath.Glob(m.path("state", "keys", "*.pem"))
		must(t, err)
		if len(files) == 0 {
			t.Fatalf("%s holds no key", m.name)
		}
		for _, file := range append(files, m.files()[0], m.path("state", "agent.json")) {
			text, err := os.ReadFile(file)
			must(t, err)
			all[m.name] = append(all[m.name], text)
		}
	}
	return all
}

// answers is all that the API says to a person who may everything.
func (r *rig) answers(t *testing.T) (all []byte) {
	t.Helper()
	h := api.New(api.Config{Controller: r.Controller, Version: "test"})
	good := 0
	for _, route := range api.Routes() {
		if route.Method != http.MethodGet {
			continue
		}
		for _, site := range []string{siteName, siteName + "@web1", siteName + "@web2"} {
			path := strings.NewReplacer("{farm}", farmName, "{site}", site, "{node}", "web1", "{rollout}", site).Replace(route.Path)
			if strings.Contains(path, "{") || strings.HasSuffix(path, "/follow") {
				continue
			}
			ctx, cancel := context.WithTimeout(access.WithCaller(t.Context(), access.Local("e2e")), 2*time.Second)
			out := httptest.NewRecorder()
			h.ServeHTTP(out, httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil))
			cancel()
			if out.Code == http.StatusOK {
				good++
			}
			all = append(all, out.Body.Bytes()...)
			if path == route.Path || !strings.Contains(route.Path, "{site}") {
				break
			}
		}
	}
	if good < 10 || !strings.Contains(string(all), "web1.nodes.test") {
		t.Errorf("the API gave %d answers, and nothing about web1 in them: %.300s", good, all)
	}
	return all
}
