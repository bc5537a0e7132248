package web

import (
	"net/http"
	"strings"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/audit"
)

// audited writes down what a button does, before and after.
func (s *server) audited(route access.Route, h http.Handler) http.Handler {
	if !audit.Watches(route) || route.Needs == access.Public {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ended, err := s.keeper.Begin(r.Context(), askOf(route, r))
		if err != nil {
			s.fail(w, r, err)
			return
		}
		heard := &status{ResponseWriter: w, code: http.StatusOK}
		h.ServeHTTP(heard, r)
		ended(heard.code)
	})
}

// turnDown answers who may not use a route, and writes down that they tried.
func (s *server) turnDown(route access.Route) access.Refuse {
	return func(w http.ResponseWriter, r *http.Request, err error) {
		heard := &status{ResponseWriter: w, code: http.StatusOK}
		s.refuse(heard, r, err)
		s.keeper.Refuse(r.Context(), askOf(route, r), heard.code)
	}
}

func askOf(route access.Route, r *http.Request) audit.Ask {
	caller, _ := access.CallerOf(r.Context())
	route.ID = strings.TrimPrefix(route.ID, "button-") // the API's word for the same act, by which both are found
	return audit.Ask{Route: route, Caller: caller, From: r.RemoteAddr, Word: r.PathValue}
}

// A status remembers how a request was answered.
type status struct {
	http.ResponseWriter
	code int
}

// WriteHeader sends the status.
func (s *status) WriteHeader(code int) {
	s.code = code
	s.ResponseWriter.WriteHeader(code)
}
