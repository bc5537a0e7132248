package renew

import (
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// A Draw is the random time that certificates of one reload group have in common, so
// that they are renewed together and cost one reload.
type Draw struct {
	Start  time.Time `json:"start,omitzero"` // what the windows of those that joined have in common
	End    time.Time `json:"end,omitzero"`
	Chosen time.Time `json:"chosen,omitzero"`
}

// Join has a certificate take part in the draw of its reload group, if the window that
// its CA suggests (RFC 9773 §4.2) allows it, and returns the draw as it is then and
// the time for this certificate. A draw whose time lies in the window is taken as it
// is. Where it does not, and the windows have some time in common, it is drawn again
// there: those that joined before find the new time in their own windows, and take it
// when they ask their CA next. A draw whose time is past is over: the next begins with
// this certificate's own.
func Join(d Draw, own farm.Suggestion, now time.Time) (Draw, time.Time) {
	mine := Draw{own.Start, own.End, own.Chosen}
	switch {
	case own.Chosen.IsZero() || !own.End.After(own.Start):
		return d, own.Chosen
	case d.Chosen.IsZero() || !d.Chosen.After(now):
		return mine, own.Chosen
	}
	both := Draw{latest(d.Start, own.Start), sooner(d.End, own.End), d.Chosen}
	switch {
	case !both.End.After(both.Start):
		return d, own.Chosen // they have nothing in common
	case both.Chosen.Before(both.Start) || both.Chosen.After(both.End):
		share := float64(own.Chosen.Sub(own.Start)) / float64(own.End.Sub(own.Start)) // as random as the CA's window had it
		both.Chosen = both.Start.Add(time.Duration(share * float64(both.End.Sub(both.Start))))
	}
	return both, both.Chosen
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func sooner(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
