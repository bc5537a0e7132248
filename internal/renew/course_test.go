package renew

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/certfarm/certfarm/internal/farm"
)

func nightly(days ...time.Weekday) farm.Window {
	return farm.Window{Days: days, From: 2 * time.Hour, To: 5 * time.Hour, Zone: "Europe/Copenhagen"}
}

func TestPattern(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		windows      []farm.Window
		closed, open time.Duration
	}{
		"every night":       {[]farm.Window{nightly()}, 21 * time.Hour, 3 * time.Hour},
		"sunday":            {[]farm.Window{nightly(time.Sunday)}, week - 3*time.Hour, 3 * time.Hour},
		"saturday, sunday":  {[]farm.Window{nightly(time.Saturday, time.Sunday)}, 6*24*time.Hour - 3*time.Hour, 3 * time.Hour},
		"over midnight":     {[]farm.Window{{From: 22 * time.Hour, To: 4 * time.Hour, Zone: "UTC"}}, 18 * time.Hour, 6 * time.Hour},
		"always":            {[]farm.Window{{To: 24 * time.Hour, Zone: "UTC"}}, 0, week},
		"two that touch":    {[]farm.Window{{From: time.Hour, To: 2 * time.Hour, Zone: "UTC"}, {From: 2 * time.Hour, To: 3 * time.Hour, Zone: "UTC"}}, 22 * time.Hour, 2 * time.Hour},
		"two zones":         {[]farm.Window{{From: time.Hour, To: 2 * time.Hour, Zone: "UTC"}, {From: 9 * time.Hour, To: 10 * time.Hour, Zone: "Asia/Tokyo"}}, 22 * time.Hour, 2 * time.Hour},
		"sunday to monday":  {[]farm.Window{{Days: []time.Weekday{time.Sunday}, From: 20 * time.Hour, To: 10 * time.Hour, Zone: "UTC"}, {Days: []time.Weekday{time.Monday}, From: 8 * time.Hour, To: 12 * time.Hour, Zone: "UTC"}}, week - 16*time.Hour, 16 * time.Hour},
		"monday, far ahead": {[]farm.Window{{Days: []time.Weekday{time.Monday}, From: time.Hour, To: 2 * time.Hour, Zone: "Pacific/Auckland"}}, week - time.Hour, time.Hour},
	} {
		if closed, open := pattern(c.windows); closed != c.closed || open != c.open {
			t.Errorf("%s: closed for %s, open for %s", name, closed, open)
		}
	}
}

// Nobody waits longer for a window than the pattern says, whenever he comes.
func TestPatternHolds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var windows []farm.Window
		for range rapid.IntRange(1, 3).Draw(t, "windows") {
			w := farm.Window{From: time.Duration(rapid.IntRange(0, 47).Draw(t, "from")) * 30 * time.Minute, To: time.Duration(rapid.IntRange(1, 48).Draw(t, "to")) * 30 * time.Minute, Zone: "UTC"}
			if w.From == w.To {
				w.To += 30 * time.Minute
			}
			for d := range 7 {
				if rapid.Bool().Draw(t, "day") {
					w.Days = append(w.Days, time.Weekday(d))
				}
			}
			windows = append(windows, w)
		}
		closed, _ := pattern(windows)
		longest := time.Duration(0)
		for h := range 7 * 48 {
			at := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC).Add(time.Duration(h) * 30 * time.Minute)
			if open, opens := farm.Open(windows, at); !open {
				longest = max(longest, opens.Sub(at))
			}
		}
		if longest != closed {
			t.Fatalf("%v: the longest wait is %s, not %s", windows, longest, closed)
		}
	})
}

func TestImpossible(t *testing.T) {
	t.Parallel()
	site := func(w ...farm.Window) farm.Site {
		return farm.Site{Targets: make([]farm.Target, 8), Policy: farm.Policy{
			Canary: farm.Share{Count: 1}, MaxParallel: 2, Soak: 30 * time.Second, Deadline: 2 * time.Minute, HealthyDeadline: 2 * time.Minute, Windows: w,
		}}
	}
	own := site()
	own.Targets[3].Windows = []farm.Window{nightly(time.Sunday)}
	slow := site(farm.Window{From: 2 * time.Hour, To: 2*time.Hour + 5*time.Minute, Zone: "UTC"})
	slow.Policy.Soak = 10 * time.Minute
	for name, c := range map[string]struct {
		site farm.Site
		life time.Duration
		says string
	}{
		"no windows":             {site(), 160 * time.Hour, ""},
		"every night":            {site(nightly()), 160 * time.Hour, ""},
		"once a week":            {site(nightly(time.Sunday)), 45 * 24 * time.Hour, ""},
		"once a week, 160 hours": {site(nightly(time.Sunday)), 160 * time.Hour, "renewed when half of its life is left, which is 3d8h; but 13h20m for retries, 6d21h until a window opens and 23m for the rollout make 7d10h43m"},
		"a target's own":         {own, 160 * time.Hour, "6d21h until a window opens"},
		"longer than a window":   {slow, 160 * time.Hour, "until 8 windows have opened"},
	} {
		got := CourseOf(c.site).Impossible(c.life)
		if (got == "") != (c.says == "") || !strings.Contains(got, c.says) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// The last safe moment leaves time for the windows of the site itself, and is never
// before the certificate is due.
func TestLastSafeLeavesTimeForWindows(t *testing.T) {
	t.Parallel()
	end := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	v := func(life time.Duration) farm.Version {
		return farm.Version{Leaves: []farm.Leaf{{NotBefore: end.Add(-life), NotAfter: end}}}
	}
	c := Course{Windows: [][]farm.Window{{nightly(time.Sunday)}}, Batches: 1, Waves: 1, Batch: time.Minute}
	for life, want := range map[time.Duration]time.Duration{
		90 * 24 * time.Hour: retries + 6*24*time.Hour + 21*time.Hour + time.Minute,
		160 * time.Hour:     80 * time.Hour,
	} {
		if got := end.Sub(LastSafe(v(life), c)); got != want {
			t.Errorf("of %s %s before its end, want %s", life, got, want)
		}
	}
	if got := end.Sub(LastSafe(v(90*24*time.Hour), Course{})); got != 180*time.Hour {
		t.Errorf("without windows %s before its end", got)
	}
}
