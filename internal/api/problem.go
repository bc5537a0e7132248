package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certfarm/certfarm/internal/config"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/plan"
	"github.com/certfarm/certfarm/internal/store"
)

const problemJSON = "application/problem+json"

// problemBase is where the types of problems are explained.
const problemBase = "https://github.com/certfarm/certfarm/blob/main/docs/api.md#problem-"

// The kinds of problems, the last word of their types.
const (
	NotFound     = "not-found"
	Conflict     = "conflict"     // the farm was changed after the plan was made
	Refused      = "refused"      // it makes no sense now; the hint says what to do instead
	Mistakes     = "mistakes"     // farm.yaml has mistakes
	Invalid      = "invalid"      // the request is not as the API describes it
	Unauthorized = "unauthorized" // no token, or none that is known
	Forbidden    = "forbidden"    // the token may not do that
	TooMany      = "too-many"     // requests; Retry-After says when there may be more
	Precondition = "precondition" // the farm is not the one that If-Match names any more
	InFlight     = "in-flight"    // a request with the same Idempotency-Key is being answered
	KeyReused    = "key-reused"   // another request had the same Idempotency-Key
	ShownOnce    = "shown-once"   // the request was answered before, with what is shown once
	Failed       = "failed"       // something went wrong on this side
)

// Problems lists every kind; docs/api.md tells of each.
func Problems() (all []string) {
	for _, k := range kinds() {
		all = append(all, k.name)
	}
	return all
}

// A Problem is an error as the API tells it (RFC 9457).
type Problem struct {
	Type     string          `json:"type" format:"uri" doc:"stable; where this kind of problem is explained"`
	Title    string          `json:"title" doc:"the kind of problem in words"`
	Status   int             `json:"status"`
	Detail   string          `json:"detail" doc:"what went wrong this time"`
	Hint     string          `json:"hint,omitempty" doc:"what to do"`
	Mistakes config.Mistakes `json:"mistakes,omitempty" doc:"what is wrong in farm.yaml, and where"`
	Conflict *Changed        `json:"conflict,omitempty" doc:"who changed the farm meanwhile"`
	Faults   []Fault         `json:"faults,omitempty" doc:"what is wrong in the request"`
}

// Changed says who changed a farm, and when.
type Changed struct {
	Revision int64     `json:"revision"`
	By       string    `json:"by"`
	At       time.Time `json:"at"`

	Changes []plan.Change `json:"changes,omitempty" doc:"what is another now than in the revision that was named"`
}

// A Fault is a part of a request that is not as described. It never holds what
// was sent: that may be a secret.
type Fault struct {
	Where   string `json:"where"`
	Problem string `json:"problem"`
}

var problemType = reflect.TypeFor[Problem]()

// Kind is the last word of the problem's type.
func (p *Problem) Kind() string { return strings.TrimPrefix(p.Type, problemBase) }

// Error is what went wrong.
func (p *Problem) Error() string { return p.Detail }

// GetStatus is the HTTP status; huma asks for it.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType names problems as such; huma asks for it.
func (p *Problem) ContentType(string) string { return problemJSON }

// A kind of problems has one status and one title.
type kind struct {
	name   string
	status int
	title  string
}

// kinds is the one table of kinds and statuses.
func kinds() []kind {
	return []kind{
		{NotFound, http.StatusNotFound, "There is no such thing"},
		{Conflict, http.StatusConflict, "The farm was changed meanwhile"},
		{Refused, http.StatusConflict, "This makes no sense now"},
		{Mistakes, http.StatusUnprocessableEntity, "farm.yaml has mistakes"},
		{Invalid, http.StatusUnprocessableEntity, "The request is not as described"},
		{Unauthorized, http.StatusUnauthorized, "Who asks?"},
		{Forbidden, http.StatusForbidden, "This token may not do that"},
		{TooMany, http.StatusTooManyRequests, "Not so many at once"},
		{Precondition, http.StatusPreconditionFailed, "It is another by now"},
		{InFlight, http.StatusConflict, "The same is being done"},
		{KeyReused, http.StatusUnprocessableEntity, "The key stands for another request"},
		{ShownOnce, http.StatusConflict, "It was done, and shown once"},
		{Failed, http.StatusInternalServerError, "It failed"},
	}
}

func problem(name, detail, hint string) *Problem {
	all := kinds()
	k := all[max(0, slices.IndexFunc(all, func(k kind) bool { return k.name == name }))]
	return &Problem{Type: problemBase + k.name, Title: k.title, Status: k.status, Detail: detail, Hint: hint}
}

// problemOf tells an error to a caller. What it does not know is logged, too.
func (s *server) problemOf(ctx context.Context, route string, err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	if ms, ok := errors.AsType[config.Mistakes](err); ok {
		p := problem(Mistakes, fmt.Sprintf("farm.yaml has %d mistakes", len(ms)), "correct them and plan again")
		if len(ms) == 1 {
			p.Detail = "farm.yaml has a mistake"
		}
		p.Mistakes = ms
		return p
	}
	if c, ok := errors.AsType[*store.Conflict](err); ok {
		p := problem(Conflict, c.Error(), "plan again to see what would change now")
		p.Conflict = &Changed{Revision: c.Revision, By: c.By, At: c.At}
		return p
	}
	if r, ok := errors.AsType[*controller.Refusal](err); ok {
		return problem(Refused, r.Problem, r.Hint)
	}
	if p, ok := accessProblem(err); ok {
		return p
	}
	if errors.Is(err, store.ErrNotFound) {
		return problem(NotFound, err.Error(), "")
	}
	if ctx.Err() == nil {
		s.log.Error("request failed", "route", route, "error", err)
	}
	return problem(Failed, err.Error(), "")
}

// Err is the error that the problem was made of, as the controller returned it.
func (p *Problem) Err() error {
	switch p.Kind() {
	case Mistakes:
		return p.Mistakes
	case Conflict, Precondition:
		if p.Conflict != nil {
			return &store.Conflict{Revision: p.Conflict.Revision, By: p.Conflict.By, At: p.Conflict.At}
		}
	case Refused:
		return &controller.Refusal{Problem: p.Detail, Hint: p.Hint}
	case NotFound:
		return fmt.Errorf("%s: %w", strings.TrimSuffix(p.Detail, ": "+store.ErrNotFound.Error()), store.ErrNotFound)
	}
	return p
}

// ours makes a Problem of huma's own errors, without what was sent.
func ours(_ huma.Context, _ string, v any) (any, error) {
	e, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	p := problem(Invalid, cmp.Or(e.Detail, e.Title), "the API describes itself at /api/openapi.json")
	p.Status = e.Status
	if e.Status >= http.StatusInternalServerError {
		p = problem(Failed, cmp.Or(e.Detail, e.Title), "")
	}
	for _, d := range e.Errors {
		p.Faults = append(p.Faults, Fault{d.Location, d.Message})
	}
	return p, nil
}
