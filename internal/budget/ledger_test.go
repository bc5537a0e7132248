package budget

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/certfarm/certfarm/internal/farm"
)

// A tank is a token bucket as a CA keeps it, counted in another way than ours:
// tokens and the time of the last look.
type tank struct {
	rate   farm.Rate
	tokens float64
	at     time.Time
}

// take reports whether n tokens were there.
func (k *tank) take(n int, now time.Time) bool {
	if k.at.IsZero() {
		k.tokens, k.at = float64(k.rate.Count), now
	}
	k.tokens = min(float64(k.rate.Count), k.tokens+float64(now.Sub(k.at))*float64(k.rate.Count)/float64(k.rate.Per))
	k.at = now
	if k.tokens < float64(n)-1e-6 {
		return false
	}
	k.tokens -= float64(n)
	return true
}

func TestLimitsOf(t *testing.T) {
	t.Parallel()
	known := LimitsOf(farm.Issuer{Directory: letsEncrypt, Limits: &farm.Limits{Orders: farm.Rate{Count: 900, Per: time.Hour}}})
	if known.Orders.Count != 900 || known.Domain.Count != 50 || known.Exempt != farm.ExemptARI {
		t.Errorf("an override at Let's Encrypt: %+v", known)
	}
	if l := LimitsOf(farm.Issuer{Directory: "https://ca.test/dir"}); (Ledger{Limits: l}).Counts() || l.Failures.Count != 5 {
		t.Errorf("an unknown CA: %+v", l)
	}
}

func TestDomains(t *testing.T) {
	t.Parallel()
	got := Domains([]string{"*.Shop.example.co.uk", "example.co.uk", "a.b.example.com", "192.0.2.7", "2001:db8:1:2:3::4", "2001:db8:1:2::9", "co.uk"})
	want := []string{"192.0.2.7", "2001:db8:1:2::/64", "co.uk", "example.co.uk", "example.com"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// What a ceiling is for one set of names, where farm.yaml says the CA's.
func TestLimitForNames(t *testing.T) {
	t.Parallel()
	ask := Ask{Names: names, Limit: farm.Rate{Count: 2, Per: time.Hour}}
	if a := Allow(ago(59*time.Minute), ask, now); a.OK || !a.Again.Equal(now.Add(time.Minute)) {
		t.Errorf("one is left to people: %+v", a)
	}
	if a := Allow(ago(time.Hour), ask, now); !a.OK {
		t.Errorf("an hour later: %+v", a)
	}
}

// Whoever asks whenever for whatever, no bucket of the CA is ever overdrawn, and a
// refusal names a time from which on it holds.
func TestNeverOverdrawn(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rate := func(what string) farm.Rate {
			return farm.Rate{Count: rapid.IntRange(1, 60).Draw(t, what), Per: time.Duration(rapid.IntRange(1, 10000).Draw(t, what+" per")) * time.Second}
		}
		l := Ledger{Limits: farm.Limits{Orders: rate("orders"), Domain: rate("domain")}}
		orders, domains := &tank{rate: l.Limits.Orders}, map[string]*tank{}
		at := now
		for range rapid.IntRange(1, 80).Draw(t, "asks") {
			at = at.Add(time.Duration(rapid.IntRange(0, 2000).Draw(t, "wait")) * time.Second)
			r := Request{Orders: rapid.IntRange(1, 3).Draw(t, "n"), Whole: rapid.Bool().Draw(t, "whole")}
			for range rapid.IntRange(1, 3).Draw(t, "names") {
				r.Names = append(r.Names, fmt.Sprintf("w.d%d.test", rapid.IntRange(0, 3).Draw(t, "name")))
			}
			a := l.Grants(r, at)
			if !a.OK && a.Again.IsZero() {
				continue // more than a full bucket
			}
			if !a.OK {
				if !a.Again.After(at) || l.Grants(r, a.Again.Add(-time.Nanosecond)).OK || !l.Grants(r, a.Again).OK {
					t.Fatalf("refused at %s until %s", at, a.Again)
				}
				if rapid.Bool().Draw(t, "until then") {
					at = a.Again
				} else {
					continue
				}
			}
			l = l.Spend(r, at)
			ok := orders.take(r.Orders, at)
			for _, d := range Domains(r.Names) {
				if domains[d] == nil {
					domains[d] = &tank{rate: l.Limits.Domain}
				}
				ok = domains[d].take(r.Orders, at) && ok
			}
			if !ok {
				t.Fatalf("the CA answers 429 at %s", at)
			}
		}
	})
}

func turn(name string, left float64, orders int) farm.Turn {
	life := 45 * day
	end := now.Add(time.Duration(left * float64(life)))
	return farm.Turn{Names: []string{name}, Orders: orders, NotBefore: end.Add(-life), NotAfter: end}
}

// The least life left goes first; one that waits for its domain does not hold
// others, and one that wants more than the rest is not passed over.
func TestGrant(t *testing.T) {
	t.Parallel()
	l := Ledger{Limits: farm.Limits{Orders: farm.Rate{Count: 4, Per: 4 * time.Hour}, Domain: farm.Rate{Count: 2, Per: day}}}
	waiting := []farm.Turn{
		turn("a.one.test", 0.3, 1), turn("b.one.test", 0.05, 1), turn("c.one.test", 0.1, 1), turn("d.one.test", 0.2, 1),
		turn("a.two.test", 0.25, 1), {Names: []string{"new.three.test"}, Orders: 1},
	}
	granted, then, next := Grant(waiting, l, now)
	if !slices.Equal(granted, []int{1, 2, 5, 4}) {
		t.Errorf("granted %v", granted)
	}
	if !next.Equal(now.Add(time.Hour)) && !next.Equal(now.Add(12*time.Hour)) {
		t.Errorf("next at %s", next)
	}
	if Used(l.Limits.Orders, then.Orders, now) != 1 {
		t.Errorf("of the bucket %g is used", Used(l.Limits.Orders, then.Orders, now))
	}
	// One token is there again: the pair, in more need, is waited for.
	waiting = []farm.Turn{turn("a.four.test", 0.2, 1), turn("pair.five.test", 0.1, 2)}
	if granted, _, next = Grant(waiting, then, now.Add(time.Hour)); len(granted) > 0 || !next.Equal(now.Add(2*time.Hour)) {
		t.Errorf("granted %v, next %s", granted, next)
	}
	if granted, _, _ = Grant(waiting, then, next); !slices.Equal(granted, []int{1}) {
		t.Errorf("then granted %v", granted)
	}
}

// Nobody waits for ever, whatever others come, as long as the CA allows more than
// are wanted.
func TestNobodyStarves(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := Ledger{Limits: farm.Limits{Orders: farm.Rate{Count: 5, Per: 5 * time.Hour}, Domain: farm.Rate{Count: 40, Per: 10 * time.Hour}}}
		l.Orders = now.Add(5 * time.Hour) // empty
		first := turn("first.test", 0.3, rapid.IntRange(1, 3).Draw(t, "orders"))
		waiting := []farm.Turn{first}
		for h := range 24 * 5 {
			at := now.Add(time.Duration(h) * time.Hour)
			if h%2 == 0 { // half of what the CA allows, in whatever need
				w := turn(fmt.Sprintf("w%d.test", rapid.IntRange(0, 5).Draw(t, "domain")), rapid.Float64Range(0, 0.33).Draw(t, "left"), 1)
				w.NotBefore, w.NotAfter = w.NotBefore.Add(at.Sub(now)), w.NotAfter.Add(at.Sub(now))
				waiting = append(waiting, w)
			}
			granted, then, _ := Grant(waiting, l, at)
			l = then
			if slices.Contains(granted, 0) {
				return
			}
			var rest []farm.Turn
			for i, w := range waiting {
				if !slices.Contains(granted, i) {
					rest = append(rest, w)
				}
			}
			waiting = rest
		}
		t.Fatal("the first waits for five days")
	})
}

// What a domain's bucket holds is kept for the one in most need, if it wants more.
func TestADomainIsKeptForTheMostUrgent(t *testing.T) {
	t.Parallel()
	l := Ledger{Limits: farm.Limits{Domain: farm.Rate{Count: 2, Per: 2 * day}}}
	l = l.Spend(Request{Names: []string{"x.one.test"}}, now)
	waiting := []farm.Turn{turn("a.one.test", 0.3, 1), turn("pair.one.test", 0.1, 2), turn("a.two.test", 0.3, 1)}
	if granted, _, next := Grant(waiting, l, now); !slices.Equal(granted, []int{2}) || !next.Equal(now.Add(day)) {
		t.Errorf("granted %v, next %s", granted, next)
	}
	f := Simulate(Scenario{
		Certs: []Cert{
			{Site: "pair", Names: []string{"pair.one.test"}, Orders: 2, Due: now, NotAfter: now.Add(3 * day), Life: 90 * day},
			{Site: "late", Names: []string{"late.one.test"}, Due: now.Add(time.Hour), NotAfter: now.Add(25 * time.Hour), Life: 90 * day},
			{Site: "single", Names: []string{"single.one.test"}, Due: now.Add(time.Hour), NotAfter: now.Add(30 * day), Life: 90 * day},
		},
		Issuers: alone(l), Start: now, Days: 5, Before: thirds,
	})[0]
	if got := []int{f.Days[0].Orders, f.Days[1].Orders}; !slices.Equal(got, []int{0, 1}) && !slices.Equal(got, []int{0, 2}) {
		t.Errorf("orders by day: %v, want none before the pair", got)
	}
}
