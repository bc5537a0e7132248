package farm

import "strconv"

// Count is a number with its noun: 1 target, 3 targets.
func Count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
