package web

import (
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
)

// overview is a farm at one glance.
func (s *server) overview(q *question) (any, error) {
	q.cli = "certfarm get sites"
	o, err := s.Overview(q.ctx(), q.farm, q.sees())
	return glance{o}, err
}

// sees says which sites the caller sees; nil: all.
func (q *question) sees() func(string) bool {
	if q.lens.All() {
		return nil
	}
	return q.lens.Site
}

// A glance is an overview as a page shows it.
type glance struct{ controller.Overview }

// Off counts the targets that do not serve what they should.
func (g glance) Off() (n int) {
	for _, s := range []farm.Standing{farm.Drifted, farm.Stranger, farm.Behind, farm.Unreachable, farm.Silent} {
		n += g.Standings[s]
	}
	return n
}

// Well counts the targets that were seen to serve what they should.
func (g glance) Well() int { return g.Standings[farm.InSync] }
