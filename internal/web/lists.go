package web

import (
	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// fleet are the nodes of a farm.
type fleet struct {
	Nodes []controller.NodeTally `json:"nodes"`
}

// nodes are the machines, and how what is on them stands.
func (s *server) nodes(q *question) (any, error) {
	q.cli = "certfarm get nodes"
	all, err := s.NodeTallies(q.ctx(), q.farm)
	return fleet{all}, err
}

// Table is a line a node.
func (f fleet) Table() [][]string {
	all := [][]string{{"node", "address", "way", "held", "targets", "in_sync"}}
	for _, n := range f.Nodes {
		all = append(all, []string{n.Name, n.Address, n.Way, n.Held, text(n.Targets), text(n.Standings[farm.InSync])})
	}
	return all
}

// Kinds are the standings of a node's targets, what needs a person first.
func (fleet) Kinds(n controller.NodeTally) (all []farm.Standing) {
	for _, s := range farm.Standings {
		if n.Standings[s] > 0 {
			all = append(all, s)
		}
	}
	return all
}

// drifted are the targets that serve something else than they should.
type drifted struct {
	Places []farm.Place `json:"places"`
}

// drift is what does not serve what it should, and what is done about it.
func (s *server) drift(q *question) (any, error) {
	q.cli = "certfarm get targets"
	all, err := s.Troubled(q.ctx(), q.farm, newest)
	return drifted{access.Keep(q.lens, all, func(p farm.Place) string { return p.Target.Site })}, err
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

// journal are the newest lines of the journal that a filter lets through.
type journal struct {
	Site   string       `json:"-"`
	Level  string       `json:"-"`
	Events []farm.Event `json:"events"`
}

// events are what has happened.
func (s *server) events(q *question) (any, error) {
	v := q.URL.Query()
	j := journal{Site: v.Get("site"), Level: v.Get("level")}
	q.cli = "certfarm events"
	all, err := s.Events(q.ctx(), q.farm, store.EventQuery{Site: j.Site, Level: farm.Level(j.Level), Limit: newest, Newest: true})
	j.Events = access.Keep(q.lens, all, func(e farm.Event) string { return e.Site })
	return j, err
}

// Table is a line an event.
func (j journal) Table() [][]string {
	all := [][]string{{"at", "level", "kind", "site", "node", "target", "actor", "text"}}
	for _, e := range j.Events {
		all = append(all, []string{stamp(e.At), string(e.Level), e.Kind, e.Site, e.Node, e.Target, e.Actor, e.Text})
	}
	return all
}

// Levels are what the filter offers.
func (journal) Levels() []farm.Level { return []farm.Level{farm.Info, farm.Warn, farm.Alarm} }
