// Package web is the dashboard: pages that the controller writes, which a browser
// shows with or without script.
//
//	browser ─→ access.Gate (who asks?) ─→ access.Guard (may they?) ─→ page ─→ controller
//	        ←─ a whole page; with script, what changed in it
//
// Its invariants: every page and every button stands in one table with the permission
// that it takes; a page shows nothing that the caller may not see; its address is its
// state; what a button does is a controller's question, the same that the CLI asks;
// nothing is loaded from anywhere else.
package web

import (
	"bytes"
	"cmp"
	"embed"
	"errors"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/audit"
	"github.com/certfarm/certfarm/internal/controller"
)

// Config is what the dashboard takes.
type Config struct {
	Controller *controller.Controller
	Guard      *access.Guard
	Gate       *access.Gate
	Version    string // of the program
	Log        *slog.Logger
}

//go:embed pages/*.html
var templates embed.FS

//go:embed static
var static embed.FS

// server writes the pages.
type server struct {
	*controller.Controller
	guard   *access.Guard
	keeper  audit.Doorkeeper
	gate    *access.Gate
	version string
	log     *slog.Logger
	pages   map[string]*template.Template
	recent  recent
}

// New returns the dashboard's handler. The gate finds out who asks; who is not known
// is sent to /login.
func New(c Config) (http.Handler, error) {
	s := &server{
		Controller: c.Controller, guard: c.Guard, gate: c.Gate, version: c.Version,
		log: cmp.Or(c.Log, slog.New(slog.DiscardHandler)), pages: map[string]*template.Template{},
	}
	s.keeper = audit.Doorkeeper{Book: audit.Book{Store: c.Controller.Store}, Log: s.log}
	mux := http.NewServeMux()
	for _, p := range table() {
		h := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(s, w, r) }))
		mux.Handle(p.Method+" "+p.Path, s.guard.Wrap(p.Route, s.audited(p.Route, h), s.turnDown(p.Route)))
		if err := s.compile(p.file); err != nil {
			return nil, err
		}
	}
	if err := s.compile("error.html"); err != nil {
		return nil, err
	}
	files, err := fs.Sub(static, "static")
	if err != nil {
		return nil, err
	}
	mux.Handle("GET /static/", http.StripPrefix("/static/", kept(http.FileServerFS(files))))
	mux.HandleFunc("GET /{$}", s.home)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.problem(w, r, http.StatusNotFound, "There is no such page", "")
	})
	return s.gate.Headers(s.gate.Protect(mux, s.refuse)), nil
}

// Routes are the pages and buttons, each with what it takes.
func Routes() (all []access.Route) {
	for _, p := range table() {
		all = append(all, p.Route)
	}
	return all
}

func (s *server) compile(file string) error {
	if file == "" || s.pages[file] != nil {
		return nil
	}
	t, err := template.New("layout.html").Funcs(words).ParseFS(templates, "pages/layout.html", "pages/"+file)
	s.pages[file] = t
	return err
}

// kept lets a browser keep what is the same until the program is another.
func kept(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=3600")
		h.ServeHTTP(w, r)
	})
}

// home is where somebody begins: at the only farm, or at the list of them.
func (s *server) home(w http.ResponseWriter, r *http.Request) {
	farms, err := s.farms(r)
	switch {
	case errors.Is(err, access.ErrNobody):
		http.Redirect(w, r, "/login", http.StatusSeeOther)
	case err != nil:
		s.fail(w, r, err)
	case len(farms) == 1:
		http.Redirect(w, r, farmPath(farms[0]), http.StatusSeeOther)
	default:
		s.write(w, r, http.StatusOK, "error.html", page{Title: "Farms", Data: noted{Farms: farms, Text: "No farm was applied yet", Hint: "certfarm apply farm.yaml"}})
	}
}

// farms are those that the caller may enter.
func (s *server) farms(r *http.Request) ([]string, error) {
	caller, ok := access.CallerOf(r.Context())
	if !ok {
		return nil, access.ErrNobody
	}
	all, err := s.Farms(r.Context())
	if err != nil {
		return nil, err
	}
	var may []string
	for _, f := range all {
		if caller.Enters(f) {
			may = append(may, f)
		}
	}
	return may, nil
}

// page is what the layout takes.
type page struct {
	Title   string
	Nav     string // which part of the farm is shown
	Farm    string
	Farms   []string
	User    string
	CSRF    string
	Path    string   // with its query: where the page refreshes itself
	Live    string   // where changes are told; empty: it does not follow
	CLI     string   // the command that gives the same
	Tables  []string // those on it, which can be had as CSV; the only one has no name
	Did     string   // what the button that led here has done
	Version string
	Data    any

	caller access.Caller
}

// May reports that the caller may do something here: what they may not is not offered.
func (p page) May(what access.Permission) bool { return !p.caller.Scope(what, p.Farm).None() }

// MayAll reports that they may do it everywhere.
func (p page) MayAll(what access.Permission) bool { return p.caller.May(what, "") }

// With is the page with a part of its data, for templates that show parts.
func (p page) With(data any) page {
	p.Data = data
	return p
}

// As is the address of the same in another form, with all that the page was asked with.
func (p page) As(form, table string) string {
	u, err := url.ParseRequestURI(p.Path)
	if err != nil {
		return "?as=" + form
	}
	q := u.Query()
	q.Set("as", form)
	if table != "" {
		q.Set("table", table)
	}
	q.Del("did")
	return "?" + q.Encode()
}

// write writes a page. It is made whole before the first byte is sent, so that a
// mistake in a template is an error and not half a page.
func (s *server) write(w http.ResponseWriter, r *http.Request, status int, file string, p page) {
	caller, known := access.CallerOf(r.Context())
	if known {
		p.User, p.CSRF, p.caller = caller.Name, s.gate.CSRF(r), caller
		p.Farms, _ = s.farms(r) // the way to other farms is no reason to fail
		if p.Farm == "" && len(p.Farms) == 1 {
			p.Farm = p.Farms[0]
		}
	}
	p.Version, p.Path = s.version, r.URL.RequestURI()
	var out bytes.Buffer
	if err := s.pages[file].Execute(&out, p); err != nil {
		s.log.Error("write a page", "page", file, "error", err)
		http.Error(w, "the page could not be written; the log says why", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(out.Bytes()) // the reader is gone
}

// farmPath is the address of something in a farm.
func farmPath(farmName string, words ...string) string {
	var b strings.Builder
	b.WriteString("/farms/" + escape(farmName) + "/")
	for i, w := range words {
		if i > 0 {
			b.WriteByte('/')
		}
		b.WriteString(escape(w))
	}
	return b.String()
}
