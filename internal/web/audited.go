package web

import (
	"net/http"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/audit"
)

// audited writes down what a button does, before and after.
func (s *server) audited(route access.Route, h http.Handler) http.Handler {
	if !audit.Watches(route) || route.Needs == access.Public {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, _ := access.CallerOf(r.Context())
		ended, err := s.keeper.Begin(r.Context(), audit.Ask{Route: route, Caller: caller, From: r.RemoteAddr, Word: r.PathValue})
		if err != nil {
			s.fail(w, r, err)
			return
		}
		heard := &status{ResponseWriter: w, code: http.StatusOK}
		h.ServeHTTP(heard, r)
		ended(heard.code)
	})
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
