package web

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"net/http"

	"github.com/certfarm/certfarm/internal/access"
)

// An entry of the table is a page or a button.
type entry struct {
	access.Route
	file  string // of its template; empty: it is no page
	title string
	nav   string
	show  func(*server, *question) (any, error)    // a page
	act   func(*server, *question) (string, error) // a button: what it has done
	serve func(s *server, w http.ResponseWriter, r *http.Request)
}

const inFarm = "/farms/{farm}/"

// table is every page and every button there is.
func table() []entry {
	see, operate := access.View, access.Operate
	all := []entry{
		{Route: get("overview", "{$}", see, access.Sites), title: "Overview", file: "overview.html", show: (*server).overview},
		{Route: get("matrix", "matrix", see, access.Sites), title: "Matrix", file: "matrix.html", show: (*server).matrix},
		{Route: get("timeline", "timeline", see, access.Sites), title: "Timeline", file: "timeline.html", show: (*server).timeline},
		{Route: get("calendar", "calendar", see, access.Farm), title: "Calendar", file: "calendar.html", show: (*server).calendar},
		{Route: get("rollouts", "rollouts", see, access.Sites), title: "Rollouts", file: "rollouts.html", show: (*server).rollouts},
		{Route: get("nodes", "nodes", see, access.Farm), title: "Nodes", file: "nodes.html", show: (*server).nodes},
		{Route: get("drift", "drift", see, access.Sites), title: "Drift", file: "drift.html", show: (*server).drift},
		{Route: get("events", "events", see, access.Sites), title: "Events", file: "events.html", show: (*server).events},
		{Route: get("notifications", "notifications", see, access.Farm), title: "Notifications", file: "notifications.html", show: (*server).notifications},
		{Route: get("farm", "farm", see, access.Farm), title: "farm.yaml", file: "farm.html", show: (*server).farmText},

		{Route: get("site", "sites/{site}", see, access.Site), nav: "matrix", file: "site.html", show: (*server).site},
		{Route: get("site-preflight", "sites/{site}/preflight", operate, access.Site), nav: "matrix", title: "Preflight", file: "preflight.html", show: (*server).preflight},
		{Route: get("target", "targets/{target}", see, access.Target), nav: "matrix", file: "target.html", show: (*server).target},
		{Route: get("rollout", "rollouts/{rollout}", see, access.Rollout), nav: "rollouts", title: "Rollout", file: "rollout.html", show: (*server).rollout},

		{Route: get("node", "nodes/{node}", see, access.WholeNode), nav: "nodes", file: "node.html", show: (*server).node},
		{Route: get("node-policy", "nodes/{node}/policy", see, access.WholeNode), nav: "nodes", title: "Policy", file: "policy.html", show: (*server).policy},
		{Route: get("import", "sites/{site}/import", access.Edit, access.Site), nav: "drift", title: "Import", file: "import.html", show: (*server).importing},

		{Route: post("renew", "sites/{site}/renew", operate, access.Site), act: (*server).renew},
		{Route: post("undo", "sites/{site}/undo", operate, access.Site), act: (*server).undo},
		{Route: post("verify", "sites/{site}/verify", operate, access.Site), act: (*server).verify},
		{Route: post("pause", "rollouts/{rollout}/pause", operate, access.Rollout), act: tell("pause")},
		{Route: post("resume", "rollouts/{rollout}/resume", operate, access.Rollout), act: tell("resume")},
		{Route: post("abort", "rollouts/{rollout}/abort", operate, access.Rollout), act: tell("abort")},
		{Route: post("approve", "rollouts/{rollout}/approve", access.Approve, access.Rollout), act: tell("approve")},
		{Route: post("freeze", "freeze", operate, access.Farm), act: freeze(true)},
		{Route: post("thaw", "thaw", operate, access.Farm), act: freeze(false)},
		{Route: post("import", "sites/{site}/import", access.Edit, access.Site), act: (*server).importPair},
		{Route: post("restore-target", "targets/{target}/restore", operate, access.Target), act: (*server).restore},
		{Route: post("ask", "nodes/{node}/ask", operate, access.WholeNode), act: (*server).askNode},
		{Route: post("ask-all", "ask", operate, access.Farm), act: (*server).askNodes},
		{Route: post("hold", "nodes/{node}/hold", operate, access.WholeNode), act: hold(true)},
		{Route: post("release", "nodes/{node}/release", operate, access.WholeNode), act: hold(false)},
		{Route: post("test-receivers", "notifications/test", operate, access.Farm), act: (*server).testReceiver},
		{Route: post("plan", "farm/plan", see, access.Farm), title: "Plan", nav: "farm", file: "farm.html", show: (*server).plan},
		{Route: post("apply", "farm/apply", access.Edit, access.Farm), act: (*server).apply},
	}
	all = append(all, overall()...)
	for i := range all {
		all[i].complete()
	}
	all = append(all, entry{Route: get("live", "live", see, access.Sites), serve: (*server).live})
	return append(all, entrances()...)
}

// overall are the pages and buttons that concern every farm.
func overall() []entry {
	of := func(id, method, path string) access.Route {
		return access.Route{ID: id, Method: method, Path: path, Needs: access.Access, Object: access.Installation}
	}
	fresh := of("button-create-token", "POST", accessPath+"/tokens")
	fresh.Fresh = true // who finds an open browser makes no token with it
	return []entry{
		{Route: of("page-access", "GET", accessPath), title: "Access", file: "access.html", show: (*server).access},
		{Route: fresh, title: "Access", nav: "access", file: "access.html", show: (*server).createToken},
		{Route: of("button-revoke-token", "POST", accessPath+"/tokens/{token}/revoke"), act: (*server).revokeToken},
		{Route: of("button-end-session", "POST", accessPath+"/sessions/{session}/end"), act: (*server).endSession},
		{Route: of("page-audit", "GET", "/audit"), title: "Audit", file: "audit.html", show: (*server).audit},
		{Route: of("page-audit-proof", "GET", "/audit/proof"), title: "Audit", nav: "audit", file: "proof.html", show: (*server).prove},
		{Route: of("page-audit-export", "GET", "/audit/export"), serve: (*server).export},
	}
}

func get(id, path string, needs access.Permission, o access.Object) access.Route {
	return access.Route{ID: "page-" + id, Method: "GET", Path: inFarm + path, Needs: needs, Object: o}
}

func post(id, path string, needs access.Permission, o access.Object) access.Route {
	return access.Route{ID: "button-" + id, Method: "POST", Path: inFarm + path, Needs: needs, Object: o}
}

// complete gives an entry its way of being served.
func (e *entry) complete() {
	if e.nav == "" && e.title != "" {
		e.nav = e.ID[len("page-"):]
	}
	one := *e
	switch {
	case e.serve != nil:
	case e.act != nil:
		e.serve = func(s *server, w http.ResponseWriter, r *http.Request) { one.press(s, w, r) }
	default:
		e.serve = func(s *server, w http.ResponseWriter, r *http.Request) { one.open(s, w, r) }
	}
}

// A question is a request for a page or a press of a button.
type question struct {
	*http.Request
	farm   string
	caller access.Caller
	lens   *access.Lens
	title  string // the page's own, where it is not that of the table
	cli    string // the command that gives the same
	still  bool   // the page does not follow the farm
}

func (q *question) ctx() context.Context { return q.Context() }

// ask makes a question of a request that was let through.
func (s *server) ask(r *http.Request) (*question, error) {
	caller, _ := access.CallerOf(r.Context())
	farmName := r.PathValue("farm")
	lens, err := s.guard.Lens(r.Context(), caller, access.View, farmName)
	return &question{Request: r, farm: farmName, caller: caller, lens: lens}, err
}

// open shows a page, or the table on it as CSV or JSON.
func (e entry) open(s *server, w http.ResponseWriter, r *http.Request) {
	q, err := s.ask(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	q.title = e.title
	data, err := e.show(s, q)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	switch r.URL.Query().Get("as") {
	case "json":
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(data) // the reader is gone
		return
	case "csv":
		if rows := sheetNamed(data, r.URL.Query().Get("table")); rows != nil {
			w.Header().Set("Content-Type", "text/csv; charset=utf-8")
			_ = csv.NewWriter(w).WriteAll(rows) // the reader is gone
			return
		}
	}
	p := page{Title: q.title, Nav: e.nav, Farm: q.farm, CLI: q.cli, Did: did[r.URL.Query().Get("did")], Data: data}
	for _, t := range sheetsOf(data) {
		p.Tables = append(p.Tables, t.Name)
	}
	if r.Method == http.MethodGet && q.farm != "" && !q.still {
		p.Live = farmPath(q.farm, "live")
	}
	s.write(w, r, http.StatusOK, e.file, p)
}

// tabled is what a page shows that is one table: the heads first.
type tabled interface{ Table() [][]string }

// A sheet is one of several tables on a page, the heads first.
type sheet struct {
	Name string // empty: the only one
	Rows [][]string
}

// sheeted is what a page shows that has several tables.
type sheeted interface{ Sheets() []sheet }

func sheetsOf(data any) []sheet {
	switch d := data.(type) {
	case sheeted:
		return d.Sheets()
	case tabled:
		return []sheet{{Rows: d.Table()}}
	}
	return nil
}

// sheetNamed is a page's table of that name, or its first; nil, where it has none.
func sheetNamed(data any, name string) [][]string {
	all := sheetsOf(data)
	for _, t := range all {
		if t.Name == name || name == "" {
			return t.Rows
		}
	}
	return nil
}

// press does what a button is for, and leads back to where it was pressed.
func (e entry) press(s *server, w http.ResponseWriter, r *http.Request) {
	q, err := s.ask(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	back, err := e.act(s, q)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	http.Redirect(w, r, back+"?did="+e.ID[len("button-"):], http.StatusSeeOther)
}
