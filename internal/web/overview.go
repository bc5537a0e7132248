package web

import (
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// overview is a farm at one glance.
func (s *server) overview(q *question) (any, error) {
	q.cli = "certfarm get sites"
	g := glance{}
	var err error
	if g.Overview, err = s.Overview(q.ctx(), q.farm, q.sees()); err != nil {
		return nil, err
	}
	g.Soon, err = s.soon(q)
	return g, err
}

// soon are the certificates that are renewed next.
func (s *server) soon(q *question) ([]controller.Life, error) {
	m, err := s.Matrix(q.ctx(), q.farm, controller.MatrixAsk{Order: store.ByExpiry, Limit: soonest, Sees: q.sees(), Bare: true})
	if err != nil {
		return nil, err
	}
	var sites []string
	for _, r := range m.Rows {
		sites = append(sites, r.Site)
	}
	all, err := s.Lives(q.ctx(), q.farm, sites)
	slices.SortFunc(all, func(a, b controller.Life) int { return a.Planned.Compare(b.Planned) })
	return all, err
}

// soonest is how many renewals an overview tells of.
const soonest = 6

// sees says which sites the caller sees; nil: all.
func (q *question) sees() func(string) bool {
	if q.lens.All() {
		return nil
	}
	return q.lens.Site
}

// A glance is an overview as a page shows it.
type glance struct {
	controller.Overview
	Soon []controller.Life `json:"soon"` // what is renewed next
}

// Table is a line for each that needs attention.
func (g glance) Table() [][]string {
	all := [][]string{{"site", "urgent", "why", "since", "ends", "again", "rollout", "do"}}
	for _, a := range g.Attention {
		all = append(all, []string{a.Site, yes(a.Urgent), strings.Join(a.Why, "; "), stamp(a.Since), stamp(a.Ends), stamp(a.Again), a.Rollout, a.Do})
	}
	return all
}

// Off counts the targets that do not serve what they should.
func (g glance) Off() (n int) {
	for _, s := range []farm.Standing{farm.Drifted, farm.Stranger, farm.Behind, farm.Unreachable, farm.Silent} {
		n += g.Standings[s]
	}
	return n
}

// Well counts the targets that were seen to serve what they should.
func (g glance) Well() int { return g.Standings[farm.InSync] }
