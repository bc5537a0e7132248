package web_test

import (
	"errors"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/audit"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/store"
)

// press presses the button of a form, and says yes to what the page asks.
func (b *tab) press(action string) {
	b.t.Helper()
	b.run("window.confirm = () => true")
	b.do(chromedp.Click(`form[action$="` + action + `"] button`))
}

// An operator's day: a canary fails while they watch, the next try succeeds, the
// version before is brought back, farm.yaml is changed, a wave is approved, drift is
// healed, the farm is frozen.
func TestADay(t *testing.T) {
	policy := lab.LabPolicy()
	w := worldOf(t, lab.Options{Layout: lab.Layout{Nodes: 3}, File: lab.FarmFile{Policy: policy}})
	w.settled(t)
	before := newestOf(t, w)
	old, err := os.ReadFile(w.Nodes[1].Path(lab.DefaultPEM))
	if err != nil {
		t.Fatal(err)
	}
	site, in := "/farms/lab/sites/"+w.Site, "/farms/lab/"
	b := browse(t, w.URL, w.Token)
	b.sees("Every endpoint serves what it should")

	canary := w.Nodes[0]
	if err := canary.Set(lab.Fault{Kind: lab.BadReload}); err != nil {
		t.Fatal(err)
	}
	b.goTo(site)
	b.press("/renew")
	b.sees("A new certificate is being ordered")
	w.until(t, "a rollout has begun", func(d controller.SiteDetail) bool { return len(d.Rollouts) > 1 })
	b.goTo(in + "rollouts/" + w.rollout(t).ID)
	b.sees("It goes back:")
	b.sees("restored") // by itself: the page was not asked for again
	b.goTo(in)
	b.sees("needs attention")

	if err := canary.Clear(); err != nil {
		t.Fatal(err)
	}
	b.goTo(site)
	b.press("/renew")
	w.until(t, "the new version is everywhere", func(d controller.SiteDetail) bool {
		return d.Rollout == "" && d.InStep == 3 && d.Version != before.Leaf()
	})
	b.sees("healthy")

	b.goTo(site) // where each version has its way back
	b.press("/undo")
	w.until(t, "the version before is back", func(d controller.SiteDetail) bool {
		return d.Rollout == "" && d.InStep == 3 && d.Version == before.Leaf()
	})

	text, err := os.ReadFile(w.FarmFile)
	if err != nil {
		t.Fatal(err)
	}
	edited := strings.Replace(string(text), "soak: 1s", "soak: 2s\n      waves: [{name: the rest, match: {pool: web}, approve: true}]", 1)
	edited = strings.Replace(edited, "drift: heal", "drift: report", 1)
	if edited == string(text) {
		t.Fatal("the lab's farm.yaml has no soak: 1s")
	}
	b.goTo(in + "farm")
	b.do(chromedp.SetValue("#text", edited))
	b.press("/farm/plan")
	b.sees("soak")
	b.press("/farm/apply")
	b.sees("The farm.yaml is applied")
	b.do(chromedp.SetValue("#text", strings.Replace(edited, "nodes:", "noodles:", 1)))
	b.press("/farm/plan")
	b.sees("noodles") // what was written is not lost
	w.approved(t, b)
	w.healed(t, b, old)

	b.goTo(in)
	b.press("/freeze")
	b.sees("All activations are stopped")
	b.press("/thaw")
	b.sees("Activations go on")
	b.goTo(in + "events")
	b.sees("revision 2 applied")
	b.press("/logout")
	b.sees("API token")
}

// approved renews, and approves the wave that waits on the site's page.
func (w *world) approved(t *testing.T, b *tab) {
	t.Helper()
	was := newestOf(t, w)
	b.goTo("/farms/lab/sites/" + w.Site)
	b.press("/renew")
	b.sees("Approve this wave")
	b.press("/approve")
	b.sees("It may go on")
	w.until(t, "the approved version is everywhere", func(d controller.SiteDetail) bool {
		return d.Rollout == "" && d.InStep == 3 && d.Version != was.Leaf()
	})
}

// healed puts an older certificate on a node behind everybody's back, sees it told of,
// and has it restored.
func (w *world) healed(t *testing.T, b *tab, old []byte) {
	t.Helper()
	node := w.Nodes[1]
	if err := os.WriteFile(node.Path(lab.DefaultPEM), old, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(node.Set(lab.Fault{Kind: lab.Down}), node.Clear()); err != nil { // it reads its files anew
		t.Fatal(err)
	}
	b.goTo("/farms/lab/drift")
	b.sees("1 target not as it should be")
	b.sees("drifted")
	b.press("/restore")
	b.sees("It is being brought back")
	w.until(t, "the drift is healed", func(d controller.SiteDetail) bool { return d.Rollout == "" && d.InStep == 3 && d.Sync == "in-sync" })
	b.sees("Nothing drifts")
}

// rollout is the newest of the lab's site.
func (w *world) rollout(t *testing.T) farm.Rollout {
	t.Helper()
	r, err := w.Controller.Rollout(t.Context(), w.Farm, w.Site)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newestOf(t *testing.T, w *world) farm.Version {
	t.Helper()
	d, err := w.Controller.Describe(t.Context(), w.Farm, w.Site)
	if err != nil || len(d.Versions) == 0 {
		t.Fatal(err, "no version")
	}
	return d.Versions[0]
}

// Every page and button, for every role, for nobody, and for somebody with other
// sites: who may not is told so or sent to the login, and nothing happens.
func TestWhoMayWhat(t *testing.T) {
	w := worldOf(t, lab.Options{Layout: lab.Layout{Nodes: 1}})
	w.settled(t)
	words := map[string]string{"farm": w.Farm, "site": w.Site, "node": w.Nodes[0].Name(), "rollout": w.rollout(t).ID, "target": w.rollout(t).Steps[0].Target, "token": "doomed", "session": w.session(t)}
	if _, _, err := w.Desk.Create(t.Context(), access.TokenAsk{Name: words["token"], Grants: []store.Grant{{Role: string(access.Viewer)}}}, access.Local("test")); err != nil {
		t.Fatal(err)
	}
	callers := map[string]struct {
		token string
		role  access.Role
	}{"nobody": {}, "other sites": {w.token(t, store.Grant{Role: string(access.Admin), Tags: []string{"else"}}), ""}}
	for _, role := range access.Roles() {
		callers[string(role)] = struct {
			token string
			role  access.Role
		}{w.token(t, store.Grant{Role: string(role)}), role}
	}
	refused := 0
	for name, c := range callers {
		for _, r := range routes() {
			if r.Needs == access.Public || r.ID == "page-live" {
				continue
			}
			path := r.Path
			for word, is := range words {
				path = strings.ReplaceAll(path, "{"+word+"}", url.PathEscape(is))
			}
			status := w.ask(t, r.Method, strings.TrimSuffix(path, "{$}"), c.token)
			may := c.role != "" && mayDo(c.role, r.Needs)
			filtered := name == "other sites" && r.Object == access.Sites // an empty list
			if status == 403 && r.Method == "POST" && r.Needs != access.View {
				refused++
			}
			if ok := status < 400 && status != 303 || r.Method == "POST" && status != 401 && status != 403 && status != 404 || status == 409; ok != (may || filtered) {
				t.Errorf("%s %s as %s: %d", r.Method, path, name, status)
			}
		}
	}
	lines, err := audit.Book{Store: w.Desk.Store}.Lines(t.Context(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	for _, l := range lines {
		if strings.Contains(string(l.Entry), `"status":403`) {
			told++
		}
		if strings.Contains(string(l.Entry), `"button-`) {
			t.Errorf("the audit has another word for an act than the API: %s", l.Entry)
		}
	}
	if refused == 0 || told != refused {
		t.Errorf("%d were refused, and the audit tells of %d", refused, told)
	}
}

// session is a browser's that is logged in.
func (w *world) session(t *testing.T) string {
	t.Helper()
	n := store.Session{Digest: "of a cookie", Via: access.ViaToken, Name: "ada", Begun: time.Now(), Expires: time.Now().Add(time.Hour), Seen: time.Now()}
	if err := w.Desk.Store.Update(t.Context(), func(tx *store.Tx) error { return tx.AddSession(t.Context(), n) }); err != nil {
		t.Fatal(err)
	}
	return access.SessionID(n)
}

func mayDo(role access.Role, p access.Permission) bool {
	return slices.Contains(role.Permissions(), p)
}
