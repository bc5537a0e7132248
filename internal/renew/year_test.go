package renew

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// A year of ten thousand 45-day certificates whose CA suggests nothing, so that the
// jitter of each site alone spreads them; it adds up from cycle to cycle. Once the second
// cycle is over the busiest hour has no more than three times the mean: after a week off,
// which puts 2,333 of them together, and where all began on one day, the worst case.
func TestAYearSpreads(t *testing.T) {
	t.Parallel()
	const sites, cycle, limit = 10000, 30 * day, time.Hour / 100 // what Let's Encrypt allows
	off, oneDay := make([]time.Duration, sites), make([]time.Duration, sites)
	for i := range sites {
		off[i] = max(cycle/sites*time.Duration(i), 7*day)
		if i > 0 {
			off[i], oneDay[i] = max(off[i], off[i-1]+limit), oneDay[i-1]+limit
		}
	}
	for name, first := range map[string][]time.Duration{"after a week off": off, "began on one day": oneDay} {
		hours := orders(first)
		settled := hours[(first[sites-1]+2*cycle)/time.Hour:]
		total := 0
		for _, n := range settled {
			total += n
		}
		mean, busiest := float64(total)/float64(len(settled)), slices.Max(settled)
		if float64(busiest) > 3*mean || busiest == 0 {
			t.Errorf("%s: the busiest hour has %d orders, the mean hour %.1f", name, busiest, mean)
		}
		t.Logf("%s: %d orders in the busiest hour, %.1f in the mean one", name, busiest, mean)
	}
}

// orders are those of each hour of 13 months, by when each site ordered first.
func orders(first []time.Duration) []int {
	const life, end = 45 * day, 395 * day
	hours := make([]int, end/time.Hour)
	for i, at := range first {
		f := facts(life)
		f.Site = fmt.Sprintf("site-%d", i)
		due, _ := backstop(f) // as Due has it, the same in every cycle
		for ; at < end; at += due.Sub(begin) {
			hours[at/time.Hour]++
		}
	}
	return hours
}
