package farm

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// A Policy says how careful a rollout is. A rollout copies it, so that an edit
// of farm.yaml does not change one that runs.
type Policy struct {
	Canary          Share         `json:"canary,omitzero"`         // targets of the first wave; 0: no canary
	Waves           []WaveSpec    `json:"waves,omitzero"`          // waves by label, after the canary; what they leave is the last wave
	MaxParallel     int           `json:"max_parallel"`            // targets live and not yet verified at one time, ≥ 1
	Soak            time.Duration `json:"soak"`                    // how long a verified wave is watched before the next
	Deadline        time.Duration `json:"deadline"`                // for one act on one target, all its commands and copies
	HealthyDeadline time.Duration `json:"healthy_deadline"`        // from activation until the target must be seen serving
	FailureBudget   Share         `json:"failure_budget,omitzero"` // node faults that do not undo the rest; default 0
	AbsentMax       Share         `json:"absent_max,omitzero"`     // targets that may be silent everywhere; default max(1, 5 %)
	Windows         []Window      `json:"windows,omitzero"`        // when targets may be activated; none: always
	Settle          time.Duration `json:"settle"`                  // least age of a certificate before it goes live
	Drift           Drift         `json:"drift,omitzero"`
}

// A WaveSpec names targets that are changed together.
type WaveSpec struct {
	Name    string            `json:"name,omitzero"`
	Match   map[string]string `json:"match,omitzero"` // labels
	Approve bool              `json:"approve"`        // a person must assent before it begins
}

// Drift is what is done when a target serves something else than it should.
type Drift string

// The two answers to drift.
const (
	Heal   Drift = "heal"
	Report Drift = "report"
)

// A Share is a number of targets: a count, or a percentage of all of them.
type Share struct {
	Count   int     `json:"count"`
	Percent float64 `json:"percent"`
	Least   int     `json:"least"` // the result is at least this
}

// Of returns the share of n targets. A percentage is rounded down, so that a
// budget never becomes larger than was said.
func (s Share) Of(n int) int {
	got := max(s.Count+int(math.Floor(s.Percent*float64(n)/100)), s.Least)
	return min(got, n)
}

// String is how farm.yaml writes it.
func (s Share) String() string {
	switch {
	case s.Percent > 0 && s.Least > 0:
		return fmt.Sprintf("max(%d, %g%%)", s.Least, s.Percent)
	case s.Percent > 0:
		return fmt.Sprintf("%g%%", s.Percent)
	}
	return fmt.Sprint(s.Count)
}

// A Window is a time of the week when targets may be changed. It may end on
// the day after it began ("22:00-04:00").
type Window struct {
	Days []time.Weekday `json:"days,omitzero"` // none: every day
	From time.Duration  `json:"from"`
	To   time.Duration  `json:"to"`            // since midnight, in Zone
	Zone string         `json:"zone,omitzero"` // IANA name, "Europe/Copenhagen"
}

// Open reports whether the window is open at now, and when it opens next if it
// is not. Times are wall clock times in Zone: on a day without 02:30 a window
// from 02:30 opens when the clock first shows a later time.
func (w Window) Open(now time.Time) (open bool, opens time.Time) {
	begin, _ := w.period(now)
	if begin.IsZero() || !now.Before(begin) {
		return !begin.IsZero(), time.Time{}
	}
	return false, begin
}

// period is the window's time that now is in, or the next one.
func (w Window) period(now time.Time) (begin, end time.Time) {
	zone, err := time.LoadLocation(w.Zone)
	if err != nil {
		zone = time.UTC // config has refused unknown zones
	}
	local := now.In(zone)
	for day := -1; day <= 8; day++ {
		begin, end = wall(local, day, w.From), wall(local, day, w.To)
		if w.To <= w.From {
			end = wall(local, day+1, w.To)
		}
		if w.on(begin.Weekday()) && now.Before(end) {
			return begin, end
		}
	}
	return time.Time{}, time.Time{}
}

// Closes is when none of the windows is open any more: now if none is, a week from now
// if they leave no gap.
func Closes(windows []Window, now time.Time) time.Time {
	at := now
	for again := true; again && at.Sub(now) < 7*24*time.Hour; {
		again = false
		for _, w := range windows {
			if begin, end := w.period(at); !begin.IsZero() && !at.Before(begin) {
				at, again = end, true
			}
		}
	}
	return at
}

// String is how farm.yaml writes it: "Mon,Tue 02:00-05:00 Europe/Copenhagen".
func (w Window) String() string {
	var days []string
	for _, d := range w.Days {
		days = append(days, d.String()[:3])
	}
	clock := func(d time.Duration) string { return fmt.Sprintf("%02d:%02d", d/time.Hour, d%time.Hour/time.Minute) }
	return strings.TrimSpace(strings.Join(days, ",") + " " + clock(w.From) + "-" + clock(w.To) + " " + w.Zone)
}

func (w Window) on(d time.Weekday) bool {
	return len(w.Days) == 0 || slices.Contains(w.Days, d)
}

func wall(local time.Time, days int, since time.Duration) time.Time {
	y, m, d := local.Date()
	return time.Date(y, m, d+days, 0, int(since/time.Minute), 0, 0, local.Location())
}

// Open reports whether any of the windows is open, and when the next one opens.
func Open(windows []Window, now time.Time) (open bool, opens time.Time) {
	for _, w := range windows {
		is, next := w.Open(now)
		if is {
			return true, time.Time{}
		}
		if opens.IsZero() || next.Before(opens) {
			opens = next
		}
	}
	return len(windows) == 0, opens
}
