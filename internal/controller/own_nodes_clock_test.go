package controller

import (
	"testing"
	"time"
)

// A node's clock is known by when it said what it said; one that waited is not wrong.
func TestAClockIsKnownWithinAnAnswer(t *testing.T) {
	t.Parallel()
	began := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	ended := began.Add(9 * time.Second)
	for name, c := range map[string]struct {
		said time.Time
		want time.Duration
	}{
		"right, at the end": {ended.Add(-time.Millisecond), 0},
		"half a second":     {ended.Add(time.Second / 2), 0},
		"ahead":             {ended.Add(90 * time.Second), 90 * time.Second},
		"behind":            {began.Add(-time.Hour), -time.Hour},
	} {
		if got := clockWithin(c.said, began, ended); got == nil || *got != c.want {
			t.Errorf("%s: %v, want %s", name, got, c.want)
		}
	}
	if clockWithin(time.Time{}, began, ended) != nil {
		t.Error("an agent of before has a clock")
	}
}
