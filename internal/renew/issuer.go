package renew

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Candidate is what is known of an issuer that a site's next certificate may come
// from.
type Candidate struct {
	Issuer string
	Bars   string    // why it may not issue for the site at all, as things are (CAA); empty: it may
	Why    string    // why it does not issue now; empty: it does, as far as is known
	Since  time.Time // since when; zero: it is not known
	Until  time.Time // until when; zero: nobody knows
	Failed time.Time // when the last order there failed since the certificate became due; zero: none did
}

// A Choice is the issuer that is asked for a site's next certificate.
type Choice struct {
	Issuer string
	Why    string // with the arithmetic, where it is not simply the first; for people
	// Switch is when another is asked if nothing gets better meanwhile; zero: none is.
	Switch time.Time
}

// firstWait is how long a first certificate, which has no last safe moment, waits for
// its issuer.
const firstWait = 3 * time.Hour

// Patience is until when a site's first issuer is waited for: three quarters of the
// time from when its certificate became due to the last safe moment. The last quarter
// is for the others, with retries, windows and waves on top (see LastSafe).
//
//	due ──────── the first is waited for ──────── switch ── the next ── last safe
func Patience(due, lastSafe time.Time) time.Time {
	switch {
	case lastSafe.IsZero():
		return due.Add(firstWait)
	case !lastSafe.After(due):
		return due // it is late already
	}
	return lastSafe.Add(-lastSafe.Sub(due) / 4)
}

// Choose says which of a site's issuers is asked, in the order of farm.yaml: the
// first that may issue at all. Where it cannot now, it is waited for as long as there
// is time, or if it says until when, and that is in time. After that the first other
// that can issue takes its place; one at which an order failed meanwhile comes behind
// those at which none did. Each renewal begins anew with the first.
func Choose(all []Candidate, due, lastSafe, now time.Time) Choice {
	open := slices.DeleteFunc(slices.Clone(all), func(c Candidate) bool { return c.Bars != "" })
	if len(open) == 0 {
		return Choice{Issuer: all[0].Issuer, Why: "no issuer may issue: " + barred(all)}
	}
	first, patience := open[0], Patience(due, lastSafe)
	switch {
	case len(open) == 1:
		return Choice{Issuer: first.Issuer, Why: barred(all)}
	case first.well() && (first.Failed.IsZero() || now.Before(patience)):
		return Choice{Issuer: first.Issuer, Why: barred(all), Switch: later(patience, now)}
	case now.Before(patience) && !first.Until.After(patience):
		why := fmt.Sprintf("%s; if that lasts until %s, %s is asked", first.trouble(now), text(patience), open[1].Issuer)
		return Choice{Issuer: first.Issuer, Why: join(barred(all), why), Switch: patience}
	}
	best := slices.MinFunc(open, func(a, b Candidate) int { return compareCandidates(a, b) })
	if best.Issuer == first.Issuer {
		return Choice{Issuer: best.Issuer, Why: barred(all)}
	}
	return Choice{Issuer: best.Issuer, Why: join(barred(all), first.trouble(now)+"; "+margin(lastSafe, now)+best.Issuer+" is asked")}
}

// compareCandidates orders those that can issue before those that cannot, and those at
// which nothing failed before those at which something did, longest ago first. It is
// 0 where farm.yaml's order decides.
func compareCandidates(a, b Candidate) int {
	rank := func(c Candidate) int {
		switch {
		case !c.well():
			return 2
		case !c.Failed.IsZero():
			return 1
		}
		return 0
	}
	by := cmp.Compare(rank(a), rank(b))
	if by == 0 && rank(a) == 1 {
		by = a.Failed.Compare(b.Failed)
	}
	return by
}

func (c Candidate) well() bool { return c.Why == "" }

// trouble is what is wrong with a candidate.
func (c Candidate) trouble(now time.Time) string {
	switch {
	case c.well():
		return "the last order at " + c.Issuer + " failed at " + text(c.Failed)
	case !c.Until.IsZero():
		return fmt.Sprintf("%s %s until %s", c.Issuer, c.Why, text(c.Until))
	case !c.Since.IsZero():
		return fmt.Sprintf("%s %s since %s", c.Issuer, c.Why, rounded(now.Sub(c.Since)))
	}
	return c.Issuer + " " + c.Why
}

// margin is how much time there is, for people.
func margin(lastSafe, now time.Time) string {
	switch {
	case lastSafe.IsZero():
		return "it is a first certificate, so that nothing is gained by waiting: "
	case !now.Before(lastSafe):
		return "the last safe start is past: "
	}
	return fmt.Sprintf("%s before the last safe start (%s) ", rounded(lastSafe.Sub(now)), text(lastSafe))
}

func barred(all []Candidate) string {
	var whys []string
	for _, c := range all {
		if c.Bars != "" {
			whys = append(whys, c.Issuer+" is not asked: "+c.Bars)
		}
	}
	return strings.Join(whys, "; ")
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// later is the time if it lies ahead, else zero.
func later(t, now time.Time) time.Time {
	if t.After(now) {
		return t
	}
	return time.Time{}
}
