package web_test

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"log/slog"
	"maps"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
func browse(t *testing.T, url, token string) *tab {
	t.Helper()
	b := open(t, url)
	b.do(chromedp.Navigate(url+"/login"), chromedp.SetValue("#token", token), chromedp.Click("main form button"), chromedp.WaitVisible(".side"))
	return b
}

func open(t *testing.T, url string) *tab {
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
	b := &tab{t: t, ctx: ctx, at: url}
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
	shot, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err == nil {
		shot, err = smaller(shot)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(screens, name+".png"), shot, 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// smaller is a picture with its 256 most frequent colours, which is all that a page has
// but for the edges of letters.
func smaller(shot []byte) ([]byte, error) {
	whole, err := png.Decode(bytes.NewReader(shot))
	if err != nil {
		return nil, err
	}
	count, size := map[color.Color]int{}, whole.Bounds()
	for y := range size.Dy() {
		for x := range size.Dx() {
			count[whole.At(x, y)]++
		}
	}
	all := slices.SortedFunc(maps.Keys(count), func(a, b color.Color) int { return count[b] - count[a] })
	few := image.NewPaletted(size, all[:min(len(all), 256)])
	nearest := map[color.Color]uint8{}
	for _, c := range all {
		nearest[c] = uint8(few.Palette.Index(c))
	}
	for y := range size.Dy() {
		for x := range size.Dx() {
			few.SetColorIndex(x, y, nearest[whole.At(x, y)])
		}
	}
	var out bytes.Buffer
	err = (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, few)
	return out.Bytes(), err
}

// pages are those that the tests look at, by name. The preflight is before the page of
// the site, which shows what it found.
func (d *demo) pages() (all []sight) {
	d.Helper()
	in := "/farms/" + d.Farm + "/"
	running, err := d.Controller.Rollout(d.Context(), d.Farm, "checkout")
	if err != nil {
		d.Fatal(err)
	}
	for _, p := range []sight{
		{"overview", ""}, {"matrix", "matrix"}, {"rollouts", "rollouts"}, {"rollout", "rollouts/" + running.ID}, {"timeline", "timeline"}, {"calendar", "calendar?names=500&lifetime=45"},
		{"nodes", "nodes"}, {"node", "nodes/mail1"}, {"node-policy", "nodes/app1/policy"}, {"drift", "drift"}, {"events", "events"},
		{"notifications", "notifications"}, {"farm", "farm"},
		{"preflight", "sites/checkout/preflight"}, {"site", "sites/checkout"}, {"site-per-node", "sites/ledger"}, {"import", "sites/careers/import"},
		{"target", "targets/" + url.PathEscape("mail/files@mail1")},
	} {
		all = append(all, sight{p.name, in + p.path})
	}
	return append(all, sight{"access", "/access"}, sight{"audit", "/audit"}, sight{"proof", "/audit/proof"})
}

// A sight is a page that is looked at.
type sight struct{ name, path string }

// Every page is readable by all, at every width, in both themes, and the browser has
// nothing to complain of.
func TestEveryPage(t *testing.T) {
	d := demoOf(t)
	b := browse(t, d.URL, d.Token)
	for _, p := range d.pages() {
		for _, theme := range []string{"light", "dark"} {
			b.run(fmt.Sprintf("localStorage.setItem('theme', %q)", theme))
			b.goTo(p.path)
			for _, width := range []int64{390, 900, 1440} {
				b.do(chromedp.EmulateViewport(width, 900))
				wide, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](`document.documentElement.scrollWidth > innerWidth`))
				if err != nil || wide {
					t.Errorf("%s at %d is wider than the window (%v)", p.name, width, err)
				}
				b.picture(fmt.Sprintf("%s-%d-%s", p.name, width, theme))
			}
			b.accessible(p.name + " " + theme)
		}
	}
}
