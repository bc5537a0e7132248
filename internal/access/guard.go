package access

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/store"
)

// An Object is what a route is about. It says how the Guard finds the site whose
// tags decide, and which words a route's path must have.
type Object string

// The objects.
const (
	Nothing      Object = "nothing"      // a page that everybody may see
	Any          Object = "any"          // whatever the caller may see anywhere: the answer is filtered
	Installation Object = "installation" // all farms, and what they stand on
	Farm         Object = "farm"         // {farm} as a whole: a grant with tags is not enough
	Sites        Object = "sites"        // some sites of {farm}, and what belongs to them: the answer is filtered
	Site         Object = "site"         // {farm} {site}
	Target       Object = "target"       // {farm} {target}
	Rollout      Object = "rollout"      // {farm} {rollout}: an id, or the name of a site for its newest
	Node         Object = "node"         // {farm} {node}: one of its sites is enough, and the answer is filtered
	WholeNode    Object = "whole-node"   // {farm} {node}: every site on it must be the caller's
)

// Words are the words in braces that a path to the object has.
func (o Object) Words() []string {
	switch o {
	case Farm, Sites:
		return []string{"farm"}
	case Site, Target, Rollout, Node:
		return []string{"farm", string(o)}
	case WholeNode:
		return []string{"farm", "node"}
	}
	return nil
}

// Objects lists every object.
func Objects() []Object {
	return []Object{Nothing, Any, Installation, Farm, Sites, Site, Target, Rollout, Node, WholeNode}
}

// A Route is one thing that can be asked over HTTP, and what it takes.
type Route struct {
	ID     string // of its own in the table
	Method string
	Path   string // with words in braces, as http.ServeMux writes them
	Needs  Permission
	Object Object
	Fresh  bool // in a browser: only within ten minutes of a login
}

// mustBeFresh is true for what a person who finds an open browser should not get.
func (r Route) mustBeFresh() bool { return r.Fresh || r.Needs == KeyExport }

// ErrNobody says that the caller is not known: who shows a token, or logs in, may
// be.
var ErrNobody = errors.New("nobody is known to ask")

// ErrStale says that the login was too long ago for this: who logs in again may.
var ErrStale = errors.New("this needs a login within the last ten minutes")

// A Forbidden is a route that a caller may not use on an object that they may see.
type Forbidden struct {
	Name  string // who asked
	Route string
	Needs Permission
	Whole bool // they may do so with some sites, but this is about more
}

// Error says who may not do what, and what it takes.
func (f *Forbidden) Error() string {
	text := fmt.Sprintf("%s may not %s: that needs the permission %q", f.Name, f.Route, f.Needs)
	if f.Whole {
		text += " for more than the sites with certain tags"
	}
	return text
}

// A Guard decides who may use which route on what. It is safe for use by many
// goroutines at once.
type Guard struct {
	store *store.Store
	now   func() time.Time

	mu    sync.Mutex
	farms map[string]*chart
}

// A chart is what the Guard knows of a farm at one revision.
type chart struct {
	revision int64
	tags     map[string][]string // by site
	nodes    map[string][]string // the sites on each
}

// NewGuard makes a guard. now is the clock that says how long ago a login was; nil
// is the system's.
func NewGuard(s *store.Store, now func() time.Time) *Guard {
	if now == nil {
		now = time.Now
	}
	return &Guard{store: s, now: now, farms: map[string]*chart{}}
}

// Allow decides whether a caller may use a route. word gives the words of its path,
// such as "farm" and "site". The errors are ErrNobody, ErrStale, *Forbidden,
// store.ErrNotFound for what the caller may not see, and those of the store.
func (g *Guard) Allow(ctx context.Context, c Caller, r Route, word func(string) string) error {
	if r.Needs == Public && r.Object == Nothing {
		return nil
	}
	if !c.Known() {
		return ErrNobody
	}
	if err := g.allow(ctx, c, r, word); err != nil {
		return err
	}
	if r.mustBeFresh() && !c.Fresh(g.now()) {
		return ErrStale
	}
	return nil
}

func (g *Guard) allow(ctx context.Context, c Caller, r Route, word func(string) string) error {
	no := &Forbidden{Name: c.Name, Route: r.ID, Needs: r.Needs, Whole: c.MaySomewhere(r.Needs)}
	switch r.Object {
	case Any:
		return unless(c.MaySomewhere(r.Needs), no)
	case Farm, Sites, Site, Target, Rollout, Node, WholeNode:
	default: // Installation, and a route that says nothing: the most is needed
		return unless(c.May(r.Needs, ""), no)
	}
	farmName := word("farm")
	if !c.Enters(farmName) {
		return fmt.Errorf("farm %s: %w", farmName, store.ErrNotFound)
	}
	scope := c.Scope(r.Needs, farmName)
	if scope.All || r.Object == Sites && !scope.None() {
		return nil
	}
	if r.Object == Farm || r.Object == Sites {
		no.Whole = !scope.None()
		return no
	}
	return g.within(ctx, c, r, word, no)
}

func unless(ok bool, no *Forbidden) error {
	if ok {
		return nil
	}
	return no
}

// within decides about one object of a farm, by the tags of its sites.
func (g *Guard) within(ctx context.Context, c Caller, r Route, word func(string) string, no *Forbidden) error {
	farmName, name := word("farm"), word(r.Object.Words()[1])
	sites, err := g.sitesOf(ctx, farmName, r.Object, name)
	if err != nil {
		return err
	}
	var sees, may int
	for _, tags := range sites {
		if slices.ContainsFunc(Permissions(), func(p Permission) bool { return c.Scope(p, farmName).Holds(tags) }) {
			sees++
		}
		if c.Scope(r.Needs, farmName).Holds(tags) {
			may++
		}
	}
	no.Whole = may > 0
	switch {
	case sees == 0:
		return fmt.Errorf("%s %s: %w", r.Object.Words()[1], name, store.ErrNotFound)
	case may == 0 || r.Object == WholeNode && may < len(sites):
		return no
	}
	return nil
}

// sitesOf gives the tags of each site that an object belongs to; none, if there is
// no such object.
func (g *Guard) sitesOf(ctx context.Context, farmName string, o Object, name string) (tags [][]string, err error) {
	err = g.store.View(ctx, func(tx *store.Tx) error {
		m, err := g.chart(ctx, tx, farmName)
		if err != nil {
			return err
		}
		sites := []string{name}
		switch o {
		case Target:
			sites, err = one(tx.SiteOfTarget(ctx, farmName, name))
		case Rollout: // a rollout's id, or else the name of a site
			found, err2 := one(tx.SiteOfRollout(ctx, farmName, name))
			if err = err2; err == nil && len(found) > 0 {
				sites = found
			}
		case Node, WholeNode:
			sites = m.nodes[name]
		}
		for _, s := range sites {
			if t, there := m.tags[s]; there {
				tags = append(tags, t)
			}
		}
		return err
	})
	return tags, err
}

// one is a site in a list; none, if it was not found.
func one(site string, err error) ([]string, error) {
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return []string{site}, err
}

// chart reads what is known of a farm, if it is not known of its newest revision.
func (g *Guard) chart(ctx context.Context, tx *store.Tx, farmName string) (*chart, error) {
	revision, err := tx.RevisionNumber(ctx, farmName)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	known := g.farms[farmName]
	g.mu.Unlock()
	if known != nil && known.revision == revision {
		return known, nil
	}
	all, err := tx.Tagged(ctx, farmName)
	if err != nil {
		return nil, err
	}
	m := &chart{revision: revision, tags: map[string][]string{}, nodes: map[string][]string{}}
	for _, s := range all {
		m.tags[s.Name] = s.Tags
		if s.Of != "" { // all its parts have the tags of the whole
			m.tags[s.Of] = s.Tags
		}
		for _, n := range s.Nodes {
			if !slices.Contains(m.nodes[n], s.Name) {
				m.nodes[n] = append(m.nodes[n], s.Name)
			}
		}
	}
	if revision > 0 { // names of farms that are none are not remembered: anybody may ask for any
		g.mu.Lock()
		g.farms[farmName] = m
		g.mu.Unlock()
	}
	return m, nil
}

// A Lens shows of a farm's lists what a caller may see.
type Lens struct {
	scope Scope
	tags  map[string][]string
}

// Lens makes a lens for a caller and a permission, View for what is shown.
func (g *Guard) Lens(ctx context.Context, c Caller, p Permission, farmName string) (*Lens, error) {
	l := &Lens{scope: c.Scope(p, farmName)}
	if l.scope.All {
		return l, nil
	}
	return l, g.store.View(ctx, func(tx *store.Tx) error {
		m, err := g.chart(ctx, tx, farmName)
		if err == nil {
			l.tags = m.tags
		}
		return err
	})
}

// All reports that the caller sees everything, what belongs to no site too.
func (l *Lens) All() bool { return l.scope.All }

// Site reports that the caller sees a site, and what belongs to it. What belongs to
// no site ("") is seen by those who see everything.
func (l *Lens) Site(name string) bool {
	if l.scope.All {
		return true
	}
	tags, there := l.tags[name]
	return there && l.scope.Holds(tags)
}

// Keep is those of a list whose site the caller sees.
func Keep[T any](l *Lens, all []T, site func(T) string) []T {
	if l.All() {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(v T) bool { return !l.Site(site(v)) })
}

// A Refuse answers a request that is refused, with an error of this package.
type Refuse func(http.ResponseWriter, *http.Request, error)

// Wrap lets only those requests through to a page that the route allows. The words
// of its path are those that http.ServeMux found.
func (g *Guard) Wrap(r Route, h http.Handler, refuse Refuse) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c, _ := CallerOf(req.Context())
		if err := g.Allow(req.Context(), c, r, req.PathValue); err != nil {
			refuse(w, req, err)
			return
		}
		h.ServeHTTP(w, req)
	})
}
