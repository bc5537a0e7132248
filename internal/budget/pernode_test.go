package budget

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

var midday = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func TestPriced(t *testing.T) {
	le := LetsEncrypt()
	for _, test := range []struct {
		name          string
		nodes, orders int
		same          bool
		spent         []time.Time
		limits        farm.Limits
		want          string
	}{
		{"few", 5, 1, true, nil, le, "5 nodes: all today"},
		{"many", 12, 1, true, nil, le, "12 nodes: 5 today, then one per 34 h, done on the 10th day"},
		{"two key types", 3, 2, true, nil, le, "3 nodes: 2 today, then one per 67 h, done on the 2nd day"},
		{"after others", 3, 1, true, []time.Time{midday, midday, midday, midday}, le, "3 nodes: 1 today, then one per 34 h, done on the 3rd day"},
		{"a CA of which nothing is known", 6, 1, true, nil, farm.Limits{}, "6 nodes: 4 today, then one per 42 h, done on the 4th day"},
		{"names of their own", 60, 1, false, nil, le, "60 nodes: 50 today, then one per 3 h, done on the 2nd day"},
		{"names of their own, no limit", 60, 1, false, nil, farm.Limits{}, "60 nodes: all today"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Priced(test.nodes, test.orders, test.same, test.spent, test.limits, midday).String(); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestOrdinal(t *testing.T) {
	for n, want := range map[int]string{1: "1st", 2: "2nd", 3: "3rd", 4: "4th", 11: "11th", 12: "12th", 13: "13th", 21: "21st", 112: "112th"} {
		if got := ordinal(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
}

func TestRenewalsThatCannotWork(t *testing.T) {
	none := LetsEncrypt()
	none.Exempt = farm.ExemptNone
	for _, test := range []struct {
		name   string
		ask    Renewals
		limits farm.Limits
		want   string // a part; empty: possible
	}{
		{"90 days", Renewals{40, 1, 90 * day, 60 * day}, none, ""},
		{"too many", Renewals{44, 1, 90 * day, 60 * day}, none, "44 nodes that renew every 60d need 0.7 certificates a day for the same names, and the CA allows 0.7 (5 per 7d)"},
		{"6 days", Renewals{40, 1, 160 * time.Hour, 80 * time.Hour}, LetsEncrypt(), "the first certificates alone take 49d, and live 6.67d"},
		{"6 days, few, not counted", Renewals{8, 1, 160 * time.Hour, 80 * time.Hour}, LetsEncrypt(), ""},
		{"6 days, few, counted", Renewals{8, 1, 160 * time.Hour, 80 * time.Hour}, none, "need 2.4 certificates a day"},
		{"six key types", Renewals{1, 6, 90 * day, 60 * day}, none, "6 certificates at once"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := test.ask.Impossible(test.limits)
			if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// However often and with however much at once it is asked, what Shared lets begin
// never overdraws the bucket of a CA that refills a little at a time, and a price is
// what then happens.
func TestSharedNeverOverdraws(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 5)) //nolint:gosec // a test's schedule
		l := LetsEncrypt()
		l.Names = farm.Rate{Count: 1 + rnd.IntN(6), Per: time.Duration(1+rnd.IntN(14)) * day}
		nodes, now := 1+rnd.IntN(30), midday
		price := Priced(nodes, 1, true, nil, l, now)
		var spent []time.Time
		for len(spent) < nodes {
			a := Shared(spent, 1, l, now)
			if !a.OK {
				now = a.Again
				if rnd.IntN(2) == 0 { // asked too early, too
					if Shared(spent, 1, l, now.Add(-2*bucketSlack)).OK {
						t.Fatalf("seed %d: allowed before its time", seed)
					}
				}
				continue
			}
			spent = append(spent, now)
			if full := fullAfter(spent, l.Names); full.Sub(now) > l.Names.Per {
				t.Fatalf("seed %d: the bucket of %s is overdrawn by the %d. certificate", seed, l.Names, len(spent))
			}
		}
		late := now.Sub(midday) - price.Last
		if late < 0 || late > time.Duration(nodes)*bucketSlack {
			t.Errorf("seed %d: the last of %d came after %s, the price said %s", seed, nodes, now.Sub(midday), price.Last)
		}
	}
}

// The forecast has nodes with the same names wait for each other as their price says.
func TestNodesShareTheirNamesInAForecast(t *testing.T) {
	start := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	certs := certsOf(12, 90*24*time.Hour, "example.com")
	for i := range certs {
		certs[i].Names, certs[i].Shared, certs[i].Due = []string{"www.example.com"}, true, start
	}
	limits := LetsEncrypt()
	limits.Domain, limits.Exempt = farm.Rate{}, farm.ExemptNone // of a CA that counts no domains
	play := func() Forecast {
		return Simulate(Scenario{
			Certs: certs, Issuers: alone(Ledger{Limits: limits}), Start: start, Days: 30,
			Before: func(_ string, life time.Duration) time.Duration { return life / 3 },
		})[0]
	}
	f, want := play(), Priced(12, 1, true, nil, limits, start)
	if f.Days[0].Orders != want.Now || f.Drained.Sub(start).Round(time.Minute) != want.Last.Round(time.Minute) || f.Days[0].Domain != "the names www.example.com" {
		t.Errorf("%d at once, drained after %v, by %q; the price is %+v", f.Days[0].Orders, f.Drained.Sub(start), f.Days[0].Domain, want)
	}
	for i := range certs {
		certs[i].Shared = false
	}
	if f := play(); f.Days[0].Orders != 12 {
		t.Errorf("each with its own names: %d at once", f.Days[0].Orders)
	}
}
