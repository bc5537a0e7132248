package renew

import "time"

// An Authority is what is known of a CA that machines trust by its key alone, and of
// the one that is to come in its place.
type Authority struct {
	Made    time.Time // the CA that signs now
	Ends    time.Time
	Next    time.Time // when the one to come was made; zero: none is
	Past    bool      // certificates of one that signed before are still taken
	Unaware int       // machines that trust it and were not told of the one to come
}

// A Turnover is the next thing to do about a CA that machines trust.
type Turnover string

// The turnovers.
const (
	KeepCA   Turnover = "keep"   // nothing is to be done now
	MakeCA   Turnover = "make"   // make the one to come, and tell the machines of it
	SwitchCA Turnover = "switch" // it signs from now on; the key of the one before is erased
	ForgetCA Turnover = "forget" // take certificates of the one before no more
)

const (
	// CAOverlap is how long a machine may be silent and still learn of the next CA.
	CAOverlap = 90 * 24 * time.Hour
	// CASettles is how long the next CA waits at least, when all know of it: who was
	// given the key of the one before a moment ago, with a token, still gets in.
	CASettles = time.Hour
	// caLast is how long before its end the CA stops to sign, whoever knows the next:
	// what it signs must not outlive it.
	caLast = 7 * 24 * time.Hour
)

// TurnCA says what is to be done about a CA: at four fifths of its life the next is
// made. The one before goes on to sign until every machine was told of the next, and
// for CAOverlap at most; its certificates, which prove no more than that it once knew
// the machine, are taken as long again.
//
//	made ───────────── 4/5: next ── all know, or 90 days: switch ── forget ── ends
func TurnCA(a Authority, now time.Time) Turnover {
	switch {
	case a.Next.IsZero() && !now.Before(a.Made.Add(a.Ends.Sub(a.Made)/5*4)):
		return MakeCA
	case a.Next.IsZero() && a.Past && !now.Before(a.Made.Add(2*CAOverlap)):
		return ForgetCA
	case a.Next.IsZero():
		return KeepCA
	case !now.Before(SwitchBy(a)), a.Unaware == 0 && !now.Before(a.Next.Add(CASettles)):
		return SwitchCA
	}
	return KeepCA
}

// SwitchBy is when the next CA signs at the latest; zero where none is to come.
func SwitchBy(a Authority) time.Time {
	by := a.Next.Add(CAOverlap)
	switch last := a.Ends.Add(-caLast); {
	case a.Next.IsZero():
		return time.Time{}
	case last.Before(by):
		return last
	}
	return by
}
