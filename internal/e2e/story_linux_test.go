package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

// limit is how long anything may take: a few seconds, or long on a machine that
// does much else.
const limit = 2 * time.Minute

// policy is careful in the same way as the default, with times to wait for.
const policy = "canary: 1, max_parallel: 2, soak: 300ms, deadline: 30s, healthy_deadline: 5s, failure_budget: 0, absent_max: 1, drift: heal"

// TestTransaction is the life of one certificate on a farm of real servers: each
// step goes on from the one before, so that the whole is one story. Four orders
// are all that the limits allow for its names in a week.
func TestTransaction(t *testing.T) {
	for name, database := range map[string]func(testing.TB) string{
		"sqlite":   func(t testing.TB) string { return filepath.Join(t.TempDir(), "certfarm.db") },
		"postgres": storetest.Postgres,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			g := newGround(t, true,
				nodeSpec{name: "web1", kind: "nginx"},
				nodeSpec{name: "web2", kind: "nginx", pair: true, plain: true},
				nodeSpec{name: "web3", kind: "apache"},
				nodeSpec{name: "web4", kind: "apache", pair: true})
			s := &story{rig: start(t, g, database(t)), pairs: watchPairs(t, g.nodes)}
			for _, chapter := range []struct {
				name string
				tell func(*testing.T)
			}{
				{"first issue, aborted", s.aborted},
				{"first issue", s.firstIssue},
				{"renew", s.renew},
				{"wrong key on the way", s.wrongKey},
				{"a server dies on reload", s.diesOnReload},
				{"a node serves but cannot be reached", s.halfReached},
				{"a node is down and comes back", s.downAndBack},
				{"undo", s.undo},
			} {
				begun := time.Now()
				if !t.Run(chapter.name, func(t *testing.T) {
					chapter.tell(t)
					s.pairs.check(t)
				}) {
					t.Fatal("the story ends here")
				}
				t.Logf("%s took %s", chapter.name, time.Since(begun).Round(10*time.Millisecond))
			}
		})
	}
}

// A story is a rig with what was served so far.
type story struct {
	*rig
	pairs  *pairWatch
	leaves []string // of the versions, in the order of their issuing
}

// now is the leaf of the newest version.
func (s *story) now() string { return s.leaves[len(s.leaves)-1] }

// aborted: three servers cannot start yet, since their configuration names files
// that are not there; the fourth serves what somebody else put there. The canary
// gets the first certificate, and then a person says no: the canary goes back to
// a placeholder, so that it can start, and nobody else is touched.
func (s *story) aborted(t *testing.T) {
	for _, n := range s.nodes {
		if up := answers(n.https()); up != n.plain {
			t.Fatalf("%s answers: %v", n.name, up)
		}
	}
	canary, web2 := s.node(t, "web3"), s.node(t, "web2") // targets are in the order of their names
	before, err := lab.Serving(t.Context(), web2.https(), siteNames[0])
	must(t, err)
	s.apply(t, policy+", waves: [{name: others, match: {pool: web}, approve: true}]")
	within(t, limit, "the canary serves a trusted certificate", func() bool {
		_, err := leafAt(t, canary.https(), siteNames[0], s.roots)
		return err == nil
	})
	_, err = s.Tell(t.Context(), farmName, siteName, controller.Abort, "", "e2e")
	must(t, err)
	s.ended(t, limit, farm.RolledBack)
	if _, err := leafAt(t, canary.https(), siteNames[0], s.roots); !errors.As(err, new(*tls.CertificateVerificationError)) {
		t.Errorf("%s should serve a placeholder, which nobody trusts: %v", canary.name, err)
	}
	after, err := lab.Serving(t.Context(), web2.https(), siteNames[0])
	if err != nil || after != before {
		t.Errorf("web2 serves %s (%v), as before the rollout it must be %s", farm.Short(after), err, farm.Short(before))
	}
	for _, n := range s.nodes {
		if n != canary && n != web2 && answers(n.https()) {
			t.Errorf("%s was started", n.name)
		}
	}
	s.certificates(t, 1)
}

// firstIssue: a person says that the version of the order that there was is tried
// again; it gets its assent, and goes to every node.
func (s *story) firstIssue(t *testing.T) {
	web2 := s.node(t, "web2")
	m := lab.StartMeter(lab.MeterConfig{Address: web2.https(), SNI: siteNames[0], Every: 100 * time.Millisecond, Timeout: 10 * time.Second})
	for _, what := range []string{"what was aborted is tried again", "a rollout waits for assent"} {
		within(t, limit, what, func() bool {
			_, err := s.Tell(t.Context(), farmName, siteName, controller.Approve, "", "e2e")
			return err == nil
		})
	}
	ro := s.ended(t, limit, farm.Done)
	seen := m.Close()
	s.apply(t, policy) // from now on nobody is asked
	s.leaves = append(s.leaves, s.leaf(t, ro.To.ID))
	s.seen(t, s.now())
	s.certificates(t, 1)
	if served := seen.Served(); seen.Failures > 0 || len(served) != 2 || served[1] != s.now() {
		t.Errorf("web2 served %v with %d failures, want what it had, and then the new leaf", served, seen.Failures)
	}
	for _, n := range s.nodes {
		for _, file := range n.files() {
			to, err := os.Readlink(file)
			if err != nil || !strings.HasPrefix(to, n.path("store")+"/") {
				t.Errorf("%s is no link into the store: %q, %v", file, to, err)
			}
		}
		if info, err := os.Stat(n.keyFile()); err != nil || info.Mode() != 0o600 {
			t.Errorf("the key on %s is readable to others: %v, %v", n.name, info, err)
		}
	}
	s.throughBalancer(t)
}

// throughBalancer: whoever comes by the balancer gets the newest leaf, on as many
// connections as meet every node.
func (s *story) throughBalancer(t *testing.T) {
	t.Helper()
	addr := net.JoinHostPort(s.gateway, strconv.Itoa(httpsPort))
	within(t, limit, "the balancer has found every node", func() bool {
		for range 4 * len(s.nodes) {
			if leaf, err := leafAt(t, addr, siteNames[0], s.roots); err != nil || leaf != s.now() {
				return false
			}
		}
		return true
	})
}

// renew: no handshake fails at any node that would not fail at the server's own
// bare reload too.
func (s *story) renew(t *testing.T) {
	bare := s.metered(t, func() {
		for _, n := range s.nodes {
			before := n.reloads(t)
			must(t, n.reload())
			within(t, 20*time.Second, n.name+" reloads", func() bool { return n.reloads(t) > before })
		}
		wait(t, time.Second) // the last worker changes after the reload was told of
	})
	before := s.reloads(t)
	var ro farm.Rollout
	renewal := s.metered(t, func() {
		must(t, s.Renew(t.Context(), farmName, siteName, "e2e"))
		ro = s.ended(t, limit, farm.Done)
	})
	old := s.now()
	s.leaves = append(s.leaves, s.leaf(t, ro.To.ID))
	s.seen(t, s.now())
	s.certificates(t, 2)
	for i, n := range s.nodes {
		if f, b := renewal[i].Failures, bare[i].Failures; f > b {
			t.Errorf("%s: %d of %d handshakes failed in the renewal, %d of %d in a bare reload: %+v", n.name, f, renewal[i].Tries, b, bare[i].Tries, renewal[i].Spans)
		}
		if got := renewal[i].Served(); !slices.Equal(got, []string{old, s.now()}) {
			t.Errorf("%s has served %v, want the old leaf and then the new one alone: %s %s", n.name, got, old, s.now())
		}
		if got := n.reloads(t) - before[i]; got != 1 {
			t.Errorf("%s was reloaded %d times, want once", n.name, got)
		}
	}
}

// metered reads a meter at each node while something is done.
func (s *story) metered(t *testing.T, do func()) (all []lab.Reading) {
	t.Helper()
	var meters []*lab.Meter
	for _, n := range s.nodes {
		meters = append(meters, lab.StartMeter(lab.MeterConfig{Address: n.https(), SNI: siteNames[0], Every: 100 * time.Millisecond, Timeout: 10 * time.Second}))
	}
	defer func() {
		for _, m := range meters {
			all = append(all, m.Close())
		}
	}()
	do()
	return nil // the readings are taken when all has been done
}

// reloads counts those of each node.
func (r *rig) reloads(t testing.TB) (all []int) {
	for _, n := range r.nodes {
		all = append(all, n.reloads(t))
	}
	return all
}

// wrongKey: what arrives at a node is not what was sent. It is found before
// anything goes live, so no server is reloaded and nothing is left behind.
func (s *story) wrongKey(t *testing.T) {
	reloads, kept := s.reloads(t), s.kept(t)
	s.trouble.set("web3", "")
	must(t, s.Renew(t.Context(), farmName, siteName, "e2e"))
	// The same version is tried again by itself; it must not go live before the
	// next chapter, so activations are stopped. Going back is not stopped.
	must(t, s.Freeze(t.Context(), farmName, "e2e", true))
	ro := s.ended(t, limit, farm.RolledBack)
	s.trouble.set("", "")
	if st := stepOf(t, ro, "web3"); st.Touched || st.Fault != farm.NodeFault {
		t.Errorf("web3 ended as %+v, want a node fault at stage", st)
	}
	s.seen(t, s.now())
	if got := s.reloads(t); !slices.Equal(got, reloads) {
		t.Errorf("servers were reloaded: %v times before, %v after", reloads, got)
	}
	after, newest := s.kept(t), s.newest(t)
	if newest != ro.ID {
		t.Log("the next try has begun: too late to see that nothing was left behind")
	} else if !slices.Equal(after, kept) {
		t.Errorf("in the stores lies %v, and before the rollout %v", after, kept)
	}
	s.leaves = append(s.leaves, s.leaf(t, ro.To.ID))
	s.certificates(t, 3)
}

// newest is the id of the newest rollout, running or not.
func (s *story) newest(t testing.TB) string {
	t.Helper()
	r, err := s.Rollout(t.Context(), farmName, siteName)
	must(t, err)
	return r.ID
}

// kept is what lies in the stores of all nodes.
func (s *story) kept(t testing.TB) (all []string) {
	for _, n := range s.nodes {
		all = append(all, fmt.Sprint(n.kept(t)))
	}
	return all
}

// diesOnReload: the same version again, without a new order. Apache is told to
// take a key that is wrong by then, and ends. Everything goes back, and Apache
// is started.
func (s *story) diesOnReload(t *testing.T) {
	served := s.leaves[1]
	pid := s.node(t, "web4").server()
	s.pairs.excuse("web4")
	s.trouble.set("", "web4")
	must(t, s.Freeze(t.Context(), farmName, "e2e", false))
	ro := s.ended(t, limit, farm.RolledBack)
	if st := stepOf(t, ro, "web4"); !st.Touched || st.Fault != farm.NodeFault || st.State != farm.Restored {
		t.Errorf("web4 ended as %+v, want a node fault after the activation, and restored", st)
	}
	s.seen(t, served)
	if now := s.node(t, "web4").server(); now == pid || now == 0 {
		t.Errorf("Apache on web4 has process %d, as before: it did not die", now)
	}
	s.pairs.excuse("")
	s.certificates(t, 3)
}

// halfReached: a node that cannot be reached for deployment, but serves. No node
// may change then. When it can be reached, the same version goes out.
func (s *story) halfReached(t *testing.T) {
	served, reloads := s.leaves[1], s.reloads(t)
	web2 := s.node(t, "web2")
	web2.stopSSH(t)
	ro := s.ended(t, limit, farm.RolledBack)
	if st := stepOf(t, ro, "web2"); st.Fault != farm.NodeFault || st.State == farm.Absent {
		t.Errorf("web2 ended as %+v, want a node fault", st)
	}
	s.seen(t, served)
	if got := s.reloads(t); !slices.Equal(got, reloads) {
		t.Errorf("servers were reloaded: %v times before, %v after", reloads, got)
	}
	web2.startSSH(t)
	s.ended(t, limit, farm.Done)
	s.seen(t, s.now())
	s.certificates(t, 3)
}

// downAndBack: a node that is silent everywhere holds nobody up, and gets what it
// missed when it is back, without a new order.
func (s *story) downAndBack(t *testing.T) {
	web4 := s.node(t, "web4")
	web4.stopSSH(t)
	web4.killServer(t)
	must(t, s.Renew(t.Context(), farmName, siteName, "e2e"))
	ro := s.ended(t, limit, farm.DonePartly)
	s.leaves = append(s.leaves, s.leaf(t, ro.To.ID))
	if st := stepOf(t, ro, "web4"); st.State != farm.Absent {
		t.Errorf("web4 ended as %+v, want absent", st)
	}
	s.seen(t, s.now(), s.nodes[:3]...)
	s.certificates(t, 4)

	web4.startSSH(t)
	web4.startServer(t)
	s.ended(t, limit, farm.Done)
	s.seen(t, s.now())
	s.certificates(t, 4)
	s.throughBalancer(t)
}

// undo brings the version before back, everywhere.
func (s *story) undo(t *testing.T) {
	must(t, s.Undo(t.Context(), farmName, siteName, "", "e2e"))
	s.ended(t, limit, farm.Done)
	s.seen(t, s.leaves[len(s.leaves)-2])
	s.certificates(t, 4)
}

func stepOf(t testing.TB, r farm.Rollout, node string) farm.Step {
	t.Helper()
	for _, s := range r.Steps {
		if strings.HasSuffix(s.Target, "@"+node) {
			return s
		}
	}
	t.Fatal("no step for " + node)
	return farm.Step{}
}

// wait lets time pass where there is nothing to wait for.
func wait(t testing.TB, d time.Duration) {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	<-ctx.Done()
}
