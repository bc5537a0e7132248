package drain_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/drain"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/hosttest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pool is a balancer behind a command, with one node in it.
type pool struct {
	state string // in, out or held
	open  int
	until time.Time // when the open connections end; zero: never
	calls []string
}

func (p *pool) answer(_ context.Context, argv []string, _ []byte) ([]byte, error) {
	if argv[0] != "pool" {
		return nil, nil
	}
	p.calls = append(p.calls, argv[1])
	switch argv[1] {
	case "state":
		if p.state == "out" {
			if !p.until.IsZero() && !time.Now().Before(p.until) {
				p.open = 0
			}
			return fmt.Appendf(nil, "out %d\n", p.open), nil
		}
		return []byte(p.state + "\n"), nil
	case "out":
		p.state = "out"
	case "back":
		p.state = "in"
	}
	return nil, nil
}

// memory is a ledger that outlives every deployer of a test.
func memory() drain.Ledger {
	var kept []string
	return drain.Ledger{
		Read:  func(context.Context) ([]string, error) { return kept, nil },
		Write: func(_ context.Context, names []string) error { kept = slices.Clone(names); return nil },
	}
}

// change is an inner deployer that tells how its node stood.
type change struct {
	deploy.Deployer
	pool         *pool
	serves       string
	stood        []string // at each Activate and Restore
	fail, refuse error    // after the switch, in place of it
}

func (c *change) Inspect(context.Context) (deploy.Installed, error) {
	return deploy.Installed{Leaves: []string{c.serves}}, nil
}

func (c *change) Stage(context.Context, deploy.Stage) (deploy.Receipt, error) {
	return deploy.Receipt{Note: []byte(`{}`), Wait: time.Second}, nil
}

func (c *change) Activate(ctx context.Context, _ []deploy.Receipt) error {
	c.stood = append(c.stood, c.pool.state)
	if c.refuse != nil {
		return c.refuse
	}
	c.serves = "new"
	return c.fail
}

func (c *change) Restore(context.Context, []deploy.Receipt) error {
	c.stood = append(c.stood, c.pool.state)
	if c.refuse != nil {
		return c.refuse
	}
	c.serves = "old"
	return nil
}

func (c *change) Discard(context.Context, deploy.Receipt) error { return nil }

// scene is one node in one pool.
type scene struct {
	*change
	ledger drain.Ledger
	d      *drain.Deployer
}

func newScene(t *testing.T, wait time.Duration) *scene {
	t.Helper()
	p := &pool{state: "in"}
	s := &scene{change: &change{pool: p, serves: "old"}, ledger: memory()}
	s.d = drain.New(drain.Setup{
		Inner: s.change, Ledger: s.ledger,
		Servers: []drain.Server{{Wait: wait, Balancer: drain.Command{Run: &hosttest.Mem{Exec: p.answer}, List: "pool", Argv: []string{"pool"}, Node: "web1"}}},
		Look: func(ctx context.Context, _ string, leaves []string) error {
			if slices.Contains(leaves, s.serves) {
				return nil
			}
			<-ctx.Done()
			return fmt.Errorf("web1:443 serves %s", s.serves)
		},
	})
	return s
}

func (s *scene) stage(t *testing.T) []deploy.Receipt {
	t.Helper()
	r, err := s.d.Stage(t.Context(), deploy.Stage{Bundles: []farm.Bundle{{Leaf: "new"}}})
	must(t, err)
	return []deploy.Receipt{r}
}

func (s *scene) stands(t *testing.T, want string) {
	t.Helper()
	if s.pool.state != want {
		t.Errorf("the node is %s, want %s; calls %q", s.pool.state, want, s.pool.calls)
	}
}

func TestConnectionsAreWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, time.Minute)
		rs := s.stage(t)
		if rs[0].Wait < time.Minute+time.Second {
			t.Errorf("the receipt asks for %s, the wait alone is a minute", rs[0].Wait)
		}
		begin := time.Now()
		s.pool.open, s.pool.until = 3, begin.Add(10*time.Second)
		must(t, s.d.Activate(t.Context(), rs))
		if took := time.Since(begin); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("it took %s, the connections ended after 10s", took)
		}
		s.stands(t, "in")
		if !slices.Equal(s.stood, []string{"out"}) {
			t.Errorf("at the change it was %q", s.stood)
		}
	})
}

func TestConnectionsThatDoNotEndHoldNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, time.Minute)
		s.pool.open = 3
		begin := time.Now()
		must(t, s.d.Activate(t.Context(), s.stage(t)))
		if took := time.Since(begin); took < time.Minute || took > 61*time.Second {
			t.Errorf("it took %s, want the wait of a minute", took)
		}
		s.stands(t, "in")
	})
}

func TestWhatSomebodyTookOutIsLeftOut(t *testing.T) {
	for _, by := range []string{"out", "held"} {
		s := newScene(t, 0)
		s.pool.state = by
		rs := s.stage(t)
		must(t, s.d.Activate(t.Context(), rs))
		s.stands(t, by)
		must(t, s.d.Restore(t.Context(), rs))
		must(t, s.d.Discard(t.Context(), rs[0]))
		s.stands(t, by)
		if slices.Contains(s.pool.calls, "back") || slices.Contains(s.pool.calls, "out") {
			t.Errorf("%s: called %q", by, s.pool.calls)
		}
	}
}

// A balancer that the node has no more is not forgotten: nobody else knows that it was
// we who took the node out there.
func TestTheLedgerKeepsWhatTheNodeHasNoMore(t *testing.T) {
	s := newScene(t, 0)
	const gone = "web1 by command old"
	must(t, s.ledger.Write(t.Context(), []string{gone}))
	must(t, s.d.Activate(t.Context(), s.stage(t)))
	s.stands(t, "in")
	left, err := s.ledger.Read(t.Context())
	must(t, err)
	if !slices.Equal(left, []string{gone}) {
		t.Errorf("the ledger has %q, want what the node has no more", left)
	}
}

func TestMaintenanceBeginsWhileItIsOut(t *testing.T) {
	s := newScene(t, 0)
	rs := s.stage(t)
	if err := s.sick().Activate(t.Context(), rs); err == nil {
		t.Fatal("no error")
	}
	s.stands(t, "out")
	s.pool.state = "held"
	must(t, s.d.Restore(t.Context(), rs))
	s.stands(t, "held")
	s.pool.state = "out" // by hand, later: no memory of ours is left
	must(t, s.d.PutBack(t.Context()))
	s.stands(t, "out")
}

// A node that serves the old or the new certificate is put back, whatever failed.
func TestAHealthyNodeIsNotLeftOut(t *testing.T) {
	for name, set := range map[string]func(*scene){
		"refused":                     func(s *scene) { s.refuse = errors.New("nginx: [emerg]") },
		"the line was lost before it": func(s *scene) { s.refuse = host.ErrUnreachable },
		"the line was lost after it":  func(s *scene) { s.fail = host.ErrUnreachable },
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, 0)
			rs := s.stage(t)
			set(s)
			if err := s.d.Activate(t.Context(), rs); err == nil || strings.Contains(err.Error(), "stays out") {
				t.Errorf("got %v", err)
			}
			s.stands(t, "in")
			if !slices.Equal(s.stood, []string{"out"}) {
				t.Errorf("at the change it was %q", s.stood)
			}
		})
	}
}

// A node that serves neither stays out, is known to be out by us in another process,
// and comes back by whatever call finds it in order.
func TestASickNodeStaysOut(t *testing.T) {
	comeBack := map[string]func(*scene, []deploy.Receipt) error{
		"activate": func(s *scene, rs []deploy.Receipt) error { s.fail = nil; return s.d.Activate(context.Background(), rs) },
		"restore":  func(s *scene, rs []deploy.Receipt) error { return s.d.Restore(context.Background(), rs) },
		"discard": func(s *scene, rs []deploy.Receipt) error {
			s.serves = "old"
			return s.d.Discard(context.Background(), rs[0])
		},
		"later": func(s *scene, _ []deploy.Receipt) error { return s.d.PutBack(context.Background()) },
	}
	for name, back := range comeBack {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t, 0)
				rs := s.stage(t)
				s.fail = host.ErrUnreachable
				sick := s.sick()
				err := sick.Activate(t.Context(), rs)
				if !errors.Is(err, host.ErrUnreachable) || !strings.Contains(err.Error(), "stays out of web1 by command pool") {
					t.Errorf("got %v", err)
				}
				s.stands(t, "out")
				if err := sick.Discard(t.Context(), rs[0]); err != nil {
					t.Errorf("discard: %v", err)
				}
				if err := sick.Restore(t.Context(), rs); err == nil || !strings.Contains(err.Error(), "stays out") {
					t.Errorf("restore: %v", err)
				}
				s.stands(t, "out")
				must(t, back(s, rs))
				s.stands(t, "in")
			})
		})
	}
}

// The way back takes the node out, too, unless there is nothing to wait for or the
// balancer does not let it go: it is restored all the same.
func TestRestoreDrains(t *testing.T) {
	for name, c := range map[string]struct {
		set   func(*scene)
		stood string
		fails bool
	}{
		"alive":                {func(*scene) {}, "out", false},
		"dead":                 {func(s *scene) { s.serves = "nothing" }, "in", false},
		"held":                 {func(s *scene) { s.pool.state = "held" }, "held", false},
		"no balancer answers":  {func(s *scene) { s.pool.state = "what" }, "what", false},
		"it cannot be brought": {func(s *scene) { s.refuse = host.ErrUnreachable }, "out", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t, time.Minute)
				rs := s.stage(t)
				must(t, s.d.Activate(t.Context(), rs))
				s.stood, s.pool.open, s.pool.until = nil, 3, time.Now().Add(20*time.Second)
				c.set(s)
				before := s.pool.state
				if err := s.d.Restore(t.Context(), rs); (err != nil) != c.fails {
					t.Errorf("got %v", err)
				}
				if !slices.Equal(s.stood, []string{c.stood}) || c.stood == "out" && s.pool.open > 0 {
					t.Errorf("at the change it was %q, with %d connections", s.stood, s.pool.open)
				}
				s.stands(t, before)
			})
		})
	}
}

// sick is the same node, while nothing answers at its endpoints.
func (s *scene) sick() *drain.Deployer {
	return drain.New(drain.Setup{
		Inner: s.change, Ledger: s.ledger,
		Servers: []drain.Server{{Balancer: drain.Command{Run: &hosttest.Mem{Exec: s.pool.answer}, List: "pool", Argv: []string{"pool"}, Node: "web1"}}},
		Look:    func(context.Context, string, []string) error { return errors.New("web1:443 serves nothing") },
	})
}

// Where one of two balancers refuses, the node is put back in the other, and is not
// changed.
func TestOneOfTwoBalancersRefuses(t *testing.T) {
	s := newScene(t, 0)
	second := func(_ context.Context, argv []string, _ []byte) ([]byte, error) {
		if argv[1] == "out" {
			return []byte("the last one of its pool"), &host.ExitError{Argv: argv, Status: 1}
		}
		return []byte("in"), nil
	}
	d := drain.New(drain.Setup{Inner: s.change, Ledger: s.ledger, Servers: []drain.Server{
		{Balancer: drain.Command{Run: &hosttest.Mem{Exec: s.pool.answer}, List: "pool", Argv: []string{"pool"}, Node: "web1"}},
		{Balancer: drain.Command{Run: &hosttest.Mem{Exec: second}, List: "second", Argv: []string{"second"}, Node: "web1"}},
	}})
	err := d.Activate(t.Context(), s.stage(t))
	if err == nil || !strings.Contains(err.Error(), `command second, out of web1: it ended with status 1; it wrote "the last one of its pool"`) {
		t.Errorf("got %v", err)
	}
	s.stands(t, "in")
	if !slices.Contains(s.pool.calls, "out") || len(s.stood) > 0 {
		t.Errorf("calls %q, changed at %q", s.pool.calls, s.stood)
	}
}

// A balancer that cannot be asked is found before anything changes.
func TestStageAsksTheBalancer(t *testing.T) {
	s := newScene(t, 0)
	s.pool.state = "what"
	if _, err := s.d.Stage(t.Context(), deploy.Stage{}); err == nil || !strings.Contains(err.Error(), `it wrote "what\n"`) {
		t.Errorf("got %v", err)
	}
}

// Receipts of before the drain was in farm.yaml, and without endpoints.
func TestReceiptWithoutANote(t *testing.T) {
	s := newScene(t, 0)
	must(t, s.d.Activate(t.Context(), []deploy.Receipt{{Note: []byte(`{}`)}}))
	s.stands(t, "in")
	must(t, s.d.Restore(t.Context(), nil))
	bad := []deploy.Receipt{{Around: []byte(`7`)}}
	if s.d.Activate(t.Context(), bad) == nil || s.d.Restore(t.Context(), bad) == nil {
		t.Error("a note that cannot be read is no error")
	}
}

// The process ends between any two questions to the balancer: what was taken out
// comes back, whichever call comes next.
func TestCutInTheBalancer(t *testing.T) {
	for name, next := range map[string]func(*scene, []deploy.Receipt) error{
		"activate": func(s *scene, rs []deploy.Receipt) error { return s.d.Activate(context.Background(), rs) },
		"restore":  func(s *scene, rs []deploy.Receipt) error { return s.d.Restore(context.Background(), rs) },
	} {
		t.Run(name, func(t *testing.T) {
			for n := 0; ; n++ {
				s := newScene(t, 0)
				rs := s.stage(t)
				f := &hosttest.Faulty{Linked: &hosttest.Mem{Exec: s.pool.answer}}
				cut := drain.New(drain.Setup{
					Inner: s.change, Ledger: s.ledger,
					Servers: []drain.Server{{Balancer: drain.Command{Run: f, List: "pool", Argv: []string{"pool"}, Node: "web1"}}},
				})
				f.DieAfter(n/2, n%2 == 1)
				err := cut.Activate(t.Context(), rs)
				must(t, next(s, rs))
				s.stands(t, "in")
				if err == nil {
					break
				}
				if t.Failed() || n > 40 {
					t.Fatalf("cut after %d calls", n/2)
				}
			}
		})
	}
}
