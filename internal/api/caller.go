package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/audit"
)

// The permissions, as the table of routes names them: see package access.
const (
	View      = access.View
	Operate   = access.Operate
	Approve   = access.Approve
	Edit      = access.Edit
	Secrets   = access.Secrets
	KeyExport = access.KeyExport
	Access    = access.Access
	Metrics   = access.Metrics
)

// The objects that routes are about, as the table of routes names them: see package
// access.
const (
	Any          = access.Any
	Installation = access.Installation
	Farm         = access.Farm
	OfSites      = access.Sites
	Site         = access.Site
	Target       = access.Target
	Rollout      = access.Rollout
	Node         = access.Node
	WholeNode    = access.WholeNode
)

// guard lets only those through who may use the route on its object.
func (r Route) guard(s *server, a huma.API) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		caller, _ := access.CallerOf(ctx.Context())
		ask := audit.Ask{Route: r.access(), Caller: caller, From: ctx.RemoteAddr(), Word: ctx.Param}
		err := s.guard.Allow(ctx.Context(), caller, ask.Route, ask.Word)
		if err != nil {
			p := s.turnDown(a, ctx, r, err)
			s.doorkeeper.Refuse(ctx.Context(), ask, p.Status)
			return
		}
		named, err := s.linked(ctx, r)
		if err != nil {
			_ = s.turnDown(a, ctx, r, err) // nothing was begun
			return
		}
		s.once(a, named, r, caller, func(ctx huma.Context) { s.pass(a, ctx, r, ask, next) })
	}
}

// pass does what is asked, and writes down who asked for it.
func (s *server) pass(a huma.API, ctx huma.Context, r Route, ask audit.Ask, next func(huma.Context)) {
	ended, err := s.doorkeeper.Begin(ctx.Context(), ask)
	if err != nil {
		_ = s.turnDown(a, ctx, r, err) // it is said; there is nothing to write down
		return
	}
	next(huma.WithValue(ctx, askKey{}, asked{ask, safe(ctx, ask.Caller)}))
	ended(ctx.Status())
}

// access is the route as package access knows routes.
func (r Route) access() access.Route {
	return access.Route{ID: r.ID, Method: r.Method, Path: r.Path, Needs: r.Needs, Object: r.Object, Fresh: r.Fresh}
}

// accessProblem makes a Problem of the errors of package access.
func accessProblem(err error) (p *Problem, ok bool) {
	if f, ok := errors.AsType[*access.Forbidden](err); ok {
		return problem(Forbidden, f.Error(), "ask somebody who may, or for a role that may: `certfarm token create --help`"), true
	}
	if t, ok := errors.AsType[*access.TooMany](err); ok {
		return problem(TooMany, t.Error(), ""), true
	}
	if r, ok := errors.AsType[*access.Refusal](err); ok {
		return problem(Refused, r.Problem, r.Hint), true
	}
	switch {
	case errors.Is(err, access.ErrNobody):
		return problem(Unauthorized, err.Error(), "send a token: Authorization: Bearer …"), true
	case errors.Is(err, access.ErrStale):
		return problem(Forbidden, err.Error(), "log in again, or use an API token"), true
	case errors.Is(err, access.ErrForged):
		return problem(Forbidden, err.Error(), "with a session's cookie, send the header "+access.CSRFHeader+" of its pages"), true
	}
	return nil, false
}

// turnDown answers a request that is not let through.
func (s *server) turnDown(a huma.API, ctx huma.Context, r Route, err error) *Problem {
	p := s.problemOf(ctx.Context(), r.ID, err)
	for name, value := range headersOf(err) {
		ctx.SetHeader(name, value)
	}
	ctx.SetHeader("Content-Type", problemJSON)
	ctx.SetStatus(p.Status)
	_ = a.Marshal(ctx.BodyWriter(), "application/json", p) // the caller is gone
	return p
}

// headersOf are the headers that an error has beside its problem.
func headersOf(err error) map[string]string {
	if t, ok := errors.AsType[*access.TooMany](err); ok {
		return map[string]string{"Retry-After": strconv.Itoa(t.Seconds())}
	}
	if errors.Is(err, access.ErrNobody) {
		return map[string]string{"WWW-Authenticate": `Bearer realm="certfarm"`}
	}
	return nil
}

// refuse answers a request that was refused before its route was found.
func refuse(w http.ResponseWriter, r *http.Request, err error) {
	for name, value := range headersOf(err) {
		w.Header().Set(name, value)
	}
	p, ok := accessProblem(err)
	if !ok {
		p = problem(Failed, "the database does not answer", "")
	}
	writeProblem(w, p)
}

// by names who asks, for the journal.
func by(ctx context.Context) string {
	c, _ := access.CallerOf(ctx)
	return c.Name
}

// lens shows of a farm's lists what the caller may see.
func (s *server) lens(ctx context.Context, farmName string) (*access.Lens, error) {
	c, _ := access.CallerOf(ctx)
	return s.guard.Lens(ctx, c, access.View, farmName)
}

// fill asks for more and more of a list until so many lines are left after those were
// taken out that the caller may not see, or there are no more. Who sees everything
// is asked for once.
func fill[T any](l *access.Lens, limit int, ask func(limit int) ([]T, error), site func(T) string) ([]T, error) {
	for n := limit; ; n *= 4 {
		all, err := ask(n)
		if err != nil {
			return nil, err
		}
		kept := access.Keep(l, all, site)
		if len(kept) >= limit || len(all) < n {
			return kept[:min(len(kept), limit)], nil
		}
	}
}
