package renew

import (
	"strings"
	"testing"
	"time"
)

// The certificate became due at 0 h and its last safe start is at 400 h, so that the
// first issuer is waited for until 300 h.
func TestChoose(t *testing.T) {
	t.Parallel()
	due := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	at := func(hours int) time.Time { return due.Add(time.Duration(hours) * time.Hour) }
	well := func(name string) Candidate { return Candidate{Issuer: name} }
	down := func(name string, since int) Candidate {
		return Candidate{Issuer: name, Why: "does not answer", Since: at(since)}
	}
	limited := func(name string, until int) Candidate {
		return Candidate{Issuer: name, Why: "keeps the account waiting", Until: at(until)}
	}
	barred := func(name string) Candidate { return Candidate{Issuer: name, Bars: "CAA allows others only"} }
	failed := func(name string, when int) Candidate { return Candidate{Issuer: name, Failed: at(when)} }
	for name, c := range map[string]struct {
		all      []Candidate
		now      int
		lastSafe int // 400; -1: a first certificate
		want     string
		why      string // all words of it
		turns    int    // hours; -1: never
	}{
		"all is well":             {[]Candidate{well("a"), well("b")}, 1, 0, "a", "", 300},
		"all is well, late":       {[]Candidate{well("a"), well("b")}, 350, 0, "a", "", -1},
		"down, with time":         {[]Candidate{down("a", 2), well("b")}, 5, 0, "a", "a does not answer since 3h; if that lasts until 2026-12-05T12:00:00Z, b is asked", 300},
		"down too long":           {[]Candidate{down("a", 297), well("b")}, 352, 0, "b", "a does not answer since 2d7h; 2d before the last safe start (2026-12-09T16:00:00Z) b is asked", -1},
		"down after last safe":    {[]Candidate{down("a", 399), well("b")}, 410, 0, "b", "the last safe start is past: b", -1},
		"limited, back in time":   {[]Candidate{limited("a", 299), well("b")}, 5, 0, "a", "a keeps the account waiting until 2026-12-05T11:00:00Z; if that lasts until", 300},
		"limited for too long":    {[]Candidate{limited("a", 301), well("b")}, 5, 0, "b", "a keeps the account waiting until 2026-12-05T13:00:00Z; 16d11h before the last safe start", -1},
		"both down, late":         {[]Candidate{down("a", 1), down("b", 1)}, 350, 0, "a", "", -1},
		"the second down too":     {[]Candidate{down("a", 1), down("b", 1), well("c")}, 350, 0, "c", "c is asked", -1},
		"failed, with time":       {[]Candidate{failed("a", 2), well("b")}, 5, 0, "a", "", 300},
		"failed, late":            {[]Candidate{failed("a", 2), well("b")}, 300, 0, "b", "the last order at a failed at 2026-11-23T02:00:00Z; 4d4h before the last safe start", -1},
		"both failed, late":       {[]Candidate{failed("a", 9), failed("b", 2)}, 350, 0, "b", "", -1},
		"both failed, b just now": {[]Candidate{failed("a", 2), failed("b", 9)}, 350, 0, "a", "", -1},
		"barred":                  {[]Candidate{barred("a"), well("b")}, 5, 0, "b", "a is not asked: CAA allows others only", -1},
		"the second barred":       {[]Candidate{down("a", 1), barred("b")}, 350, 0, "a", "b is not asked: CAA allows others only", -1},
		"all barred":              {[]Candidate{barred("a"), barred("b")}, 5, 0, "a", "no issuer may issue: a is not asked: CAA allows others only; b is not asked", -1},
		"first certificate waits": {[]Candidate{down("a", 0), well("b")}, 2, -1, "a", "a does not answer since 2h", 3},
		"first certificate":       {[]Candidate{down("a", 0), well("b")}, 3, -1, "b", "it is a first certificate", -1},
		"late from the beginning": {[]Candidate{down("a", 0), well("b")}, 0, -2, "b", "the last safe start is past", -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lastSafe := at(400)
			switch c.lastSafe {
			case -1:
				lastSafe = time.Time{}
			case -2:
				lastSafe = due
			}
			got := Choose(c.all, due, lastSafe, at(c.now))
			if got.Issuer != c.want || !strings.Contains(got.Why, c.why) || c.why == "" && c.now < 300 && got.Why != "" {
				t.Errorf("asks %s (%s), want %s (%s)", got.Issuer, got.Why, c.want, c.why)
			}
			if c.turns < 0 != got.Switch.IsZero() || c.turns > 0 && !got.Switch.Equal(at(c.turns)) {
				t.Errorf("turns to another at %s, want %d h", got.Switch, c.turns)
			}
		})
	}
}
