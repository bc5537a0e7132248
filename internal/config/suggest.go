package config

import (
	"slices"
	"strings"
)

// Meant returns the name that was most likely meant by got, or nothing: for
// whoever reads words that a person types.
func Meant(got string, names []string) string {
	best, dist := "", max(1, len(got)/3)+1
	for _, n := range slices.Sorted(slices.Values(names)) {
		if d := distance(strings.ToLower(got), strings.ToLower(n)); d < dist {
			best, dist = n, d
		}
	}
	return best
}

// didYouMean is a hint: what was likely meant, or what there is.
func didYouMean(got string, names []string) string {
	if m := Meant(got, names); m != "" {
		return "did you mean " + quote(m) + "?"
	}
	return thereIs(names)
}

// thereIs lists names for a hint, not more than fit a line.
func thereIs(names []string) string {
	const most = 12
	if len(names) == 0 {
		return ""
	}
	sorted := slices.Sorted(slices.Values(names))
	if len(sorted) > most {
		return "there is " + strings.Join(sorted[:most], ", ") + " …"
	}
	return "there is " + strings.Join(sorted, ", ")
}

// distance is how many letters must be put in, taken out, replaced or swapped
// with their neighbour to make b of a (optimal string alignment). Names longer
// than any of ours are not compared.
func distance(a, b string) int {
	const longest = 64
	if len(a) > longest || len(b) > longest {
		return longest
	}
	var before []int
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+differ(a[i], b[j]))
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

func differ(a, b byte) int {
	if a == b {
		return 0
	}
	return 1
}
