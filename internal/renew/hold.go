package renew

import (
	"fmt"
	"time"
)

// Held is what is known of an order whose preflight found something wrong.
type Held struct {
	Since    time.Time // when the certificate became due
	LastSafe time.Time // see Verdict; zero: there is no certificate yet, and nothing to lose
	Tried    time.Time // the last real try, in spite of what was found; zero: none
	// Failures are the failed validations of the worst name within the CA's
	// window, and Budget how many it allows (Let's Encrypt: 5 an hour, for a name
	// and an account); 0: it is not known. Room is when the next may fail.
	Failures, Budget int
	Room             time.Time
}

// A Pause is how long an order is held back, and why it is or is not.
type Pause struct {
	Until time.Time // zero: go on now. What is wrong may be mended before, so ask again as usual
	Why   string    // for people
}

// tryEvery is the time between two real tries while something is wrong: two a
// day find out whether the CA sees what we do not, and cost little.
const tryEvery = 12 * time.Hour

// Hold says whether what a preflight found wrong holds the order back. It delays,
// and never forbids for ever: until half the time to the last safe moment is gone;
// then one real try every 12 hours, while the CA allows one more to fail; and
// past the last safe moment nothing holds. A first certificate, which has no last
// safe moment, gets its first real try after 12 hours.
//
//	due ──── held ──── half ── a try each 12 h ── last safe ──── nothing holds
func Hold(h Held, now time.Time) Pause {
	first := h.LastSafe.IsZero()
	if !first && !now.Before(h.LastSafe) {
		return Pause{Why: "going on all the same: the last safe moment, " + text(h.LastSafe) + ", is past"}
	}
	free, why := h.free(now)
	if !first && free.After(h.LastSafe) {
		free = h.LastSafe
	}
	if now.Before(free) {
		return Pause{Until: free, Why: why + "; held until it is right, or until " + text(free)}
	}
	return Pause{Why: "one real try all the same: what was found wrong may be right where the CA stands"}
}

// free is when the next real try may be, before the last safe moment, and what
// the wait is for.
func (h Held) free(now time.Time) (free time.Time, why string) {
	free, why = h.Since.Add(tryEvery), "it is a first certificate, and what was found would fail it"
	if !h.LastSafe.IsZero() {
		free, why = h.Since.Add(h.LastSafe.Sub(h.Since)/2), "there is time to mend what was found"
	}
	if next := h.Tried.Add(tryEvery); !h.Tried.IsZero() && next.After(free) {
		free, why = next, "the CA was asked at "+text(h.Tried)+" all the same"
	}
	if h.Budget > 0 && h.Failures >= h.Budget && h.Room.After(now) && h.Room.After(free) {
		free, why = h.Room, fmt.Sprintf("%d validations failed, and the CA allows %d in its window", h.Failures, h.Budget)
	}
	return free, why
}

// Between is how long the next order waits after one that failed: a day while there
// is time (Let's Encrypt's integration guide), half a day when half the time from
// due to the last safe moment is gone, and an hour past that moment, when five
// failures an hour are still far away. A first certificate has no such moment.
func Between(due, lastSafe, now time.Time) time.Duration {
	switch {
	case lastSafe.IsZero() || due.IsZero():
		return 24 * time.Hour
	case !now.Before(lastSafe):
		return time.Hour
	case now.Sub(due) > lastSafe.Sub(due)/2:
		return tryEvery
	}
	return 24 * time.Hour
}

func text(t time.Time) string { return t.UTC().Format(time.RFC3339) }
