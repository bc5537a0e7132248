package renew

import "time"

// Planned is when the certificate becomes due, as far as is known now; zero: never,
// by what is known. It may lie in the past.
func Planned(f Facts) (at time.Time) {
	for _, rule := range rules() {
		if from, _ := rule(f); !from.IsZero() && (at.IsZero() || from.Before(at)) {
			at = from
		}
	}
	return at
}
