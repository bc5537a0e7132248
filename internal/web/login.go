package web

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/certfarm/certfarm/internal/access"
)

// An entrance is the page to log in at.
type entrance struct {
	Problem  string
	Provider bool
	To       string
}

// entrances are the ways in and out, which everybody may try.
func entrances() []entry {
	open := func(id, method, path string, serve func(*server, http.ResponseWriter, *http.Request)) entry {
		return entry{Route: access.Route{ID: id, Method: method, Path: path, Needs: access.Public, Object: access.Nothing}, file: "login.html", serve: serve}
	}
	return []entry{
		open("page-login", "GET", "/login", func(s *server, w http.ResponseWriter, r *http.Request) { s.entrance(w, r, nil) }),
		open("button-login", "POST", "/login", (*server).login),
		open("button-logout", "POST", "/logout", (*server).logout),
		open("page-login-begin", "GET", "/login/begin", (*server).begin),
		open("page-login-callback", "GET", "/login/callback", (*server).callback),
	}
}

// entrance shows the page to log in at, and what went wrong with a login.
func (s *server) entrance(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusOK
	e := entrance{Provider: s.gate.HasOIDC(), To: access.SafeNext(r.FormValue("to"))}
	if err != nil {
		status, e.Problem = http.StatusUnauthorized, sentence(err.Error())
	}
	if many, ok := errors.AsType[*access.TooMany](err); ok {
		status = http.StatusTooManyRequests
		w.Header().Set("Retry-After", strconv.Itoa(many.Seconds()))
	}
	s.write(w, r, status, "login.html", page{Title: "Log in", Data: e})
}

func (s *server) login(w http.ResponseWriter, r *http.Request) {
	if err := s.gate.Login(w, r); err != nil {
		s.entrance(w, r, err)
		return
	}
	http.Redirect(w, r, access.SafeNext(r.PostFormValue("to")), http.StatusSeeOther)
}

func (s *server) logout(w http.ResponseWriter, r *http.Request) {
	if err := s.gate.Logout(w, r); err != nil {
		s.fail(w, r, err)
		return
	}
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

// begin leads to the identity provider, callback back from there.
func (s *server) begin(w http.ResponseWriter, r *http.Request) {
	if err := s.gate.Begin(w, r, r.FormValue("to"), r.FormValue("fresh") != ""); err != nil {
		s.entrance(w, r, err)
	}
}

func (s *server) callback(w http.ResponseWriter, r *http.Request) {
	next, err := s.gate.Callback(w, r)
	if err != nil {
		s.entrance(w, r, err)
		return
	}
	http.Redirect(w, r, next, http.StatusSeeOther)
}
