package web_test

import (
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/web"
)

// A world is a lab with a dashboard, and somebody who may do everything.
type world struct {
	*lab.Lab
	URL   string
	Desk  access.Desk
	Token string
}

// worldOf starts a lab whose farm.yaml is applied.
func worldOf(t *testing.T, o lab.Options) *world {
	t.Helper()
	o.Dir = t.TempDir()
	var kept *store.Store
	o.Adjust = func(c *controller.Config) { kept = c.Store }
	l, err := lab.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	gate, err := access.NewGate(access.Config{Store: kept})
	if err != nil {
		t.Fatal(err)
	}
	h, err := web.New(web.Config{Controller: l.Controller, Gate: gate, Guard: access.NewGuard(kept, nil), Version: "test", Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	w := &world{Lab: l, URL: server.URL, Desk: access.Desk{Store: kept}}
	w.Token = w.token(t, store.Grant{Role: string(access.Admin)})
	return w
}

// token makes a token with grants.
func (w *world) token(t *testing.T, grants ...store.Grant) string {
	t.Helper()
	name := fmt.Sprint("t", time.Now().UnixNano())
	_, secret, err := w.Desk.Create(t.Context(), access.TokenAsk{Name: name, Grants: grants}, access.Local("test"))
	if err != nil {
		t.Fatal(err)
	}
	return string(secret.Reveal())
}

// settled applies the lab's farm.yaml and waits until every target is verified.
func (w *world) settled(t *testing.T) {
	t.Helper()
	if _, err := w.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.until(t, "every target is in step", func(d controller.SiteDetail) bool {
		return d.InStep == d.Targets && d.Targets > 0 && d.Rollout == ""
	})
}

// until waits for something to be so of the lab's site.
func (w *world) until(t *testing.T, what string, ok func(controller.SiteDetail) bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		written := w.Controller.Store.Written()
		d, err := w.Controller.Describe(t.Context(), w.Farm, w.Site)
		if err == nil && ok(d) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("never: %s; %+v, %v", what, d.SiteStatus, err)
		}
		select {
		case <-written:
		case <-time.After(time.Second):
		}
	}
}

// A tab is a browser's, with what it complained of.
type tab struct {
	t   *testing.T
	ctx context.Context
	at  string

	mu       sync.Mutex
	problems []string
}

// browse opens a browser that is logged in.
func browse(t *testing.T, w *world, token string) *tab {
	t.Helper()
	b := open(t, w)
	b.do(chromedp.Navigate(w.URL+"/login"), chromedp.SetValue("#token", token), chromedp.Click("main form button"), chromedp.WaitVisible(".side"))
	return b
}

func open(t *testing.T, w *world) *tab {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"), chromedp.Flag("disable-gpu", true))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(cancel)
	ctx, stop := chromedp.NewContext(ctx)
	t.Cleanup(stop)
	ctx, end := context.WithTimeout(ctx, 3*time.Minute)
	t.Cleanup(end)
	b := &tab{t: t, ctx: ctx, at: w.URL}
	messages := chromedp.Console(ctx)
	var reading sync.WaitGroup
	reading.Go(func() {
		for m, err := range messages {
			if err != nil {
				return
			}
			if m.IsException() || m.Type == chromedp.ConsoleError || m.Source == "security" {
				b.mu.Lock()
				b.problems = append(b.problems, m.String())
				b.mu.Unlock()
			}
		}
	})
	t.Cleanup(func() { end(); reading.Wait(); b.quiet() })
	return b
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatalf("in the browser: %v", err)
	}
}

// quiet fails the test if the browser complained.
func (b *tab) quiet() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.problems {
		b.t.Errorf("the browser complains: %s", p)
	}
}

// run runs a script in the page.
func (b *tab) run(script string) {
	b.t.Helper()
	if _, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](script+"; true")); err != nil {
		b.t.Fatal(err)
	}
}

func (b *tab) goTo(path string) { b.t.Helper(); b.do(chromedp.Navigate(b.at + path)) }

// text is what the page says.
func (b *tab) text() string {
	b.t.Helper()
	s, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.body.innerText`))
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// sees waits until the page says something.
func (b *tab) sees(words string) {
	b.t.Helper()
	var ok bool
	for until := time.Now().Add(time.Minute); time.Now().Before(until) && !ok; {
		got, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](fmt.Sprintf(
			`new Promise(done => { const has = () => document.body.innerText.includes(%q); if (has()) return done(true); const o = new MutationObserver(() => { if (has()) { o.disconnect(); done(true) } }); o.observe(document, {subtree: true, childList: true, characterData: true}); setTimeout(() => done(has()), 5000) })`, words),
			chromedp.EvalAwaitPromise))
		ok = err == nil && got // a page that goes away while it is asked is asked again
	}
	if !ok {
		b.t.Fatalf("the page never says %q, but\n%s", words, b.text())
	}
}

//go:embed testdata/axe.min.js
var axe string

// accessible asks axe-core for what it finds serious.
func (b *tab) accessible(page string) {
	b.t.Helper()
	b.run(axe)
	found, err := chromedp.Run(b.ctx, chromedp.Evaluate[[]string](
		`axe.run().then(r => r.violations.filter(v => v.impact === "serious" || v.impact === "critical").flatMap(v => v.nodes.map(n => v.id + ": " + n.target.join(" ") + " " + n.failureSummary)))`, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range found {
		b.t.Errorf("%s: %s", page, f)
	}
}

// screens is where pictures are kept; empty: they are not.
var screens = os.Getenv("CERTFARM_SCREENS")

func (b *tab) picture(name string) {
	b.t.Helper()
	if screens == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(filepath.Join(screens, name+".png"), png, 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// pages are those that the test looks at, by name.
func pages(w *world, rollout string) map[string]string {
	in := "/farms/" + w.Farm + "/"
	return map[string]string{
		"overview": in, "matrix": in + "matrix", "rollouts": in + "rollouts", "timeline": in + "timeline", "calendar": in + "calendar",
		"nodes": in + "nodes", "drift": in + "drift", "events": in + "events", "farm": in + "farm",
		"site": in + "sites/" + w.Site, "rollout": in + "rollouts/" + rollout, "preflight": in + "sites/" + w.Site + "/preflight",
	}
}

// Every page is readable by all, at every width, in both themes, and the browser has
// nothing to complain of.
func TestEveryPage(t *testing.T) {
	w := worldOf(t, lab.Options{Layout: lab.Layout{Nodes: 4}})
	w.settled(t)
	d, err := w.Controller.Describe(t.Context(), w.Farm, w.Site)
	if err != nil {
		t.Fatal(err)
	}
	b := browse(t, w, w.Token)
	all := pages(w, d.Rollouts[0].ID)
	all["target"] = "/farms/" + w.Farm + "/targets/" + strings.ReplaceAll(d.Places[0].Target.Name, "/", "%2F")
	for _, theme := range []string{"light", "dark"} {
		b.run(fmt.Sprintf("localStorage.setItem('theme', %q)", theme))
		for name, path := range all {
			for _, width := range []int64{390, 900, 1440} {
				b.do(chromedp.EmulateViewport(width, 900))
				b.goTo(path)
				wide, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](`document.documentElement.scrollWidth > innerWidth`))
				if err != nil || wide {
					t.Errorf("%s at %d is wider than the window (%v)", name, width, err)
				}
				b.picture(fmt.Sprintf("%s-%d-%s", name, width, theme))
			}
			b.accessible(name + " " + theme)
		}
	}
}
