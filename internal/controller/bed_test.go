package controller_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/probe"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

// Pebble has no way to end its validation authority: one idle goroutine a CA.
// The tests wait more than they work: more of them run side by side than there are
// processors.
func TestMain(m *testing.M) {
	flag.Parse()
	if n := flag.Lookup("test.parallel"); n.Value.String() == n.DefValue {
		_ = n.Value.Set("6") // a number is one
	}
	goleak.VerifyTestMain(withPostgres{m}, goleak.IgnoreAnyFunction("github.com/letsencrypt/pebble/v2/va.VAImpl.processTasks"))
}

// withPostgres runs the tests with a database server beside them.
type withPostgres struct{ *testing.M }

// Run is goleak.TestingM's.
func (m withPostgres) Run() int { return storetest.Main(m.M) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// patience bounds what a test waits for: a busy machine with the race detector
// is slow.
const patience = 60 * time.Second

// A bed is a lab in which a test sleeps well: a whole farm, a clock that can be
// put forward, and what was logged. What is served is seen by handshakes of its
// own, and what was ordered by the CA's counts.
type bed struct {
	*lab.Lab
	t     *testing.T
	ctx   context.Context
	clock *clock
	store *store.Store
	log   *journal
	how   lab.Controlling
	beat  sync.Mutex // held while the store is exchanged
}

// A setting is what a bed is made of; the zero value is a farm of three nodes,
// whose rollouts do not soak.
type setting struct {
	layout lab.Layout                // Dir is filled in
	policy farm.Policy               // zero: quick()
	ca     issuetest.Options         //
	pace   controller.Pace           // zero: lively()
	edit   func(*bed, string) string // farm.yaml, before it is applied
	adjust func(*bed, *controller.Config)
}

// quick is a policy that waits for nothing that need not be waited for.
func quick() farm.Policy {
	return farm.Policy{
		Canary: farm.Share{Count: 1}, Deadline: 4 * time.Second, HealthyDeadline: 2 * time.Second,
		AbsentMax: farm.Share{Percent: 5, Least: 1}, Drift: farm.Heal,
	}
}

// lively is as in production, but that what is late is looked at often.
func lively() controller.Pace {
	return controller.Pace{Late: 200 * time.Millisecond, Lease: 20 * time.Second}
}

// newBed starts a farm on which nothing is applied yet.
func newBed(t *testing.T, s setting) *bed {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	t.Cleanup(cancel)
	b := &bed{t: t, ctx: ctx, clock: &clock{}, log: &journal{}}
	if s.policy.Deadline == 0 {
		s.policy = quick()
	}
	if s.pace == (controller.Pace{}) {
		s.pace = lively()
	}
	b.how = lab.Controlling{
		Log:   slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Store: store.Options{Now: b.clock.now},
		Adjust: func(c *controller.Config) {
			c.Now, c.Pace, c.Prober = b.clock.now, s.pace, probe.TLS{Now: b.clock.now}
			if s.adjust != nil {
				s.adjust(b, c)
			}
			b.store = c.Store
		},
	}
	s.layout.Dir = t.TempDir()
	if wrap := s.ca.Wrap; wrap == nil {
		s.ca.Wrap = patient
	} else {
		s.ca.Wrap = func(h http.Handler) http.Handler { return wrap(patient(h)) }
	}
	var err error
	b.Lab, err = lab.Start(ctx, lab.Options{Layout: s.layout, File: lab.FarmFile{Policy: s.policy}, CA: s.ca, Controlling: b.how})
	must(t, err)
	stop := b.tick()
	t.Cleanup(func() {
		stop()
		must(t, b.Close())
	})
	if s.edit != nil {
		b.rewrite(func(text string) string { return s.edit(b, text) })
	}
	return b
}

// expires is when an order or a proof ends, as the CA says it.
var expires = regexp.MustCompile(`"expires":\s*"[^"]*"`)

// patient lets a CA's orders last: it goes by the machine's clock, and they would
// be over for a controller whose clock was put forward.
func patient(h http.Handler) http.Handler {
	for _, e := range []issuetest.Endpoint{issuetest.NewOrder, issuetest.Order, issuetest.Finalize, issuetest.Authz} {
		h = issuetest.Change(e, func(body []byte) []byte {
			return expires.ReplaceAll(body, []byte(`"expires":"2200-01-01T00:00:00Z"`))
		})(h)
	}
	return h
}

// serving starts a farm and brings version 1 up.
func serving(t *testing.T, s setting) (b *bed, serves string) {
	t.Helper()
	b = newBed(t, s)
	b.apply()
	b.ended(farm.Done, 1)
	serves = b.fingerprint(b.describe().Certificate.Version)
	b.allServe(serves)
	return b, serves
}

// A clock is the machine's, put forward.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// tick wakes the controller now and then: it sleeps by the machine's clock, which
// knows nothing of the time that was skipped.
func (b *bed) tick() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		beats := time.NewTicker(100 * time.Millisecond)
		defer beats.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-beats.C:
			}
			b.beat.Lock()
			if b.clock.ahead.Load() != 0 {
				b.wake(ctx)
			}
			b.beat.Unlock()
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// restart ends the controller, and starts it again over what change has left.
func (b *bed) restart(change func()) {
	b.t.Helper()
	b.beat.Lock()
	defer b.beat.Unlock()
	must(b.t, b.StopController())
	change()
	must(b.t, b.StartController(b.ctx, b.how))
}

// wake makes the runner look what is due: a job was enqueued, though it is never
// due itself.
func (b *bed) wake(ctx context.Context) {
	_ = b.store.Update(ctx, func(tx *store.Tx) error {
		return tx.Enqueue(ctx, farm.Job{Farm: b.Farm, Kind: "account", Subject: "nobody", RunAt: tx.Now().AddDate(100, 0, 0)})
	}) // a store that is closed needs no waking
}

// pass puts the clock forward at a moment when no job runs, so that no lease ends.
func (b *bed) pass(d time.Duration) {
	b.t.Helper()
	b.until("nothing is under way", func(*store.Tx) (idle bool, err error) {
		err = b.store.Update(b.ctx, func(tx *store.Tx) error { // nothing is claimed meanwhile
			jobs, err := tx.Jobs(b.ctx, b.Farm, 0)
			idle = err == nil && !slices.ContainsFunc(jobs, func(j store.JobRow) bool { return j.Owner != "" })
			if idle {
				b.clock.ahead.Add(int64(d))
			}
			return err
		})
		return idle, err
	})
	b.wake(b.ctx)
}

// look has the site looked at now.
func (b *bed) look() {
	b.t.Helper()
	must(b.t, b.store.Update(b.ctx, func(tx *store.Tx) error {
		return tx.Enqueue(b.ctx, farm.Job{Farm: b.Farm, Kind: "look", Subject: b.Site, RunAt: tx.Now()})
	}))
}

// until waits until a condition on the store holds; it is asked after each commit.
func (b *bed) until(what string, holds func(*store.Tx) (bool, error)) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	for {
		written := b.store.Written()
		is := false
		err := b.store.View(ctx, func(tx *store.Tx) (err error) {
			is, err = holds(tx)
			return err
		})
		if err == nil && is {
			return
		}
		select {
		case <-ctx.Done():
			b.t.Fatalf("never: %s (%v)\n%s", what, err, b.story())
		case <-written:
		case <-time.After(time.Second): // not all is written in the store
		}
	}
}

// happens waits for an event of a kind after the given one, and returns it.
func (b *bed) happens(kind, after string) (e farm.Event) {
	b.t.Helper()
	found := errors.New("found")
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	err := b.Controller.Follow(ctx, b.Farm, store.EventQuery{After: after, Kind: kind}, func(got farm.Event) error {
		e = got
		return found
	})
	if !errors.Is(err, found) {
		b.t.Fatalf("no event %s: %v\n%s", kind, err, b.story())
	}
	return e
}

// last is the newest event there is.
func (b *bed) last() string {
	b.t.Helper()
	all, err := b.Controller.Events(b.ctx, b.Farm, store.EventQuery{Newest: true, Limit: 1})
	must(b.t, err)
	if len(all) == 0 {
		return ""
	}
	return all[0].ID
}

// count counts events of a kind.
func (b *bed) count(kind string) int {
	b.t.Helper()
	all, err := b.Controller.Events(b.ctx, b.Farm, store.EventQuery{Kind: kind})
	must(b.t, err)
	return len(all)
}

// story is the journal, to be read where a test fails.
func (b *bed) story() string {
	all, _ := b.Controller.Events(context.Background(), b.Farm, store.EventQuery{})
	var s strings.Builder
	for _, e := range all {
		fmt.Fprintln(&s, e.At.Format("15:04:05.000"), e.Level, e.Kind, e.Text)
	}
	return s.String()
}

func (b *bed) describe() controller.SiteDetail {
	b.t.Helper()
	d, err := b.Controller.Describe(b.ctx, b.Farm, b.Site)
	must(b.t, err)
	return d
}

// fingerprint is that of a version's leaf.
func (b *bed) fingerprint(version string) string {
	b.t.Helper()
	for _, v := range b.describe().Versions {
		if v.ID == version {
			return v.Leaves[0].Fingerprint
		}
	}
	b.t.Fatalf("no version %q", version)
	return ""
}

// place is what is known of a node's target.
func (b *bed) place(node string) farm.Place {
	b.t.Helper()
	for _, p := range b.describe().Places {
		if p.Target.Node == node {
			return p
		}
	}
	b.t.Fatalf("no target on %s", node)
	return farm.Place{}
}

// rollouts lists the site's, newest first.
func (b *bed) rollouts() []farm.Rollout {
	b.t.Helper()
	all, err := b.Controller.Rollouts(b.ctx, b.Farm, b.Site, 100)
	must(b.t, err)
	return all
}

// ended waits until the n-th rollout has ended as it must, and returns it.
func (b *bed) ended(outcome farm.Outcome, n int) (r farm.Rollout) {
	b.t.Helper()
	b.until(fmt.Sprintf("rollout %d ends", n), func(tx *store.Tx) (bool, error) {
		all, err := tx.Rollouts(b.ctx, b.Farm, b.Site, 0)
		if len(all) >= n {
			r = all[len(all)-n]
		}
		return r.Outcome != farm.Running, err
	})
	if r.Outcome != outcome {
		b.t.Fatalf("rollout %d (%s) ended as %s, want %s: %s\n%s", n, r.Reason, r.Outcome, outcome, r.Why, b.story())
	}
	return r
}

// waits waits until the newest rollout can do nothing, and its reason has the word.
func (b *bed) waits(word string) controller.Progress {
	b.t.Helper()
	var p controller.Progress
	b.until("the rollout waits: "+word, func(*store.Tx) (bool, error) {
		all, err := b.Controller.Progress(b.ctx, b.Farm, b.Site)
		if len(all) == 1 {
			p = all[0]
		}
		return strings.Contains(p.Waits, word), err
	})
	return p
}

// rests waits until nothing is under way and nothing is due.
func (b *bed) rests() {
	b.t.Helper()
	b.until("the site rests", func(*store.Tx) (bool, error) {
		all, err := b.Controller.Progress(b.ctx, b.Farm, b.Site)
		return len(all) == 1 && all[0].Rest, err
	})
}

// renew asks for a renewal.
func (b *bed) renew() {
	b.t.Helper()
	must(b.t, b.Controller.Renew(b.ctx, b.Farm, b.Site, "somebody"))
}

func (b *bed) apply() {
	b.t.Helper()
	_, err := b.Apply(b.ctx)
	must(b.t, err)
}

// rewrite edits farm.yaml.
func (b *bed) rewrite(edit func(string) string) {
	b.t.Helper()
	was, err := os.ReadFile(b.FarmFile)
	must(b.t, err)
	is := edit(string(was))
	if is == string(was) {
		b.t.Fatal("the edit of farm.yaml changes nothing")
	}
	must(b.t, os.WriteFile(b.FarmFile, []byte(is), 0o600))
}
