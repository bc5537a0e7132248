package web

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// A dossier is all that is known of a site.
type dossier struct {
	controller.SiteDetail
	Busy   controller.Progress `json:"busy"`
	Course *course             `json:"-"` // of the rollout that runs
	Asked  *asked              `json:"preflight,omitempty"`
}

// Served is the version with an id; the zero one, where it was forgotten.
func (v dossier) Served(ids []string) (found farm.Version) {
	for _, known := range v.Versions {
		if slices.Contains(ids, known.ID) {
			return known
		}
	}
	return found
}

// Back reports that a version can be brought back: it is good, and not what counts.
func (v dossier) Back(known farm.Version) bool {
	for _, p := range v.Places {
		if slices.Contains(p.Desired, known.ID) {
			return false
		}
	}
	return known.ID != v.Certificate.Version && known.State == farm.VersionGood && known.HasKeys() && time.Now().Before(known.NotAfter()) && v.Rollout == ""
}

// Sheets are the tables of the page.
func (v dossier) Sheets() []sheet {
	served := [][]string{{"target", "node", "kind", "standing", "should_serve", "serves", "looked"}}
	for _, p := range v.Places {
		served = append(served, []string{p.Target.Name, p.Target.Node, p.Target.Kind, string(p.Standing()), v.Served(p.Desired).Leaf(), p.Serves(), stamp(p.Looked)})
	}
	versions := [][]string{{"version", "leaf", "issued", "not_after", "issuer", "state", "reason"}}
	for _, k := range v.Versions {
		versions = append(versions, []string{k.ID, k.Leaf(), stamp(k.Created), stamp(k.NotAfter()), k.Issuer, string(k.State), k.Reason})
	}
	orders := [][]string{{"order", "begun", "state", "key", "error"}}
	for _, o := range v.Orders {
		orders = append(orders, []string{o.ID, stamp(o.Created), string(o.State), string(o.KeyType), o.Error})
	}
	return []sheet{{"served", served}, {"versions", versions}, {"orders", orders}}
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
	v := dossier{SiteDetail: d.Shown(), Busy: busy[0], Asked: s.recent.get(q.farm, name, time.Now())}
	if d.Rollout == "" {
		return v, nil
	}
	c, err := s.course(q, d.Rollout)
	v.Course = &c
	return v, err
}

// A spot is a target, and what happened there.
type spot struct {
	controller.TargetDetail
	Events []farm.Event `json:"events"`
}

// How many events of a site are searched for those of a target, and shown.
const (
	searched = 300
	spotted  = 20
)

// target is one place, and what each of its endpoints was seen to serve.
func (s *server) target(q *question) (any, error) {
	name := q.PathValue("target")
	q.title, q.cli = name, "certfarm describe target "+name
	t, err := s.Target(q.ctx(), q.farm, name)
	if err != nil {
		return nil, err
	}
	all, err := s.Events(q.ctx(), q.farm, store.EventQuery{Site: t.Site, Limit: searched, Newest: true})
	all = slices.DeleteFunc(all, func(e farm.Event) bool { return e.Target != name })
	return spot{t, all[:min(len(all), spotted)]}, err
}

// Table is a line an endpoint.
func (t spot) Table() [][]string {
	all := [][]string{{"address", "sni", "at", "answered", "leaves", "trusted", "not_after", "error"}}
	for _, s := range t.Sights {
		all = append(all, []string{
			s.Endpoint.Address, s.Endpoint.SNI, stamp(s.At), strconv.FormatBool(s.Answered), strings.Join(s.Fingerprint, " "), strconv.FormatBool(s.Trusted), stamp(s.NotAfter), s.Error,
		})
	}
	return all
}

// The buttons of a site.

func (s *server) renew(q *question) (string, error) {
	return siteOf(q), s.Renew(q.ctx(), q.farm, q.PathValue("site"), q.caller.Name)
}

func (s *server) undo(q *question) (string, error) {
	return siteOf(q), s.Undo(q.ctx(), q.farm, q.PathValue("site"), q.FormValue("to"), q.caller.Name)
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
