package budget

import (
	"fmt"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// How certificates that are replaced together begin where the CA's limits are not
// known.
const (
	staggerFirst = 10
	staggerEvery = 2 * time.Second
)

// Stagger is when the n-th (from 0) of many certificates that are replaced together
// may be ordered, from the beginning on. Where the CA's limits are known the ledger
// says who goes when, so that all may begin at once.
func Stagger(n int, l farm.Limits) time.Duration {
	if known(l) || n < staggerFirst {
		return 0
	}
	return time.Duration(n-staggerFirst+1) * staggerEvery
}

// Staggering says it for people.
func Staggering(l farm.Limits) string {
	if !known(l) {
		return fmt.Sprintf("no limits are known: %d at once, then one each %s", staggerFirst, staggerEvery)
	}
	if l.Orders.Count > 0 {
		return fmt.Sprintf("up to %d at once, then one each %s", room(l.Orders, false), (l.Orders.Per / time.Duration(l.Orders.Count)).Round(time.Second))
	}
	return fmt.Sprintf("%s for one domain", l.Domain)
}

func known(l farm.Limits) bool { return Ledger{Limits: l}.Counts() }
