package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// A draft is a policy before the number of targets is known.
type draft struct {
	farm.Policy
	parallel farm.Share
}

// cautious is the policy of a farm that says nothing: one target first, half a
// minute of watching, a quarter of the targets at a time, no failure forgiven.
func cautious() draft {
	return draft{
		Policy: farm.Policy{
			Canary:          farm.Share{Count: 1},
			Soak:            30 * time.Second,
			Deadline:        2 * time.Minute,
			HealthyDeadline: 2 * time.Minute,
			AbsentMax:       farm.Share{Percent: 5, Least: 1},
			Drift:           farm.Heal,
		},
		parallel: farm.Share{Percent: 25, Least: 1},
	}
}

// farmPolicy is what sites begin from.
func (c *resolver) farmPolicy() draft {
	w := c.file.Policy
	if w == nil {
		return cautious()
	}
	for _, v := range w.Waves {
		if len(v.Match) > 0 && len(c.file.Nodes) > 0 && len(c.matching(v.Match)) == 0 {
			c.say(v.at.field("match"), "no node has "+written(v.Match), c.labelHint(v.Match))
		}
	}
	return c.over(cautious(), w)
}

// usedWaves refuses a farm's wave that no target of any site is in: it looks as if
// something were done with care, and nothing is. It is asked when all else is
// right, since a mistake in a target would bring this one along.
func (c *resolver) usedWaves() {
	if c.file.Policy == nil || len(c.wrong) > 0 {
		return
	}
	for _, v := range c.file.Policy.Waves {
		if !c.anySite("wave "+v.Name, slices.ContainsFunc(c.whole.Sites, func(s farm.Site) bool { return hasTarget(v.Match, s.Targets) })) {
			c.say(v.at.field("match"), "no target of any site is on a node with "+written(v.Match), "take the wave out, or give it the labels of nodes that have targets")
		}
	}
}

// sitePolicy is the farm's policy under the site's own, for its targets. A
// farm's wave that has none of them is left out; a site's is a mistake.
func (c *resolver) sitePolicy(w site, targets []farm.Target) farm.Policy {
	got := c.base
	if w.Policy != nil {
		got = c.over(got, w.Policy)
		c.fits(w.Policy, got, targets)
	}
	waves := got.Waves
	got.Waves = nil
	for _, v := range waves {
		if hasTarget(v.Match, targets) {
			got.Waves = append(got.Waves, v)
		}
	}
	got.MaxParallel = max(1, got.parallel.Of(len(targets)))
	return got.Policy
}

// fits checks a site's own policy against its targets.
func (c *resolver) fits(w *policy, got draft, targets []farm.Target) {
	if len(targets) == 0 {
		return // said already
	}
	if n := got.Canary.Count; w.Canary != nil && n > len(targets) {
		c.say(w.at.field("canary"), fmt.Sprintf("the canary is %d, but the site has %s", n, farm.Count(len(targets), "target")), "")
	}
	for _, v := range w.Waves {
		if len(v.Match) > 0 && !hasTarget(v.Match, targets) {
			c.say(v.at.field("match"), "no target of this site is on a node with "+written(v.Match), "")
		}
	}
}

func hasTarget(labels map[string]string, targets []farm.Target) bool {
	return slices.ContainsFunc(targets, func(t farm.Target) bool { return has(t.Labels, labels) })
}

// over puts what w says over a policy.
func (c *resolver) over(d draft, w *policy) draft {
	c.shares(&d, w)
	for _, f := range []struct {
		name string
		said *duration
		to   *time.Duration
		some bool // zero is not allowed
	}{
		{"soak", w.Soak, &d.Soak, false},
		{"deadline", w.Deadline, &d.Deadline, true},
		{"healthy_deadline", w.HealthyDeadline, &d.HealthyDeadline, true},
		{"settle", w.Settle, &d.Settle, false},
	} {
		if f.said == nil {
			continue
		}
		*f.to = time.Duration(*f.said)
		if f.some {
			c.positive(w.at.field(f.name), *f.to)
		}
	}
	if w.Waves != nil {
		d.Waves = c.waves(w)
	}
	if w.Window != nil {
		d.Windows = c.windows(w.at.field("window"), w.Window)
	}
	d.Drift = farm.Drift(orElse(w.Drift, string(d.Drift)))
	return d
}

// shares puts the numbers of targets. A percentage is rounded down, but a canary
// is at least one target, and so is what may be changed at one time.
func (c *resolver) shares(d *draft, w *policy) {
	put := func(to *farm.Share, said *share) {
		if said != nil {
			*to = farm.Share(*said)
		}
	}
	put(&d.Canary, w.Canary)
	put(&d.parallel, w.MaxParallel)
	put(&d.FailureBudget, w.FailureBudget)
	put(&d.AbsentMax, w.AbsentMax)
	if w.Canary != nil && d.Canary.Percent > 0 {
		d.Canary.Least = max(1, d.Canary.Least)
	}
	if w.MaxParallel == nil {
		return
	}
	if d.parallel == (farm.Share{}) {
		c.say(w.at.field("max_parallel"), "max_parallel must be at least 1, or nothing would ever be changed", "")
	}
	d.parallel.Least = max(1, d.parallel.Least)
}

func (c *resolver) waves(w *policy) []farm.WaveSpec {
	all := []farm.WaveSpec{}
	for _, v := range w.Waves {
		if len(v.Match) == 0 && v.at.field("match") != v.at && len(v.at.field("match").val.Content) == 0 {
			c.say(v.at.field("match"), "a wave without labels has no targets of its own", "targets in no wave are changed last anyway")
		}
		if slices.ContainsFunc(all, func(s farm.WaveSpec) bool { return s.Name == v.Name && v.Name != "" }) {
			c.say(v.at.field("name"), "two waves are called "+quote(v.Name), "")
		}
		all = append(all, farm.WaveSpec{Name: v.Name, Match: v.Match, Approve: v.Approve})
	}
	return all
}

// windows reads the times of the week of the list at a place.
func (c *resolver) windows(at *place, said list) []farm.Window {
	var all []farm.Window
	for i, text := range said {
		if text == "" {
			continue
		}
		got, problem, hint := parseWindow(text)
		if problem != "" {
			c.say(at.item(i), problem, hint)
		}
		all = append(all, got)
	}
	return all
}

// weekdays are the days as a window names them, by time.Weekday.
var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

const windowHint = "write for example Mon-Fri 02:00-05:00 Europe/Copenhagen"

// parseWindow reads "[DAYS] FROM-TO ZONE".
func parseWindow(s string) (w farm.Window, problem, hint string) {
	parts := strings.Fields(s)
	if len(parts) == 3 {
		days, bad := parseDays(parts[0])
		if bad != "" {
			return w, quote(bad) + " is no day of the week", "days are Mon Tue Wed Thu Fri Sat Sun: Mon-Fri or Sat,Sun"
		}
		w.Days, parts = days, parts[1:]
	}
	if len(parts) != 2 || strings.Contains(parts[1], ":") {
		return w, "this is no window: it has times and a zone, and days before them if not all", windowHint
	}
	from, to, _ := strings.Cut(parts[0], "-")
	var okFrom, okTo bool
	w.From, okFrom = parseClock(from)
	w.To, okTo = parseClock(to)
	w.Zone = parts[1]
	switch _, err := time.LoadLocation(w.Zone); {
	case !okFrom || !okTo || w.From == 24*time.Hour:
		return w, quote(parts[0]) + " are no times of day", windowHint
	case w.From == w.To:
		return w, "the window ends when it begins", "for the whole day write 00:00-24:00"
	case err != nil || w.Zone == "Local":
		return w, "there is no time zone " + quote(w.Zone), "zones have the IANA's names: Europe/Copenhagen, America/New_York, UTC"
	}
	return w, "", ""
}

// parseDays reads "Mon-Fri", "Sat,Sun", "Fri-Mon,Wed"; bad is what is no day.
func parseDays(s string) (days []time.Weekday, bad string) {
	var on [7]bool
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		i, j := slices.Index(weekdays, strings.ToLower(from)), slices.Index(weekdays, strings.ToLower(to))
		if i < 0 || j < 0 {
			return nil, part
		}
		for on[i] = true; i != j; on[i] = true {
			i = (i + 1) % 7
		}
	}
	for i, is := range on {
		if is {
			days = append(days, time.Weekday(i))
		}
	}
	return days, ""
}

// parseClock reads "02:30"; 24:00 is the end of the day.
func parseClock(s string) (time.Duration, bool) {
	if s == "24:00" {
		return 24 * time.Hour, true
	}
	t, err := time.Parse("15:04", s)
	if err != nil || len(s) != len("15:04") {
		return 0, false
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, true
}
