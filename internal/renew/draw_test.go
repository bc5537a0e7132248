package renew

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/certfarm/certfarm/internal/farm"
)

// Certificates of one reload group ask their CA one after another, as long as it takes:
// in the end all whose windows have some time in common go at the same time, and that is
// in each one's window. One whose window has nothing in common with the others keeps its
// own time.
func TestJoin(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		at := func(name string, from, to int) time.Time {
			return now.Add(time.Duration(rapid.IntRange(from, to).Draw(t, name)) * time.Hour)
		}
		meet := at("meet", 50, 100) // in every window
		var all []farm.Suggestion
		for range rapid.IntRange(1, 6).Draw(t, "certificates") {
			s := farm.Suggestion{Start: at("start", 1, 49), End: at("end", 101, 200)}
			s.Chosen = s.Start.Add(time.Duration(rapid.Float64Range(0, 1).Draw(t, "chosen") * float64(s.End.Sub(s.Start))))
			all = append(all, s)
		}
		d := Draw{}
		times := make([]time.Time, len(all))
		for range 2 { // each asks its CA again
			for i, s := range all {
				d, times[i] = Join(d, s, now)
				if times[i].Before(s.Start) || times[i].After(s.End) {
					t.Fatalf("%s is not in the window from %s to %s", times[i], s.Start, s.End)
				}
			}
		}
		for i := range times {
			if !times[i].Equal(times[0]) {
				t.Fatalf("%v, though all windows have %s in common", times, meet)
			}
		}
		alone := farm.Suggestion{Start: now.Add(300 * time.Hour), End: now.Add(310 * time.Hour), Chosen: now.Add(305 * time.Hour)}
		if same, chosen := Join(d, alone, now); !chosen.Equal(alone.Chosen) || same != d {
			t.Fatalf("one that has nothing in common goes at %s", chosen)
		}
		if next, chosen := Join(d, alone, d.Chosen); !chosen.Equal(alone.Chosen) || !next.Chosen.Equal(chosen) {
			t.Fatalf("after the draw is over the next goes at %s, drawn is %s", chosen, next.Chosen)
		}
	})
	if d, chosen := Join(Draw{}, farm.Suggestion{}, now); d != (Draw{}) || !chosen.IsZero() {
		t.Errorf("a CA that suggests nothing: %v, %s", d, chosen)
	}
}
