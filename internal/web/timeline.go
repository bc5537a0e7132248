package web

import (
	"strconv"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/store"
)

// A chart of lives is drawn on a scale of this many units.
const wide = 1000

// lives are the certificates drawn to scale, what ends first above.
type lives struct {
	list
	Lines []controller.Life `json:"lives"`
	At    time.Time         `json:"at"`
	from  time.Time
	until time.Time
}

// timeline is when certificates began, are renewed, and end.
func (s *server) timeline(q *question) (any, error) {
	q.cli = "certfarm get sites -o wide"
	v := lives{list: listOf(q, store.ByExpiry)}
	m, err := s.rows(q, &v.list, true)
	if err != nil {
		return nil, err
	}
	v.At = m.At
	var sites []string
	for _, r := range m.Rows {
		sites = append(sites, r.Site)
	}
	if v.Lines, err = s.Lives(q.ctx(), q.farm, sites); err != nil {
		return nil, err
	}
	v.from, v.until = m.At.Add(-24*time.Hour), m.At.Add(24*time.Hour)
	for _, l := range v.Lines {
		if !l.NotBefore.IsZero() && l.NotBefore.Before(v.from) {
			v.from = l.NotBefore
		}
		if l.NotAfter.After(v.until) {
			v.until = l.NotAfter
		}
	}
	return v, nil
}

// X is where a time lies on the scale, in units.
func (v lives) X(t time.Time) string {
	share := float64(t.Sub(v.from)) / float64(v.until.Sub(v.from))
	return strconv.FormatFloat(wide*min(1, max(0, share)), 'f', 1, 64)
}

// Width is how long something is on the scale, and at least to be seen.
func (v lives) Width(from, to time.Time) string {
	share := float64(to.Sub(from)) / float64(v.until.Sub(v.from))
	return strconv.FormatFloat(max(2, wide*share), 'f', 1, 64)
}

// Table is a line a certificate.
func (v lives) Table() [][]string {
	all := [][]string{{"site", "not_before", "not_after", "window_start", "window_end", "planned", "last_safe"}}
	for _, l := range v.Lines {
		all = append(all, []string{l.Site, stamp(l.NotBefore), stamp(l.NotAfter), stamp(l.WindowStart), stamp(l.WindowEnd), stamp(l.Planned), stamp(l.LastSafe)})
	}
	return all
}

func text(n int) string { return strconv.Itoa(n) }
