package renew

import (
	"testing"
	"time"
)

// A CA that lives ten years is followed by another in time, however many know of it.
func TestTurnCA(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	made := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	life := 3650 * day
	base := Authority{Made: made, Ends: made.Add(life)}
	at := func(days int) time.Time { return made.Add(time.Duration(days) * day) }
	next := func(days, unaware int) Authority {
		a := base
		a.Next, a.Unaware = at(days), unaware
		return a
	}
	past := base
	past.Past = true
	for name, c := range map[string]struct {
		a    Authority
		now  time.Time
		want Turnover
	}{
		"new":                         {base, at(0), KeepCA},
		"before four fifths":          {base, at(2920).Add(-time.Second), KeepCA},
		"four fifths":                 {base, at(2920), MakeCA},
		"it ended, nobody was there":  {base, at(4000), MakeCA},
		"just made":                   {next(2920, 0), at(2920), KeepCA},
		"all know, a token may be on": {next(2920, 0), at(2920).Add(CASettles - time.Second), KeepCA},
		"all know":                    {next(2920, 0), at(2920).Add(CASettles), SwitchCA},
		"one does not know":           {next(2920, 1), at(2920 + 89), KeepCA},
		"one never learns":            {next(2920, 1), at(2920 + 90), SwitchCA},
		"made late, one is silent":    {next(3640, 1), at(3642), KeepCA},
		"made late, it ends":          {next(3640, 1), at(3643), SwitchCA},
		"the past is still taken":     {past, at(179), KeepCA},
		"the past is forgotten":       {past, at(180), ForgetCA},
	} {
		if got := TurnCA(c.a, c.now); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	if by := SwitchBy(base); !by.IsZero() {
		t.Errorf("nothing comes, and it is switched at %s", by)
	}
}
