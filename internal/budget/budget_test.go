package budget

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const day = 24 * time.Hour

var (
	now   = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	names = []string{"www.farm.test", "farm.test"}
)

func ago(d ...time.Duration) (past []Past) {
	for _, d := range d {
		past = append(past, Past{Names: []string{"FARM.test", "www.farm.test"}, Begun: now.Add(-d)})
	}
	return past
}

func failed(d time.Duration) Past {
	return Past{Names: names, Begun: now.Add(-d), Failed: now.Add(-d)}
}

// ours is an order that failed since nobody was there to answer the CA.
func ours(begun, failed time.Duration) Past {
	return Past{Names: names, Begun: now.Add(-begun), Failed: now.Add(-failed), Ours: true}
}

func TestAllow(t *testing.T) {
	t.Parallel()
	other := Past{Names: []string{"farm.test"}, Begun: now, Failed: now}
	elsewhere := Past{Issuer: "another", Names: names, Begun: now, Failed: now}
	for name, c := range map[string]struct {
		past   []Past
		orders int
		forced bool
		ok     bool
		again  time.Duration // from now
		says   string
	}{
		"first":                    {nil, 1, false, true, 0, ""},
		"fourth":                   {ago(time.Hour, day, 2*day), 1, false, true, 0, ""},
		"fifth":                    {ago(time.Hour, day, 3*day, 2*day), 1, false, false, 4 * day, "4 orders"},
		"fifth, forced":            {ago(time.Hour, day, 2*day, 3*day), 1, true, false, 4 * day, "4 orders"},
		"two at once":              {ago(time.Hour, day), 2, false, true, 0, ""},
		"two at once, one is left": {ago(time.Hour, day, 2*day), 2, false, false, 5 * day, "3 orders"},
		"five at once":             {nil, 5, false, false, 0, "key types"},
		"old orders":               {ago(7*day, 8*day, 9*day, 10*day), 1, false, true, 0, ""},
		"other names":              {[]Past{other, other, other, other}, 1, false, true, 0, ""},
		"another account":          {[]Past{elsewhere, elsewhere, elsewhere, elsewhere}, 1, false, true, 0, ""},
		"our own silence":          {[]Past{ours(2*time.Hour, time.Hour)}, 1, false, true, 0, ""},
		"of two begun together":    {[]Past{ours(2*time.Hour, time.Hour), ours(2*time.Hour, time.Hour-time.Minute)}, 1, false, true, 0, ""},
		"silent twice in a day":    {[]Past{ours(20*time.Hour, 19*time.Hour), ours(2*time.Hour, time.Hour)}, 1, false, false, 23 * time.Hour, "failed"},
		"silent again a day later": {[]Past{ours(26*time.Hour, 25*time.Hour), ours(2*time.Hour, time.Hour)}, 1, false, true, 0, ""},
		"silent, failed before":    {[]Past{failed(2 * time.Hour), ours(2*time.Hour, time.Hour)}, 1, false, false, 22 * time.Hour, "failed"},
		"silent, four begun":       {append(ago(day, 2*day, 3*day), ours(2*time.Hour, time.Hour)), 1, false, false, 4 * day, "4 orders"},
		"after a failure":          {[]Past{failed(time.Hour)}, 1, false, false, 23 * time.Hour, "failed"},
		"a person will not wait":   {[]Past{failed(time.Hour)}, 1, true, true, 0, ""},
		"a day after a failure":    {[]Past{failed(day)}, 1, false, true, 0, ""},
		"success since":            {append(ago(time.Minute), failed(time.Hour)), 1, false, true, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := Allow(c.past, Ask{Names: names, Orders: c.orders, Forced: c.forced}, now)
			if a.OK != c.ok || !strings.Contains(a.Why, c.says) {
				t.Errorf("answer is %+v", a)
			}
			if want := now.Add(c.again); c.again != 0 && !a.Again.Equal(want) {
				t.Errorf("again at %s, want %s", a.Again, want)
			}
		})
	}
}

// Whatever is asked and whatever fails, no span of a week has more orders than
// the ceiling; a day lies between a failure and the next order; and when the
// answer names a time, the same ask is refused until then.
func TestCeiling(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var past []Past
		at := now
		for range rapid.IntRange(1, 40).Draw(t, "asks") {
			ask := Ask{Names: names, Orders: rapid.IntRange(1, 3).Draw(t, "orders")}
			a := Allow(past, ask, at)
			if !a.OK {
				if !a.Again.After(at) {
					t.Fatalf("refused at %s until %s", at, a.Again)
				}
				if Allow(past, ask, a.Again.Add(-1)).OK {
					t.Fatalf("allowed before %s", a.Again)
				}
				if rapid.Bool().Draw(t, "until then") {
					at = a.Again
				} else {
					at = at.Add(time.Duration(rapid.Int64Range(0, int64(2*day)).Draw(t, "wait")))
				}
				continue
			}
			for range ask.Orders {
				p := Past{Names: names, Begun: at}
				if rapid.Bool().Draw(t, "fails") {
					p.Failed = at
				}
				past = append(past, p)
			}
			at = at.Add(time.Duration(rapid.Int64Range(1, int64(2*day)).Draw(t, "wait")))
		}
		check(t, past)
	})
}

func check(t *rapid.T, past []Past) {
	for i, p := range past {
		n := 0
		for _, q := range past {
			if d := q.Begun.Sub(p.Begun); d >= 0 && d < Span {
				n++
			}
		}
		if n > Most {
			t.Fatalf("%d orders in the week from %s on", n, p.Begun)
		}
		for _, q := range past[i:] {
			if d := q.Begun.Sub(p.Failed); !p.Failed.IsZero() && d > 0 && d < Pause {
				t.Fatalf("an order %s after a failure", d)
			}
		}
	}
}

// Past the last safe moment an order that failed costs an hour, and none of the
// orders of the week: a certificate would expire for want of one more try.
func TestLate(t *testing.T) {
	t.Parallel()
	past := []Past{failed(2 * time.Hour), failed(3 * time.Hour), failed(4 * time.Hour), failed(5 * time.Hour)}
	ask := Ask{Names: names, Pause: time.Hour, Late: true}
	if a := Allow(past, ask, now); !a.OK {
		t.Errorf("not allowed: %+v", a)
	}
	if a := Allow(append(past, failed(time.Minute)), ask, now); a.OK || !a.Again.Equal(now.Add(59*time.Minute)) {
		t.Errorf("a minute after a failure: %+v", a)
	}
	if a := Allow(ago(time.Hour, 2*time.Hour, 3*time.Hour, 4*time.Hour), ask, now); a.OK {
		t.Error("certificates do count")
	}
	ask.Late = false
	if a := Allow(past, ask, now); a.OK {
		t.Error("before it they count")
	}
}
