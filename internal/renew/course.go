package renew

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// A Course is what lies between the order of a version and the moment at which it is
// served everywhere, as far as farm.yaml says it. The zero value: it is served at once.
type Course struct {
	Waves   int           // steps that are watched one after another
	Batches int           // groups of targets that are changed one after another
	Batch   time.Duration // for one of them, from its activation until it is seen serving
	Stage   time.Duration // for what is done before any
	Soak    time.Duration // of each wave
	Settle  time.Duration // least age of a certificate that goes live
	Lag     time.Duration // of the target whose readers are slowest
	// Windows are the lists of windows that targets wait for; each list by itself.
	Windows [][]farm.Window
}

// CourseOf is the course of a site's new versions.
func CourseOf(s farm.Site) Course {
	p := s.Policy
	c := Course{
		Waves: 1 + len(p.Waves), Batch: p.Deadline + p.HealthyDeadline, Stage: p.Deadline, Soak: p.Soak, Settle: p.Settle,
	}
	if p.Canary.Of(len(s.Targets)) > 0 {
		c.Waves++
	}
	c.Batches = c.Waves - 1 + (len(s.Targets)+max(p.MaxParallel, 1)-1)/max(p.MaxParallel, 1)
	for _, t := range s.Targets {
		c.Lag = max(c.Lag, t.Lag)
		windows := t.Windows
		if len(windows) == 0 {
			windows = p.Windows
		}
		if len(windows) > 0 && !slices.ContainsFunc(c.Windows, func(w []farm.Window) bool { return alike(w, windows) }) {
			c.Windows = append(c.Windows, windows)
		}
	}
	return c
}

func alike(a, b []farm.Window) bool {
	return slices.EqualFunc(a, b, func(a, b farm.Window) bool {
		return a.From == b.From && a.To == b.To && a.Zone == b.Zone && slices.Equal(a.Days, b.Days)
	})
}

// A Need is how long a new version may take to be everywhere, and of what this is
// made.
type Need struct {
	Retries time.Duration // of an order that fails: after 1, 10 and 100 minutes, then a day, or a twelfth of the lifetime
	Wait    time.Duration // for windows, at worst
	Times   int           // how many windows it takes
	Rollout time.Duration // all else: settling, staging, batches, soaks, lag
}

// Sum is all of it.
func (n Need) Sum() time.Duration { return n.Retries + n.Wait + n.Rollout }

// retries is how long an order may be retried: Let's Encrypt's integration guide.
const retries = 111*time.Minute + 24*time.Hour

// Need is what the course may take for a certificate of a lifetime.
func (c Course) Need(life time.Duration) Need {
	n := Need{Retries: min(retries, life/12)}
	work := time.Duration(c.Batches)*c.Batch + time.Duration(c.Waves)*c.Soak
	n.Rollout = c.Settle + c.Stage + work + c.Lag
	for _, windows := range c.Windows {
		closed, open := pattern(windows)
		// An activation begins in a window and may end after it: so the work that one
		// window bears is its length and one batch.
		times := 1
		if rest := work - c.Batch - open; rest > 0 && open > 0 {
			times += int((rest + open - 1) / open)
		}
		if wait := time.Duration(times) * closed; wait > n.Wait {
			n.Wait, n.Times = wait, times
		}
	}
	return n
}

// Impossible says why the windows of a course leave a certificate of a lifetime no
// way to be renewed in time; empty: they do not, or the lifetime is not known (0). The
// time that there is begins when the certificate is due and ends when it expires.
func (c Course) Impossible(life time.Duration) string {
	if life == 0 {
		return ""
	}
	n := c.Need(life)
	due, words := left(life)
	if n.Wait == 0 || n.Sum() <= due {
		return ""
	}
	until := "until a window opens"
	if n.Times > 1 {
		until = fmt.Sprintf("until %d windows have opened", n.Times)
	}
	return fmt.Sprintf("a certificate of %s is renewed when %s of its life is left, which is %s; but %s for retries, %s %s and %s for the rollout make %s",
		rounded(life), words, rounded(due), rounded(n.Retries), rounded(n.Wait), until, rounded(n.Rollout), rounded(n.Sum()))
}

// Lifetime is how long the certificates of a profile are known to live; 0: it is not
// known. The names are Let's Encrypt's, and others that have taken them mean the same.
func Lifetime(profile string) time.Duration {
	switch profile {
	case "shortlived":
		return 160 * time.Hour
	case "tlsserver":
		return 45 * 24 * time.Hour
	}
	return 0
}

// rounded is a length of time for people: 6d16h, 3h20m, 45s.
func rounded(d time.Duration) string {
	if d < time.Minute {
		return d.Round(time.Second).String()
	}
	d = d.Round(time.Minute)
	var b strings.Builder
	for _, u := range []struct {
		of   time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if n := d / u.of; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
		}
		d %= u.of
	}
	return b.String()
}

const week = 7 * 24 * time.Hour

// A span is a part of the week, from Monday 00:00; it may end in the next.
type span struct{ from, to time.Duration }

// pattern is the longest time of the week in which none of some windows is open, and
// the shortest in which one is. An hour that a clock is put forward or back is not
// looked at.
func pattern(windows []farm.Window) (closed, open time.Duration) {
	spans := merged(windows)
	if len(spans) == 0 {
		return 0, 0
	}
	open = week
	last := spans[len(spans)-1].to - week
	for _, s := range spans {
		if s.from > last {
			closed = max(closed, s.from-last)
			open = min(open, s.to-s.from)
		}
		last = max(last, s.to)
	}
	return closed, open
}

// merged are the times of the week at which a window is open, in order, those that
// touch in one.
func merged(windows []farm.Window) (all []span) {
	var parts []span
	for _, w := range windows {
		length := w.To - w.From
		if length <= 0 {
			length += 24 * time.Hour
		}
		for day := range 7 {
			if len(w.Days) > 0 && !slices.Contains(w.Days, time.Weekday((day+1)%7)) {
				continue
			}
			from := (time.Duration(day)*24*time.Hour + w.From - offset(w.Zone) + week) % week
			parts = append(parts, span{from, from + length})
		}
	}
	slices.SortFunc(parts, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	for _, p := range parts {
		if n := len(all); n > 0 && p.from <= all[n-1].to {
			all[n-1].to = max(all[n-1].to, p.to)
			continue
		}
		all = append(all, p)
	}
	if n := len(all); n > 1 && all[n-1].to-week >= all[0].from { // it runs into the first of the next week
		all[n-1].to = max(all[n-1].to, all[0].to+week)
		all = all[1:]
	}
	return all
}

// offset is how far a zone's clock is ahead of UTC in its winter. Windows of several
// zones are compared by it; for those of one it makes no difference.
func offset(zone string) time.Duration {
	at, err := time.LoadLocation(zone)
	if err != nil {
		return 0 // config has refused unknown zones
	}
	_, seconds := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).In(at).Zone()
	return time.Duration(seconds) * time.Second
}
