package web

import (
	"net/url"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// How many targets a page shows that are not as they should be, and how many events.
const (
	driftedAtOnce = 100
	eventsAtOnce  = 100
)

// drifted are the targets that serve something else than they should.
type drifted struct {
	Places []farm.Place `json:"places"`
}

// drift is what does not serve what it should, and what is done about it.
func (s *server) drift(q *question) (any, error) {
	q.cli = "certfarm get targets"
	all, err := s.Troubled(q.ctx(), q.farm, driftedAtOnce)
	return drifted{access.Keep(q.lens, all, func(p farm.Place) string { return p.Target.Site })}, err
}

// Restorable reports that a person may have a target brought back now.
func (drifted) Restorable(p farm.Place) bool {
	return !p.Foreign && (p.Drift != "" || p.Late != "") && p.Reach == farm.ReachUp
}

// Foreign reports that a target serves a valid certificate that is not ours.
func (drifted) Foreign(p farm.Place) bool { return p.Standing() == farm.Stranger }

// Table is a line a target.
func (d drifted) Table() [][]string {
	all := [][]string{{"target", "site", "node", "standing", "since", "trouble"}}
	for _, p := range d.Places {
		all = append(all, []string{p.Target.Name, p.Target.Site, p.Target.Node, string(p.Standing()), stamp(p.Since), p.Trouble()})
	}
	return all
}

// journal are lines of the journal that a filter lets through, newest first.
type journal struct {
	Site   string       `json:"-"`
	Level  string       `json:"-"` // and above
	Before string       `json:"-"` // id
	Events []farm.Event `json:"events"`
	next   string       // id before which the next page begins; empty: there is none
}

// events are what has happened.
func (s *server) events(q *question) (any, error) {
	v := q.URL.Query()
	j := journal{Site: v.Get("site"), Level: v.Get("level"), Before: v.Get("before")}
	q.still = j.Before != ""
	q.cli = "certfarm events --last " + text(eventsAtOnce)
	for _, f := range []struct{ flag, is string }{{" --site ", j.Site}, {" --level ", j.Level}} {
		if f.is != "" {
			q.cli += f.flag + f.is
		}
	}
	all, err := s.Events(q.ctx(), q.farm, store.EventQuery{Site: j.Site, Least: farm.Level(j.Level), Before: j.Before, Limit: eventsAtOnce, Newest: true})
	if len(all) == eventsAtOnce {
		j.next = all[len(all)-1].ID
	}
	j.Events = access.Keep(q.lens, all, func(e farm.Event) string { return e.Site })
	return j, err
}

// Older is the query of the next page; empty: there is none.
func (j journal) Older() string {
	if j.next == "" {
		return ""
	}
	return queryOf(map[string]string{"site": j.Site, "level": j.Level, "before": j.next})
}

// Newest is the query of the first page.
func (j journal) Newest() string { return queryOf(map[string]string{"site": j.Site, "level": j.Level}) }

// queryOf is a query of what is not empty.
func queryOf(words map[string]string) string {
	v := url.Values{}
	for name, is := range words {
		if is != "" {
			v.Set(name, is)
		}
	}
	return "?" + v.Encode()
}

// Table is a line an event.
func (j journal) Table() [][]string {
	all := [][]string{{"at", "level", "kind", "site", "node", "target", "actor", "text"}}
	for _, e := range j.Events {
		all = append(all, []string{stamp(e.At), string(e.Level), e.Kind, e.Site, e.Node, e.Target, e.Actor, e.Text})
	}
	return all
}

// Levels are what the filter offers, and how it says them.
func (journal) Levels() []look {
	return []look{{Class: string(farm.Warn), Word: "warnings and alarms"}, {Class: string(farm.Alarm), Word: "alarms"}}
}
