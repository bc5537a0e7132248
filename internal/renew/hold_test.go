package renew

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestHold(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) time.Time { return begin.Add(d) }
	const margin = 20 * day // half of it is 10 days
	for name, c := range map[string]struct {
		change func(*Held)
		now    time.Duration
		until  time.Duration // -1: go on
		why    string
	}{
		"at once":                   {nil, 0, 10 * day, "time to mend"},
		"just before half":          {nil, 10*day - 1, 10 * day, "time to mend"},
		"half":                      {nil, 10 * day, -1, "one real try"},
		"tried before half":         {func(h *Held) { h.Tried = at(9*day + 20*time.Hour) }, 10 * day, 10*day + 8*time.Hour, "was asked at"},
		"tried an hour ago":         {func(h *Held) { h.Tried = at(11 * day) }, 11*day + time.Hour, 11*day + 12*time.Hour, "was asked at"},
		"tried 12 hours ago":        {func(h *Held) { h.Tried = at(11 * day) }, 11*day + 12*time.Hour, -1, "one real try"},
		"tried long before half":    {func(h *Held) { h.Tried = at(0) }, 5 * day, 10 * day, "time to mend"},
		"no failure left":           {func(h *Held) { h.Failures, h.Budget, h.Room = 5, 5, at(12*day+time.Hour) }, 12 * day, 12*day + time.Hour, "allows 5"},
		"one failure left":          {func(h *Held) { h.Failures, h.Budget, h.Room = 4, 5, at(12*day+time.Hour) }, 12 * day, -1, "one real try"},
		"room again":                {func(h *Held) { h.Failures, h.Budget, h.Room = 5, 5, at(12*day) }, 12 * day, -1, "one real try"},
		"budget not known":          {func(h *Held) { h.Failures, h.Room = 99, at(13*day) }, 12 * day, -1, "one real try"},
		"room beyond the last safe": {func(h *Held) { h.Failures, h.Budget, h.Room = 5, 5, at(30*day) }, 19 * day, 20 * day, "allows 5"},
		"try beyond the last safe":  {func(h *Held) { h.Tried = at(19*day + 20*time.Hour) }, 19*day + 21*time.Hour, 20 * day, "was asked at"},
		"just before the last safe": {func(h *Held) { h.Tried = at(19*day + 20*time.Hour) }, 20*day - 1, 20 * day, "was asked at"},
		"last safe":                 {func(h *Held) { h.Tried, h.Failures, h.Budget, h.Room = at(20*day-1), 9, 5, at(99*day) }, 20 * day, -1, "is past"},
		"due past the last safe":    {func(h *Held) { h.Since = at(21 * day) }, 21 * day, -1, "is past"},
		"first":                     {func(h *Held) { h.LastSafe = time.Time{} }, 0, 12 * time.Hour, "first certificate"},
		"first, 12 hours on":        {func(h *Held) { h.LastSafe = time.Time{} }, 12 * time.Hour, -1, "one real try"},
		"first, tried":              {func(h *Held) { h.LastSafe, h.Tried = time.Time{}, at(12*time.Hour) }, 13 * time.Hour, day, "was asked at"},
		"first, no failure left": {func(h *Held) { h.LastSafe, h.Failures, h.Budget, h.Room = time.Time{}, 5, 5, at(14*time.Hour) },
			13 * time.Hour, 14 * time.Hour, "allows 5"},
	} {
		h := Held{Since: begin, LastSafe: at(margin)}
		if c.change != nil {
			c.change(&h)
		}
		p := Hold(h, at(c.now))
		if p.Until.IsZero() != (c.until < 0) || c.until >= 0 && !p.Until.Equal(at(c.until)) {
			t.Errorf("%s: until %v", name, p.Until)
		}
		if !strings.Contains(p.Why, c.why) {
			t.Errorf("%s: why: %s", name, p.Why)
		}
	}
}

// Something that stays wrong: the CA is asked two times a day at most, is asked
// at the latest at the last safe moment, and a pause always ends by itself.
func TestHoldDelaysAndNeverForbids(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		margin := time.Duration(rapid.Int64Range(int64(time.Minute), int64(60*day)).Draw(t, "margin"))
		h := Held{Since: begin, LastSafe: begin.Add(margin)}
		if rapid.Bool().Draw(t, "first") {
			h.LastSafe = time.Time{}
		}
		now := begin.Add(time.Duration(rapid.Int64Range(0, int64(margin)).Draw(t, "now")))
		for range 50 {
			p := Hold(h, now)
			if p.Why == "" {
				t.Fatal("it gives no reason")
			}
			if !p.Until.IsZero() {
				if !p.Until.After(now) || !h.LastSafe.IsZero() && p.Until.After(h.LastSafe) {
					t.Fatalf("at %s it holds until %s (last safe %s)", now, p.Until, h.LastSafe)
				}
				now = p.Until
				continue
			}
			if !h.LastSafe.IsZero() && !now.Before(h.LastSafe) {
				return // nothing holds any more
			}
			if !h.Tried.IsZero() && now.Sub(h.Tried) < 12*time.Hour {
				t.Fatalf("tried at %s and at %s", h.Tried, now)
			}
			h.Tried = now
		}
	})
}

func TestBetween(t *testing.T) {
	due := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	lastSafe := due.Add(30 * 24 * time.Hour)
	for _, c := range []struct {
		due, lastSafe time.Time
		after, want   time.Duration
	}{
		{due, lastSafe, time.Hour, 24 * time.Hour},
		{due, lastSafe, 15 * 24 * time.Hour, 24 * time.Hour},
		{due, lastSafe, 15*24*time.Hour + 1, 12 * time.Hour},
		{due, lastSafe, 30*24*time.Hour - 1, 12 * time.Hour},
		{due, lastSafe, 30 * 24 * time.Hour, time.Hour},
		{due, time.Time{}, 100 * 24 * time.Hour, 24 * time.Hour},
		{time.Time{}, lastSafe, time.Hour, 24 * time.Hour},
	} {
		if got := Between(c.due, c.lastSafe, due.Add(c.after)); got != c.want {
			t.Errorf("%s after it became due: %s, want %s", c.after, got, c.want)
		}
	}
}
