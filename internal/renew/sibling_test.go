package renew

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSiblings(t *testing.T) {
	at := func(day int) time.Time { return time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC) }
	canary := func(s SiblingState, issued time.Time) Sibling {
		return Sibling{Name: "web1", State: s, Why: "why", Issued: issued}
	}
	peer := func(name string, s SiblingState) Sibling {
		return Sibling{Name: name, Wave: 1, State: s, Why: "why", Issued: at(1)}
	}
	me := Member{Sibling: Sibling{Name: "web3", Wave: 1, State: SiblingWaits, Issued: at(2)}, Parallel: 2}
	with := func(change func(*Member)) Member {
		m := me
		change(&m)
		return m
	}
	for _, test := range []struct {
		name   string
		me     Member
		others []Sibling
		want   string // a part of why; empty: it goes
		ahead  string
		failed bool
	}{
		{"alone", me, nil, "", "", false},
		{"the canary has its own", me, []Sibling{canary(SiblingDone, at(3))}, "", "", false},
		{"the canary is as old", me, []Sibling{canary(SiblingDone, at(2))}, "web1 goes first, and is renewed now", "web1", false},
		{"a person asked", with(func(m *Member) { m.Asked = true }), []Sibling{canary(SiblingDone, at(1))}, "", "", false},
		{"the first of all", with(func(m *Member) { m.Issued = time.Time{} }), []Sibling{canary(SiblingDone, at(1))}, "", "", false},
		{"the canary runs", me, []Sibling{canary(SiblingRuns, at(1))}, "web1 goes first, and is not there yet", "", false},
		{"the canary waits", me, []Sibling{canary(SiblingWaits, at(1))}, "web1 goes first, and is not there yet", "", false},
		{"the canary failed", me, []Sibling{canary(SiblingFailed, at(1))}, "web1 goes first, and failed: why", "", true},
		{"the canary was stopped", me, []Sibling{canary(SiblingStopped, at(1))}, "failed: why", "", true},
		{"forgiven", with(func(m *Member) { m.Failures = 1 }), []Sibling{canary(SiblingFailed, at(1))}, "", "", false},
		{"a second is not", with(func(m *Member) { m.Failures = 1 }), []Sibling{canary(SiblingFailed, at(1)), peer("web2", SiblingFailed)}, "web2 goes first, and failed", "", true},
		{"the canary is absent", me, []Sibling{canary(SiblingAbsent, at(1))}, "absent: why", "", true},
		{"absent, which may be", with(func(m *Member) { m.Absent = 1 }), []Sibling{canary(SiblingAbsent, at(1))}, "", "", false},
		{"known to others", with(func(m *Member) { m.Asked, m.Forward = true, true }), []Sibling{canary(SiblingFailed, at(1))}, "", "", false},
		{"one after it failed", me, []Sibling{peer("web4", SiblingFailed)}, "", "", false},
		{"one beside it runs", me, []Sibling{peer("web4", SiblingRuns)}, "", "", false},
		{"as many as may", me, []Sibling{peer("web2", SiblingRuns), peer("web4", SiblingRuns)}, "2 at one time", "", false},
		{"itself", me, []Sibling{me.Sibling}, "", "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := Siblings(test.me, test.others)
			if (got.Why == "") != (test.want == "") || !strings.Contains(got.Why, test.want) || strings.Join(got.Ahead, " ") != test.ahead || got.Failed != test.failed {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// Whatever happens to members, in any order and with any number of failures that mend
// in the end, all get there, none before those of lower waves, and never more at once
// than may.
func TestSiblingsAllGetThere(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a test's schedule
		all := make([]Sibling, 2+rnd.IntN(9))
		for i := range all {
			all[i] = Sibling{Name: string(rune('a' + i)), Wave: min(i, rnd.IntN(3)), State: SiblingWaits}
		}
		slices.SortStableFunc(all, func(a, b Sibling) int { return a.Wave - b.Wave })
		parallel := 1 + rnd.IntN(3)
		fails := map[string]int{}
		for round := 0; slices.ContainsFunc(all, func(s Sibling) bool { return s.State != SiblingDone }); round++ {
			if round > 1000 {
				t.Fatalf("seed %d: wedged: %+v", seed, all)
			}
			i := rnd.IntN(len(all))
			switch s := &all[i]; s.State {
			case SiblingRuns:
				s.State = SiblingDone
				if rnd.IntN(3) == 0 && fails[s.Name] < 3 {
					s.State, fails[s.Name] = SiblingFailed, fails[s.Name]+1
				}
			case SiblingWaits, SiblingFailed:
				if w := Siblings(Member{Sibling: *s, Parallel: parallel, Asked: true}, all); w.Why == "" {
					s.State = SiblingRuns
					mayRun(t, seed, all, i, parallel)
				}
			default:
			}
		}
	}
}

func mayRun(t *testing.T, seed uint64, all []Sibling, i, parallel int) {
	t.Helper()
	runs := 0
	for _, o := range all {
		if o.State == SiblingRuns {
			runs++
		}
		if o.Wave < all[i].Wave && o.State != SiblingDone {
			t.Fatalf("seed %d: %s runs, and %s of a lower wave is %s", seed, all[i].Name, o.Name, o.State)
		}
	}
	if runs > parallel {
		t.Fatalf("seed %d: %d run at one time", seed, runs)
	}
}
