package budget

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/certfarm/certfarm/internal/farm"
)

// soon waits an hour for the first issuer, and after that for whichever has room.
func soon(w Waiting, offers []Offer, now time.Time) (line []string, again time.Time) {
	if patience := w.Since.Add(time.Hour); now.Before(patience) {
		return []string{offers[0].Issuer}, patience
	}
	for _, o := range offers {
		line = append(line, o.Issuer)
	}
	return line, time.Time{}
}

// What one issuer has no room for goes to the next, and none of it is ordered twice.
func TestTheNextStandsIn(t *testing.T) {
	t.Parallel()
	certs := many(100, 90*day)
	for i := range certs {
		certs[i].Issuers, certs[i].Due = []string{"a", "b"}, now
	}
	limits := farm.Limits{Orders: farm.Rate{Count: 20, Per: 20 * day}}
	s := Scenario{
		Certs: certs, Issuers: []Issuer{{Name: "a", Ledger: Ledger{Limits: limits}}, {Name: "b", Life: 30 * day}},
		Start: now, Days: 10, Before: thirds, Choose: soon,
	}
	f := Simulate(s)
	if f[0].Orders != 19 || f[1].Orders != 81 || len(f[1].StandsIn) != 81 || len(f[0].StandsIn) > 0 {
		t.Fatalf("%d and %d orders, of which %d stand in for others", f[0].Orders, f[1].Orders, len(f[1].StandsIn))
	}
	if in := f[1].StandsIn[0]; in.For != "a" || in.Orders != 1 || !in.From.Equal(now.Add(time.Hour)) {
		t.Errorf("%+v", in)
	}
	if f[0].Waited != 81 || !f[0].Drained.Equal(now.Add(time.Hour)) || f[1].Waited > 0 {
		t.Errorf("%d waited for a until %s, %d for b", f[0].Waited, f[0].Drained, f[1].Waited)
	}
	s.Days = 40 // b's certificates live 30 days: after 20 the first is asked again, and has 20 more
	if f = Simulate(s); f[0].Orders < 38 || f[1].Orders < 2*61 {
		t.Errorf("in 40 days %d and %d orders", f[0].Orders, f[1].Orders)
	}
	s.Days, s.Issuers[0].CA, s.Issuers[1].CA = 10, "one", "one"
	s.Issuers[0].Ledger.Limits = farm.Limits{Domain: farm.Rate{Count: 10, Per: 100 * day}}
	s.Issuers[1].Ledger.Limits = s.Issuers[0].Ledger.Limits
	for i := range certs {
		certs[i].Names = []string{fmt.Sprintf("n%d.shop.test", i)}
	}
	if f = Simulate(s); f[0].Orders+f[1].Orders != 10 {
		t.Errorf("two accounts at one CA: %d and %d orders for one domain", f[0].Orders, f[1].Orders)
	}
	s.Issuers[0].Hold, s.Issuers[1].CA, s.Issuers[1].Ledger = now.Add(5*day), "", Ledger{}
	if f = Simulate(s); f[0].Orders != 0 || f[1].Orders != 100 {
		t.Errorf("with a closed: %d and %d orders", f[0].Orders, f[1].Orders)
	}
}

// Whatever the farm, no bucket of any issuer is overdrawn, all that is ordered is for
// one of its issuers, and nobody is counted twice among those that wait.
func TestTurnsHoldTheLimits(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := Scenario{Start: now, Days: 12, Before: thirds, Choose: soon}
		for _, name := range []string{"a", "b", "c"} {
			l := Ledger{Limits: farm.Limits{Orders: farm.Rate{Count: rapid.IntRange(2, 9).Draw(t, "orders"), Per: time.Duration(rapid.IntRange(1, 90).Draw(t, "per")) * time.Hour}}}
			l.Limits.Domain = farm.Rate{Count: rapid.IntRange(2, 9).Draw(t, "domain"), Per: time.Duration(rapid.IntRange(1, 90).Draw(t, "per")) * time.Hour}
			s.Issuers = append(s.Issuers, Issuer{Name: name, Ledger: l})
		}
		s.Pause = time.Duration(rapid.IntRange(0, 60).Draw(t, "pause")) * time.Hour
		for i := range rapid.IntRange(1, 40).Draw(t, "certs") {
			due := now.Add(time.Duration(rapid.IntRange(-50, 200).Draw(t, "due")) * time.Hour)
			s.Certs = append(s.Certs, Cert{
				Site: fmt.Sprint(i), Due: due, Life: time.Duration(rapid.IntRange(4, 40).Draw(t, "life")) * day, NotAfter: due.Add(2 * day),
				Names: []string{fmt.Sprintf("d%d.test", rapid.IntRange(0, 4).Draw(t, "d"))}, Issuers: rapid.Permutation([]string{"a", "b", "c"}).Draw(t, "issuers")[:rapid.IntRange(1, 3).Draw(t, "n")],
			})
		}
		waiting := 0
		for i, f := range Simulate(s) {
			l, total := s.Issuers[i].Ledger.Limits.Orders, 0
			for n, d := range f.Days {
				total += d.Orders
				if d.Used > 1.000001 || d.DomainUsed > 1.000001 || d.Orders > l.Count+int(24*time.Hour*time.Duration(l.Count)/l.Per)+1 {
					t.Fatalf("%s, day %d: %+v", s.Issuers[i].Name, n, d)
				}
			}
			if total != f.Orders {
				t.Fatalf("%d orders on all days, %d in all", total, f.Orders)
			}
			for _, in := range f.StandsIn {
				if in.For == s.Issuers[i].Name || in.Orders == 0 {
					t.Fatalf("%s stands in: %+v", s.Issuers[i].Name, in)
				}
			}
			waiting += f.Days[len(f.Days)-1].Waiting
		}
		if waiting > len(s.Certs) {
			t.Fatalf("%d of %d certificates wait", waiting, len(s.Certs))
		}
	})
}
