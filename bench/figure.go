package main

import (
	"fmt"
	"slices"
)

// A figure is one measured value beside its floor.
type figure struct {
	name         string
	value, floor float64
	unit         string
	// ratio is the one that the goal is about; 0: value to floor.
	ratio float64
	goal  goal
	notes []string // what it is made of, for -v
}

// A goal is a bound on a figure.
type goal struct {
	least bool    // at least the bound, otherwise at most
	bound float64 // of the ratio, or of the value where there is a unit
	unit  string
}

func atLeast(ratio float64) goal { return goal{least: true, bound: ratio} }

func atMost(ratio float64) goal { return goal{bound: ratio} }

// below is a bound on the value itself.
func below(value float64, unit string) goal { return goal{bound: value, unit: unit} }

// String is the goal as it is printed: "≥0.8", "≤1.3", "<150MB".
func (g goal) String() string {
	switch {
	case g.unit != "":
		return fmt.Sprintf("<%.4g%s", g.bound, g.unit)
	case g.least:
		return fmt.Sprintf("≥%.4g", g.bound)
	}
	return fmt.Sprintf("≤%.4g", g.bound)
}

func (g goal) met(f figure) bool {
	switch {
	case g.unit != "":
		return f.value < g.bound
	case g.least:
		return f.ratio >= g.bound
	}
	return f.ratio <= g.bound
}

// String is the line of a figure.
func (f figure) String() string {
	if f.ratio == 0 && f.floor != 0 {
		f.ratio = f.value / f.floor
	}
	verdict := "short"
	if f.goal.met(f) {
		verdict = "ok"
	}
	return fmt.Sprintf("bench %-16s value=%.4g%s floor=%.4g%s ratio=%.3g goal=%s %s",
		f.name, f.value, f.unit, f.floor, f.unit, f.ratio, f.goal, verdict)
}

// median of some values; of an even number the lower one of the two.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[(len(sorted)-1)/2]
}
