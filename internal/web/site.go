package web

import (
	"slices"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
)

// A sheet is all that is known of a site.
type sheet struct {
	controller.SiteDetail
	Busy controller.Progress
}

// Served is the version with an id; the zero one, where it was forgotten.
func (v sheet) Served(ids []string) (found farm.Version) {
	for _, known := range v.Versions {
		if slices.Contains(ids, known.ID) {
			return known
		}
	}
	return found
}

// site is everything about a site.
func (s *server) site(q *question) (any, error) {
	name := q.PathValue("site")
	q.title, q.cli = name, "certfarm describe site "+name
	d, err := s.Describe(q.ctx(), q.farm, name)
	if err != nil {
		return nil, err
	}
	busy, err := s.Progress(q.ctx(), q.farm, name)
	if err != nil {
		return nil, err
	}
	return sheet{d, busy[0]}, nil
}

// preflight asks now what the CA would ask.
func (s *server) preflight(q *question) (any, error) {
	name := q.PathValue("site")
	q.title, q.cli = "Preflight of "+name, "certfarm preflight "+name
	return s.Preflight(q.ctx(), q.farm, name, false)
}

// target is one place, and what each of its endpoints was seen to serve.
func (s *server) target(q *question) (any, error) {
	name := q.PathValue("target")
	q.title, q.cli = name, "certfarm describe target "+name
	return s.Target(q.ctx(), q.farm, name)
}

// The buttons of a site.

func (s *server) renew(q *question) (string, error) {
	return siteOf(q), s.Renew(q.ctx(), q.farm, q.PathValue("site"), q.caller.Name)
}

func (s *server) undo(q *question) (string, error) {
	return siteOf(q), s.Undo(q.ctx(), q.farm, q.PathValue("site"), q.caller.Name)
}

func (s *server) verify(q *question) (string, error) {
	return siteOf(q), s.LookNow(q.ctx(), q.farm, q.PathValue("site"))
}

func siteOf(q *question) string { return farmPath(q.farm, "sites", q.PathValue("site")) }

// tell says a word to a rollout.
func tell(word string) func(*server, *question) (string, error) {
	return func(s *server, q *question) (string, error) {
		r, err := s.Tell(q.ctx(), q.farm, q.PathValue("rollout"), word, q.FormValue("wave"), q.caller.Name)
		return farmPath(q.farm, "rollouts", r.ID), err
	}
}

func freeze(on bool) func(*server, *question) (string, error) {
	return func(s *server, q *question) (string, error) {
		return farmPath(q.farm), s.Freeze(q.ctx(), q.farm, q.caller.Name, on)
	}
}

func hold(on bool) func(*server, *question) (string, error) {
	return func(s *server, q *question) (string, error) {
		return farmPath(q.farm, "nodes"), s.Hold(q.ctx(), q.farm, q.PathValue("node"), q.caller.Name, on)
	}
}
