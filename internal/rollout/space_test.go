package rollout_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/rollout"
)

// A space is a small farm of which every reachable state is visited.
type space struct {
	name   string
	waves  []int // how many targets each has
	policy farm.Policy
	alter  func(r *farm.Rollout) // what is special
	people []func(w *world)      // what people may do, once each, in any state
	lucks  []luck                // besides ok, lost, dies and a failure
}

// TestSpace visits all states of small farms, whatever becomes of each act, and
// holds every one against the rules of world_test.go. That no path is endless
// and none stops before an outcome is what "not wedged" means, and more: every
// state comes to an end with no luck at all.
func TestSpace(t *testing.T) {
	for _, s := range spaces() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			v := &visitor{space: s, known: map[uint64]byte{}, seed: maphash.MakeSeed()}
			if err := v.visit(s.world(), nil); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d states, %d answers, deepest %d; ends: %v", len(v.known), v.answers, v.deepest, v.ends)
		})
	}
}

func spaces() []space {
	full := os.Getenv("CERTFARM_SOAK") != ""
	// small lays out fewer targets where there is little time.
	small := func(little bool, waves, fewer []int) []int {
		if little {
			return fewer
		}
		return waves
	}
	three := func(waves ...int) []int { return small(testing.Short(), waves, []int{1, 1}) }
	pair := func(waves ...int) []int { return small(!full, waves, []int{2}) }
	one := farm.Share{Count: 1}
	old := func(state farm.VersionState, targets ...int) func(*farm.Rollout) {
		return func(r *farm.Rollout) {
			for _, i := range targets {
				r.Steps[i].From = []farm.VersionFacts{{ID: "v1", NotBefore: noon.Add(-day), NotAfter: noon.Add(60 * day), State: state}}
			}
		}
	}
	abort := func(w *world) { w.r.Abort = "a person" }
	supersede := func(w *world) { w.r.Superseded = true }
	take := func(w *world) { w.take("b") }
	all := []space{
		{name: "one after another", waves: three(1, 2), policy: farm.Policy{MaxParallel: 1}},
		{name: "two at once, one may fail", waves: three(1, 2), policy: farm.Policy{MaxParallel: 2, FailureBudget: one}},
		{name: "one may be absent", waves: three(2, 1), policy: farm.Policy{MaxParallel: 2, AbsentMax: one}},
		{name: "soak", waves: []int{1, 1}, policy: farm.Policy{MaxParallel: 1, Soak: time.Second}},
		{name: "soak, one may fail", waves: pair(2, 1), policy: farm.Policy{MaxParallel: 2, Soak: time.Second, FailureBudget: one}},
		{name: "a deadline", waves: []int{1, 1}, policy: farm.Policy{MaxParallel: 1, HealthyDeadline: 300 * time.Millisecond, FailureBudget: one}},
		{name: "version faults", waves: three(1, 2), policy: farm.Policy{MaxParallel: 2}, lucks: []luck{faulty}},
		{name: "no way back", waves: pair(1, 2), policy: farm.Policy{MaxParallel: 2}, lucks: []luck{faulty}, alter: func(r *farm.Rollout) { r.Forward = true }},
		{name: "some have no way back", waves: pair(1, 2), policy: farm.Policy{MaxParallel: 2}, lucks: []luck{faulty}, alter: old(farm.VersionRevoked, 1)},
		{name: "the last cannot be undone", waves: pair(2, 1), policy: farm.Policy{MaxParallel: 2}, lucks: []luck{faulty}, alter: func(r *farm.Rollout) { r.Steps[len(r.Steps)-1].NoUndo = true }},
		{name: "a reload group", waves: three(2, 1), policy: farm.Policy{MaxParallel: 1}, alter: func(r *farm.Rollout) { r.Steps[0].Group, r.Steps[1].Group = "g", "g" }},
		{name: "abort", waves: []int{1, 1}, policy: farm.Policy{MaxParallel: 1, FailureBudget: one}, people: []func(*world){abort}},
		{name: "abort, no way back", waves: []int{1, 1}, policy: farm.Policy{MaxParallel: 1}, people: []func(*world){abort}, alter: func(r *farm.Rollout) { r.Forward = true }},
		{name: "superseded", waves: []int{2}, policy: farm.Policy{MaxParallel: 2, FailureBudget: one}, people: []func(*world){supersede}},
		{name: "superseded, no way back", waves: []int{1, 1}, policy: farm.Policy{MaxParallel: 1, FailureBudget: one}, people: []func(*world){supersede}, alter: func(r *farm.Rollout) { r.Forward = true }},
		{name: "somebody's certificate", waves: three(1, 1), policy: farm.Policy{MaxParallel: 2, AbsentMax: one}, lucks: []luck{leave}},
		{name: "one is taken out of farm.yaml", waves: three(1, 1), policy: farm.Policy{MaxParallel: 2}, lucks: []luck{faulty}, people: []func(*world){take}},
		{name: "taken out, no way back", waves: []int{1, 1}, policy: farm.Policy{MaxParallel: 1}, people: []func(*world){take}, alter: func(r *farm.Rollout) { r.Forward = true }},
	}
	if full {
		all = append(all,
			space{name: "four", waves: []int{2, 2}, policy: farm.Policy{MaxParallel: 2}},
			space{name: "four, canary, budget", waves: []int{1, 3}, policy: farm.Policy{MaxParallel: 2, FailureBudget: one, AbsentMax: one}},
			space{name: "four, soak", waves: []int{2, 2}, policy: farm.Policy{MaxParallel: 1, Soak: time.Second}},
		)
	}
	return all
}

// world lays the space's farm out. HealthyDeadline is mostly 0: failures are
// counted, not timed, which makes the space small.
func (s space) world() *world {
	r := farm.Rollout{ID: "r1", Policy: s.policy, To: version("v2", 1)}
	for i, n := range s.waves {
		r.Waves = append(r.Waves, farm.Wave{Name: fmt.Sprint(i)})
		for range n {
			name := string(rune('a' + len(r.Steps)))
			r.Steps = append(r.Steps, farm.Step{
				Target: name, Group: name, Wave: i, To: []string{"v2"}, State: farm.Planned,
				From: []farm.VersionFacts{version("v1", 0.5)},
			})
		}
	}
	if s.alter != nil {
		s.alter(&r)
	}
	return newWorld(r, noon)
}

// A move is what led from a state to the next.
type move struct {
	luck   luck
	do     farm.Verb
	target string
}

// A visitor walks a space depth first.
type visitor struct {
	space
	known   map[uint64]byte // by a hash of the state: on the path (1) or done (2)
	seed    maphash.Seed
	answers int
	deepest int
	ends    map[farm.Outcome]int
}

func (v *visitor) visit(w *world, path []move) error {
	d, err := w.decide()
	if err != nil {
		return fmt.Errorf("%w\nafter %v\n%s", err, path, table(w.r))
	}
	if len(d.Acts) > 0 { // they are in flight now
		if d = rollout.Next(w.r, w.frozen, w.now); len(d.Acts) > 0 {
			return fmt.Errorf("asked again at once, it begins %v\nafter %v\n%s", d.Acts, path, table(w.r))
		}
	}
	here := maphash.Bytes(v.seed, key(w))
	switch v.known[here] {
	case 1:
		return fmt.Errorf("goes round for ever after %v\n%s", path, table(w.r))
	case 2:
		return nil
	}
	v.known[here] = 1
	v.deepest = max(v.deepest, len(path))
	if err := v.onward(w, d.Until, path); err != nil {
		return err
	}
	v.known[here] = 2
	if v.ends == nil {
		v.ends = map[farm.Outcome]int{}
	}
	if w.r.Outcome != farm.Running {
		v.ends[w.r.Outcome]++
	}
	return nil
}

// onward visits every state that may come next: after each answer to each act in
// flight, after the time waited for, and after what people may do.
func (v *visitor) onward(w *world, until time.Time, path []move) error {
	if w.r.Outcome != farm.Running {
		return nil
	}
	met := map[string]bool{}
	for i, s := range w.r.Steps {
		alike := string(w.row(i))
		if met[alike] {
			continue
		}
		met[alike] = true
		for _, l := range v.lucksOf(s, w.places[i]) {
			next := w.clone()
			next.r = rollout.Record(w.r, next.perform(s.Target, l, "bad luck"), w.now)
			v.answers++
			if err := v.visit(next, append(path, move{l, s.Doing, s.Target})); err != nil {
				return err
			}
		}
	}
	if !until.IsZero() {
		next := w.clone()
		next.now = until
		if err := v.visit(next, append(path, move{luck: "time"})); err != nil {
			return err
		}
	}
	for _, act := range v.people {
		next := w.clone()
		if act(next); next.r.Abort != w.r.Abort || next.r.Superseded != w.r.Superseded || !slices.Equal(next.places, w.places) {
			if err := v.visit(next, append(path, move{luck: "people"})); err != nil {
				return err
			}
		}
	}
	return nil
}

// lucksOf is what may become of the act in flight. A stage or activation that
// fails does so for good: the lost answers are those that are tried again.
func (v *visitor) lucksOf(s farm.Step, p place) []luck {
	if s.Doing == "" {
		return nil
	}
	if p.dead {
		return []luck{fails}
	}
	switch s.Doing {
	case farm.DoStage:
		return v.also(leave, ok, final, lost, dies)
	case farm.DoActivate:
		return v.also(leave, ok, final, lost, hollow, dies)
	case farm.DoVerify:
		if slices.Contains(v.lucks, faulty) {
			return []luck{ok, fails, faulty, dies}
		}
	case farm.DoRestore:
		return []luck{ok, fails, lost, dies}
	}
	return []luck{ok, fails, dies}
}

// also adds a luck that only some spaces have.
func (s space) also(l luck, lucks ...luck) []luck {
	if slices.Contains(s.lucks, l) {
		return append(lucks, l)
	}
	return lucks
}

// key is what a state is, as far as what comes next depends on it. Targets of a
// wave are alike, so their order does not count; times are kept as what is left
// of them, attempts and opinions not at all.
func key(w *world) []byte {
	rows := make([][]byte, len(w.r.Steps))
	for i := range w.r.Steps {
		rows[i] = w.row(i)
	}
	slices.SortFunc(rows, bytes.Compare)
	b := []byte{bit(w.r.Back != "") | bit(w.r.Abort != "")<<1 | bit(w.r.Superseded)<<2}
	b = append(b, w.r.Outcome...)
	for _, row := range rows {
		b = append(append(b, byte(len(row))), row...)
	}
	return b
}

// row is what one target and its step are.
func (w *world) row(i int) []byte {
	s, is, p := w.r.Steps[i], w.places[i], w.r.Policy
	b := make([]byte, 0, 96)
	b = append(b, byte(s.Wave), bit(s.Touched)|bit(s.NoUndo)<<1|bit(s.Receipt != nil)<<2|bit(is.dead)<<3|bit(is.serves == neu)<<4|bit(s.Failing.IsZero())<<5|bit(is.gone)<<6|bit(is.theirs)<<7, byte(s.Tries))
	for _, word := range []string{string(s.State), string(s.Fault), string(s.Doing), string(s.Did), string(s.Leave)} {
		b = append(append(b, word...), 0)
	}
	left := func(t time.Time) {
		if t.IsZero() {
			b = append(b, 255)
		} else {
			b = binary.AppendVarint(b, max(int64(t.Sub(w.now)/time.Millisecond), -2000))
		}
	}
	left(future(s.Again, w.now))
	if p.Soak > 0 {
		left(s.Verified)
		left(s.Seen)
	}
	if p.HealthyDeadline > 0 {
		left(s.Failing)
		left(s.Activated)
	}
	if s.From[0].State != farm.VersionGood || s.Group != s.Target {
		b = append(b, s.Group...)
	}
	return b
}

// future forgets a time that has come.
func future(t, now time.Time) time.Time {
	if t.After(now) {
		return t
	}
	return time.Time{}
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func table(r farm.Rollout) string {
	var b strings.Builder
	for _, s := range r.Steps {
		fmt.Fprintf(&b, "%s wave %d %s fault %q doing %q touched %t tries %d\n", s.Target, s.Wave, s.State, s.Fault, s.Doing, s.Touched, s.Tries)
	}
	fmt.Fprintf(&b, "back %q outcome %q why %q\n", r.Back, r.Outcome, r.Why)
	return b.String()
}
