package budget

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/certfarm/certfarm/internal/farm"
)

// thirds is as package renew has it, without its jitter.
func thirds(_ string, life time.Duration) time.Duration {
	if life < 10*day {
		return life / 2
	}
	return life / 3
}

// alone is a CA that is the only one.
func alone(l Ledger) []Issuer { return []Issuer{{Ledger: l}} }

// strict are Let's Encrypt's limits at a CA that exempts nothing.
func strict() Ledger {
	l := LetsEncrypt()
	l.Exempt = farm.ExemptNone
	return Ledger{Limits: l}
}

// many are certificates of one lifetime, due evenly over the time in which all are
// renewed once.
func many(n int, life time.Duration) (all []Cert) {
	cycle := life - thirds("", life)
	for i := range n {
		due := now.Add(cycle / time.Duration(n) * time.Duration(i))
		all = append(all, Cert{
			Site: fmt.Sprintf("s%05d", i), Names: []string{fmt.Sprintf("www.d%d.test", i)},
			Due: due, NotAfter: due.Add(thirds("", life)), Life: life,
		})
	}
	return all
}

// Ten thousand 45-day certificates after a week off, of a CA that exempts nothing:
// 2,333 are behind, and at 100 an hour beside those that become due they are done in
// the 24 hours that follow; none expires, and none is ordered before the CA allows it.
func TestAWeekOff(t *testing.T) {
	t.Parallel()
	f := Simulate(Scenario{
		Certs: many(10000, 45*day), Issuers: alone(strict()), Start: now, Days: 20, Pause: 7 * day, Before: thirds,
	})[0]
	if len(f.Lapses) > 0 {
		t.Errorf("%d expire, the first %+v", len(f.Lapses), f.Lapses[0])
	}
	if f.Days[6].Orders != 0 || f.Days[6].Waiting < 2300 || f.Days[6].Waiting > 2350 {
		t.Errorf("the last day off: %+v", f.Days[6])
	}
	// (2,333 − 285) / (100 − 13.9 an hour)
	if took := f.Drained.Sub(now.Add(7 * day)); took < 23*time.Hour || took > 25*time.Hour {
		t.Errorf("drained after %s", took)
	}
	if f.Days[9].Waiting != 0 || f.Days[9].Orders < 300 || f.Days[9].Orders > 370 {
		t.Errorf("the third day after: %+v", f.Days[9])
	}
}

// A thousand certificates of 160 hours want 12.5 orders an hour, where 10 are allowed
// (as ten thousand do at Let's Encrypt): somebody always waits, and after a week off
// all have expired.
func TestShortLivedAreTooMany(t *testing.T) {
	t.Parallel()
	few := Ledger{Limits: farm.Limits{Orders: farm.Rate{Count: 30, Per: 3 * time.Hour}}}
	s := Scenario{Certs: many(1000, 160*time.Hour), Issuers: alone(few), Start: now, Days: 30, Before: thirds}
	f := Simulate(s)[0]
	if len(f.Lapses) > 0 || !f.Drained.IsZero() || f.Days[29].Waiting < 100 || f.Waited == 0 {
		t.Errorf("%d expire, %+v", len(f.Lapses), f.Days[29])
	}
	for i := range f.Days {
		if f.Days[i].Orders > 240+29 {
			t.Errorf("%d orders in a day", f.Days[i].Orders)
		}
	}
	s.Pause = 7 * day
	if f = Simulate(s)[0]; len(f.Lapses) != 1000 || f.Days[29].Waiting < 100 {
		t.Errorf("after a week off %d expire", len(f.Lapses))
	}
}

func TestWhatIsExemptWaitsForNobody(t *testing.T) {
	t.Parallel()
	certs := many(1000, 6*day)
	l := Ledger{Limits: farm.Limits{Orders: farm.Rate{Count: 1, Per: day}, Exempt: farm.ExemptARI}}
	f := Simulate(Scenario{Certs: certs, Issuers: alone(l), Start: now, Days: 30, Before: thirds})[0]
	if f.Waited > 0 || f.Orders < 9000 {
		t.Errorf("%d orders, %d waited", f.Orders, f.Waited)
	}
}

// Names under one domain wait for it alone, the rest of the farm does not.
func TestOneDomain(t *testing.T) {
	t.Parallel()
	certs := many(10, 90*day)
	for i := range 500 {
		certs = append(certs, Cert{Site: fmt.Sprintf("new%03d", i), Names: []string{fmt.Sprintf("n%d.shop.test", i)}, Due: now, Life: 90 * day})
	}
	f := Simulate(Scenario{Certs: certs, Issuers: alone(strict()), Start: now, Days: 90, Before: thirds})[0]
	if f.Days[0].Domain != "shop.test" || f.Days[0].Orders < 50 || f.Days[0].Orders > 60 {
		t.Errorf("the first day: %+v", f.Days[0])
	}
	if f.Days[89].Waiting < 1 || f.Longest.Site[:3] != "new" || len(f.Lapses) > 0 {
		t.Errorf("the last day: %+v, longest %+v", f.Days[89], f.Longest)
	}
	total := 0
	for _, d := range f.Days {
		total += d.Orders
	}
	if total != f.Orders {
		t.Errorf("%d orders on all days, %d in all", total, f.Orders)
	}
}

// Whatever the farm, the buckets of the CA are never overdrawn in a forecast, each
// order is counted once, and who waits at the end of it was never forgotten.
func TestForecastHoldsTheLimits(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var s Scenario
		s.Start, s.Days, s.Before = now, rapid.IntRange(1, 20).Draw(t, "days"), thirds
		var limits farm.Limits
		limits.Orders = farm.Rate{Count: rapid.IntRange(2, 9).Draw(t, "orders"), Per: time.Duration(rapid.IntRange(1, 30).Draw(t, "per")) * time.Hour}
		limits.Domain = farm.Rate{Count: rapid.IntRange(2, 9).Draw(t, "domain"), Per: time.Duration(rapid.IntRange(1, 90).Draw(t, "per")) * time.Hour}
		s.Issuers = alone(Ledger{Limits: limits})
		s.Pause = time.Duration(rapid.IntRange(0, 60).Draw(t, "pause")) * time.Hour
		for i := range rapid.IntRange(1, 40).Draw(t, "certs") {
			due := now.Add(time.Duration(rapid.IntRange(-50, 300).Draw(t, "due")) * time.Hour)
			c := Cert{Site: fmt.Sprint(i), Due: due, Life: time.Duration(rapid.IntRange(4, 40).Draw(t, "life")) * day, Orders: rapid.IntRange(1, 2).Draw(t, "keys")}
			for range rapid.IntRange(1, 2).Draw(t, "names") {
				c.Names = append(c.Names, fmt.Sprintf("d%d.test", rapid.IntRange(0, 4).Draw(t, "d")))
			}
			if rapid.Bool().Draw(t, "has one") {
				c.NotAfter = due.Add(thirds("", c.Life))
			}
			s.Certs = append(s.Certs, c)
		}
		f := Simulate(s)[0]
		total := 0
		for i, d := range f.Days {
			total += d.Orders
			if d.Used > 1.000001 || d.DomainUsed > 1.000001 {
				t.Fatalf("day %d: %+v", i, d)
			}
			if most := limits.Orders; d.Orders > most.Count+int(24*time.Hour*time.Duration(most.Count)/most.Per)+1 {
				t.Fatalf("day %d has %d orders", i, d.Orders)
			}
		}
		if total != f.Orders || !slices.IsSortedFunc(f.Lapses, func(a, b Lapse) int { return a.At.Compare(b.At) }) {
			t.Fatalf("%d orders, %d in all; lapses %v", total, f.Orders, f.Lapses)
		}
	})
}

// As above, but by hand, with Grant as the controller asks it and a CA that counts by
// itself: the certificates that fell behind are ordered in 21 hours, in the order of
// the life that they have left, none expires, and the CA never answers 429.
func TestAWeekOffIsDrained(t *testing.T) {
	t.Parallel()
	all := many(10000, 45*day)
	begin := now.Add(7 * day)
	l := Ledger{Limits: LetsEncrypt()}
	ca := &tank{rate: l.Limits.Orders}
	var waiting []farm.Turn
	arrived, late, last := 0, 0, time.Time{}
	for at := begin; len(waiting) > 0 || at.Equal(begin); at = at.Add(6 * time.Minute) {
		for ; arrived < len(all) && !all[arrived].Due.After(at); arrived++ {
			c := all[arrived]
			waiting = append(waiting, farm.Turn{Names: c.Names, Orders: 1, Since: c.Due, NotBefore: c.NotAfter.Add(-c.Life), NotAfter: c.NotAfter})
			if !c.Due.After(begin) {
				late++
			}
		}
		granted, then, _ := Grant(waiting, l, at)
		l = then
		gone := map[int]bool{}
		for n, i := range granted {
			gone[i] = true
			if !ca.take(1, at) || waiting[i].NotAfter.Before(at) {
				t.Fatalf("429, or expired, at %s", at)
			}
			if n > 0 && waiting[i].NotAfter.Before(waiting[granted[n-1]].NotAfter) {
				t.Fatal("one with less life left went later")
			}
			if late--; late == 0 {
				last = at
			}
		}
		var rest []farm.Turn
		for i, w := range waiting {
			if !gone[i] {
				rest = append(rest, w)
			}
		}
		waiting = rest
	}
	if took := last.Sub(begin); took < 20*time.Hour || took > 21*time.Hour {
		t.Errorf("those that fell behind were ordered after %s", took)
	}
}
