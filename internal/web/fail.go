package web

import (
	"errors"
	"net/http"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/config"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/store"
)

// noted is a page with a sentence on it, and where to go on.
type noted struct {
	Text, Hint string
	Farms      []string
}

// refuse answers who may not do what they asked for.
func (s *server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, access.ErrNobody) && r.Method == http.MethodGet:
		http.Redirect(w, r, "/login?to="+escape(r.URL.RequestURI()), http.StatusSeeOther)
	case errors.Is(err, access.ErrNobody), errors.Is(err, access.ErrStale), errors.Is(err, access.ErrForged):
		s.entrance(w, r, err)
	default:
		s.fail(w, r, err)
	}
}

// fail shows what went wrong, and what to do where that is known.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	if refusal, ok := errors.AsType[*controller.Refusal](err); ok {
		s.problem(w, r, http.StatusConflict, sentence(refusal.Problem), refusal.Hint)
		return
	}
	if refusal, ok := errors.AsType[*access.Refusal](err); ok {
		s.problem(w, r, http.StatusConflict, sentence(refusal.Problem), sentence(refusal.Hint))
		return
	}
	_, forbidden := errors.AsType[*access.Forbidden](err)
	_, mistakes := errors.AsType[config.Mistakes](err)
	_, conflict := errors.AsType[*store.Conflict](err)
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrNoPlace):
		s.problem(w, r, http.StatusNotFound, "That is not here", err.Error())
	case forbidden:
		s.problem(w, r, http.StatusForbidden, "You may not do that", err.Error())
	case mistakes, conflict:
		s.problem(w, r, http.StatusConflict, "That cannot be done", err.Error())
	default:
		s.log.Error("answer a page", "path", r.URL.Path, "error", err)
		s.problem(w, r, http.StatusInternalServerError, "Something went wrong here", "the controller's log says what")
	}
}

func (s *server) problem(w http.ResponseWriter, r *http.Request, status int, text, hint string) {
	s.write(w, r, status, "error.html", page{Title: text, Farm: r.PathValue("farm"), Data: noted{Text: text, Hint: hint}})
}
