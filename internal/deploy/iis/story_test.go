package iis

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/hosttest"
)

// refusing is a node on which PowerShell fails with a text.
type refusing struct {
	host.Host
	text string
}

func (r refusing) Run(_ context.Context, argv []string, _ []byte) ([]byte, error) {
	return nil, &host.ExitError{Argv: argv, Status: 1, Output: []byte(r.text + "\r\n")}
}

// target opens a target on a node.
func target(t *testing.T, w *windows, edit func(*Options)) deploy.Deployer {
	t.Helper()
	d, err := open(options(t, edit), deploy.Setup{Host: w, Secrets: map[string]farm.Secret{
		StorePassword: secret(), AccountPassword: farm.NewSecret([]byte("reader-password")),
	}})
	must(t, err)
	return d
}

func stageOf(b farm.Bundle) deploy.Stage {
	return deploy.Stage{Site: "shop", Names: deploytest.Names, Bundles: []farm.Bundle{b}, Epoch: 1}
}

func install(t *testing.T, d deploy.Deployer, b farm.Bundle) deploy.Receipt {
	t.Helper()
	r, err := d.Stage(t.Context(), stageOf(b))
	must(t, err)
	must(t, d.Activate(t.Context(), []deploy.Receipt{r}))
	return r
}

// foreign is what of a node is no affair of ours, as text.
func (w *windows) foreign() string {
	var b strings.Builder
	for _, r := range w.records {
		if !strings.Contains(r.at, "example.org") {
			b.WriteString(strings.Join([]string{r.at, r.hash, r.app, r.store, r.client}, " ") + "\n")
		}
	}
	return b.String()
}

func bundle(t *testing.T) farm.Bundle { return deploytest.NewBundle(t, farm.EC256) }

// The old certificate stays until Discard; then ours goes with its key, and a
// person's stays. Nothing else on the node is touched.
func TestOldCertificates(t *testing.T) {
	w := newWindows(deploytest.Names...)
	d, before := target(t, w, nil), w.foreign()
	persons, first, second := bundle(t), bundle(t), bundle(t)
	w.person(deploytest.Names, persons)
	has := func(want ...farm.Bundle) {
		t.Helper()
		if len(w.certs) != len(want) {
			t.Fatalf("%d certificates, want %d", len(w.certs), len(want))
		}
		for _, b := range want {
			if _, ok := w.certs["My "+thumbOf(b)]; !ok {
				t.Fatalf("%s is not there", b)
			}
		}
	}
	r := install(t, d, first)
	has(persons, first)
	must(t, d.Discard(t.Context(), r))
	has(persons, first)
	r = install(t, d, second)
	has(persons, first, second)
	w.bindings = append(w.bindings, fakeBinding{"Böse", "10.0.0.9:443:", 0})
	w.bind("10.0.0.9:443", thumbOf(first), "My") // a person uses it elsewhere
	must(t, d.Discard(t.Context(), r))
	has(persons, first, second)
	w.drop("10.0.0.9:443")
	must(t, d.Discard(t.Context(), r))
	has(persons, second)
	if got := w.foreign(); got != before {
		t.Errorf("it was\n%s\nand is\n%s", before, got)
	}
	for _, text := range w.stdins {
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
		must(t, err)
		if strings.Contains(string(raw), "PRIVATE KEY") {
			t.Error("a key went over the line in the clear")
		}
	}
}

// Two targets with one certificate: it goes when neither holds it.
func TestTwoTargetsWithOneCertificate(t *testing.T) {
	w := newWindows(deploytest.Names...)
	a := target(t, w, func(o *Options) { o.Names = deploytest.Names[:1] })
	b := target(t, w, func(o *Options) { o.Names = deploytest.Names[1:] })
	first, second := bundle(t), bundle(t)
	install(t, a, first)
	install(t, b, first)
	ra := install(t, a, second)
	must(t, a.Discard(t.Context(), ra))
	if _, ok := w.certs["My "+thumbOf(first)]; !ok {
		t.Fatal("a certificate that another target serves was taken away")
	}
	rb := install(t, b, second)
	must(t, b.Discard(t.Context(), rb))
	if _, ok := w.certs["My "+thumbOf(first)]; ok || len(w.certs) != 1 {
		t.Fatalf("there are %d certificates", len(w.certs))
	}
}

// A first installation goes back to what was there: bindings without a certificate,
// and none where it made one.
func TestFirstGoesBackToNothing(t *testing.T) {
	w := newWindows("www.example.org")
	d := target(t, w, func(o *Options) { o.Sites, o.Create = []string{"Shop"}, true })
	bindings, records := len(w.bindings), w.netsh()
	r := install(t, d, bundle(t))
	if len(w.bindings) != bindings+1 || w.bindings[bindings] != (fakeBinding{"Shop", "*:443:example.org", flagSNI}) {
		t.Fatalf("bindings are %+v", w.bindings)
	}
	must(t, d.Restore(t.Context(), []deploy.Receipt{r}))
	must(t, d.Discard(t.Context(), r))
	if len(w.bindings) != bindings || w.netsh() != records || len(w.certs) != 0 || len(w.registry) != 0 {
		t.Errorf("left are %+v, %d certificates, %v and\n%s", w.bindings, len(w.certs), w.registry, w.netsh())
	}
}

// What changes beside what was meant makes the activation fail, and what was live is
// live again.
func TestWhatWasNotMeantIsSeen(t *testing.T) {
	for want, meddle := range map[string]func(w *windows){
		"other.example.net:443 changed": func(w *windows) { w.bind("other.example.net:443", strings.Repeat("ef", 20), "My") },
		"lost settings":                 func(w *windows) { w.records[len(w.records)-1].client = "Enabled" },
		"has no certificate":            func(w *windows) { w.records[len(w.records)-1].hash = "" },
	} {
		w := newWindows(deploytest.Names...)
		d, old := target(t, w, nil), bundle(t)
		install(t, d, old)
		r, err := d.Stage(t.Context(), stageOf(bundle(t)))
		must(t, err)
		w.meddle = func() { w.meddle = nil; meddle(w) }
		if err := d.Activate(t.Context(), []deploy.Receipt{r}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		if in, err := d.Inspect(t.Context()); err != nil || len(in.Leaves) != 1 || in.Leaves[0] != old.Leaf || in.Mismatch {
			t.Errorf("%s: holds %+v (%v)", want, in, err)
		}
	}
}

// A binding that somebody else changed since Stage is left alone, both ways.
func TestSomebodyElseWasThere(t *testing.T) {
	w := newWindows(deploytest.Names...)
	d := target(t, w, nil)
	install(t, d, bundle(t))
	r, err := d.Stage(t.Context(), stageOf(bundle(t)))
	must(t, err)
	night := bundle(t)
	w.person(deploytest.Names[:1], night)
	if err := d.Activate(t.Context(), []deploy.Receipt{r}); !errors.Is(err, errForeign) {
		t.Fatalf("got %v", err)
	}
	if err := d.Restore(t.Context(), []deploy.Receipt{r}); !errors.Is(err, errForeign) {
		t.Fatalf("got %v", err)
	}
	if in, err := d.Inspect(t.Context()); err != nil || len(in.Leaves) != 2 || in.Leaves[0] != night.Leaf || !in.Mismatch {
		t.Fatalf("holds %+v (%v)", in, err)
	}
}

// What cannot be switched without touching others is refused while nothing has
// changed.
func TestRefused(t *testing.T) {
	for want, c := range map[string]struct {
		edit func(*Options)
		node func(w *windows)
	}{
		"no HTTPS binding": {nil, func(w *windows) { w.bindings = w.bindings[:1] }},
		"which is not meant": {
			func(o *Options) { o.Sites = []string{"Shop"} },
			func(w *windows) {
				w.bindings = append(w.bindings, fakeBinding{"Shop", "*:443:", 0}, fakeBinding{"Böse", "*:443:third.example.net", 0})
			},
		},
		"another program": {
			func(o *Options) { o.Sites, o.Ports = []string{"Shop"}, []int{8172} },
			func(w *windows) { w.bindings = append(w.bindings, fakeBinding{"Shop", "*:8172:", 0}) },
		},
		"Centralized Certificate Store": {nil, func(w *windows) { w.bindings[1].flags = 3 }},
		`no site "Shop"`: {
			func(o *Options) { o.Sites, o.Create = []string{"Shop"}, true },
			func(w *windows) { w.sites = w.sites[1:] },
		},
	} {
		w := newWindows(deploytest.Names...)
		c.node(w)
		d, before := target(t, w, c.edit), w.netsh()
		if _, err := d.Stage(t.Context(), stageOf(bundle(t))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		if w.netsh() != before || len(w.certs) != 0 || len(w.registry) != 0 {
			t.Errorf("%s: something was changed", want)
		}
	}
}

// A binding without a host name is meant only where its site is named.
func TestBindingsWithoutName(t *testing.T) {
	w := newWindows()
	w.bindings = append(w.bindings, fakeBinding{"Shop", "10.0.0.7:443:", 0}, fakeBinding{"Böse", "*:443:", 0})
	next := bundle(t)
	install(t, target(t, w, func(o *Options) { o.Sites = []string{"shop"} }), next)
	if r := w.records[len(w.records)-1]; r.at != "10.0.0.7:443" || r.hash != thumbOf(next) || len(w.records) != 3 {
		t.Errorf("http.sys has\n%s", w.netsh())
	}
}

// A node's own store: the provider is enabled with its settings, bindings get the
// flag, and all is given back with the first installation.
func TestCentralStore(t *testing.T) {
	w := newWindows("www.example.org")
	w.person([]string{"www.example.org"}, bundle(t))
	must(t, w.Mkdir(t.Context(), "/certs", private))
	own := func(o *Options) {
		o.Store, o.Path, o.User, o.Sites, o.Create = Central, "/certs", `.\reader`, []string{"Shop"}, true
	}
	d, before, next := target(t, w, own), w.netsh(), bundle(t)
	r := install(t, d, next)
	p := w.provider
	if !p.enabled || p.location != `\certs` || p.user != `.\reader` || p.password != "reader-password" || p.key != string(secret().Reveal()) || p.interval != 300 || r.Lag != 5*time.Minute {
		t.Errorf("the provider is %+v, the lag %s", p, r.Lag)
	}
	if w.bindings[1].flags != 3 || w.bindings[2] != (fakeBinding{"Shop", "*:443:example.org", 3}) || strings.Contains(w.netsh(), "www.example.org") || !strings.Contains(w.netsh(), "*:443") {
		t.Errorf("bindings are %+v, http.sys has\n%s", w.bindings, w.netsh())
	}
	if in, err := d.Inspect(t.Context()); err != nil || in.Mismatch || len(in.Leaves) != 1 || in.Leaves[0] != next.Leaf {
		t.Errorf("holds %+v (%v)", in, err)
	}
	if strings.Contains(string(r.Note), "password") {
		t.Error("the receipt holds a password")
	}
	w.bindings[1].flags = 1 // drift
	if in, err := d.Inspect(t.Context()); err != nil || !in.Mismatch {
		t.Errorf("holds %+v (%v)", in, err)
	}
	w.bindings[1].flags = 3
	must(t, d.Restore(t.Context(), []deploy.Receipt{r}))
	if w.provider.enabled || len(w.bindings) != 2 || w.bindings[1].flags != 1 || w.netsh() != before {
		t.Errorf("provider %+v, bindings %+v, http.sys has\n%s\nand had\n%s", w.provider, w.bindings, w.netsh(), before)
	}
}

// The scripts of a first activation and of its restoration, cut one by one, before and
// after: all is given back.
func TestCentralStoreCut(t *testing.T) {
	next := bundle(t)
	for n := range 12 {
		w := newWindows("www.example.org")
		w.person([]string{"www.example.org"}, next)
		f := &hosttest.Faulty{Linked: w}
		d, before := centralTarget(t, w, f, "/certs").Deployer, w.netsh()
		r, err := d.Stage(t.Context(), stageOf(next))
		must(t, err)
		real, runs := w.Exec, 0
		w.Exec = func(ctx context.Context, argv []string, stdin []byte) ([]byte, error) {
			if runs++; runs > n/2 {
				if runs == n/2+1 && n%2 == 1 { // it is done, and the answer is lost
					_, _ = real(ctx, argv, stdin)
				}
				return nil, host.ErrUnreachable
			}
			return real(ctx, argv, stdin)
		}
		_ = d.Activate(t.Context(), []deploy.Receipt{r})
		w.Exec = real
		must(t, d.Restore(t.Context(), []deploy.Receipt{r}))
		if w.provider.enabled || len(w.bindings) != 2 || w.bindings[1].flags != 1 || w.netsh() != before {
			t.Errorf("cut %d: provider %+v, bindings %+v, http.sys has\n%s", n, w.provider, w.bindings, w.netsh())
		}
	}
}

// What a node's own store refuses, and what it leaves to others.
func TestCentralStoreOfOthers(t *testing.T) {
	w := newWindows(deploytest.Names...)
	must(t, w.Mkdir(t.Context(), "/certs", private))
	mode := func(mode, user string) func(o *Options) {
		return func(o *Options) { o.Store, o.Path, o.Mode, o.User = Central, "/certs", mode, user }
	}
	if _, err := target(t, w, mode(Bindings, "")).Stage(t.Context(), stageOf(bundle(t))); err == nil || !strings.Contains(err.Error(), "no account") {
		t.Errorf("got %v", err)
	}
	before := w.netsh()
	install(t, target(t, w, mode(None, "")), bundle(t))
	if len(w.stdins) > 1 || w.netsh() != before || w.provider.there {
		t.Error("mode none touched IIS")
	}
	r := install(t, target(t, w, mode(StoreOnly, "reader")), bundle(t))
	if !w.provider.enabled || w.netsh() != before {
		t.Error("mode store-only did not enable the provider, or touched bindings")
	}
	w.provider.location = `D:\central`
	if _, err := target(t, w, mode(Bindings, "reader")).Stage(t.Context(), stageOf(bundle(t))); err == nil || !strings.Contains(err.Error(), `D:\central`) {
		t.Errorf("got %v", err)
	}
	must(t, target(t, w, mode(StoreOnly, "reader")).Restore(t.Context(), []deploy.Receipt{r}))
	if w.provider.enabled {
		t.Error("the provider was not given back")
	}
	if _, err := open(options(t, mode(None, "")), deploy.Setup{Host: w}); err == nil || !strings.Contains(err.Error(), StorePassword) {
		t.Errorf("got %v", err)
	}
}

// Another site's binding keeps the store's entry in http.sys.
func TestCentralStoreSharesThePort(t *testing.T) {
	w := newWindows(deploytest.Names...)
	must(t, w.Mkdir(t.Context(), "/certs", private))
	d := target(t, w, func(o *Options) { o.Store, o.Path, o.User = Central, "/certs", "reader" })
	r := install(t, d, bundle(t))
	w.bindings[0].flags = 3
	must(t, d.Restore(t.Context(), []deploy.Receipt{r}))
	if !strings.Contains(w.netsh(), "*:443") || w.bindings[1].flags != 1 {
		t.Errorf("bindings %+v, http.sys has\n%s", w.bindings, w.netsh())
	}
}

// A binding for the address alone wins over a name.
func TestAudit(t *testing.T) {
	w := newWindows(deploytest.Names...)
	d := target(t, w, nil)
	install(t, d, bundle(t))
	audit := func(d deploy.Deployer) []deploy.Flaw {
		t.Helper()
		all, err := d.(deploy.Auditor).Audit(t.Context(), deploy.Audit{Now: time.Now(), Names: deploytest.Names})
		must(t, err)
		return all
	}
	w.bind("0.0.0.0:443", strings.Repeat("ef", 20), "My") // looked for last
	if all := audit(d); len(all) != 0 {
		t.Errorf("got %+v", all)
	}
	w.bind("10.0.0.7:443", strings.Repeat("ef", 20), "My")
	if all := audit(d); len(all) != 2 || all[0].Trouble != Overruled || !strings.Contains(all[0].Problem, "10.0.0.7:443") {
		t.Errorf("got %+v", all)
	}
	must(t, w.Mkdir(t.Context(), "/certs", private))
	own := target(t, w, func(o *Options) { o.Store, o.Path, o.User = Central, "/certs", "reader" })
	install(t, own, bundle(t))
	if all := audit(own); len(all) != 2 || all[0].Trouble != Overruled {
		t.Errorf("got %+v", all)
	}
}

// A key that Windows did not take is found by Stage, which takes away what it brought.
func TestImportWithoutKey(t *testing.T) {
	w := newWindows(deploytest.Names...)
	real := w.Exec
	w.Exec = func(ctx context.Context, argv []string, stdin []byte) ([]byte, error) {
		out, err := real(ctx, argv, stdin)
		for at, c := range w.certs {
			c.key = false
			w.certs[at] = c
		}
		return out, err
	}
	if _, err := target(t, w, nil).Stage(t.Context(), stageOf(bundle(t))); err == nil || !strings.Contains(err.Error(), "not there with its key") {
		t.Errorf("got %v", err)
	}
	if len(w.certs) != 0 || len(w.registry) != 0 {
		t.Errorf("left are %d certificates and %v", len(w.certs), w.registry)
	}
	wrong := bundle(t)
	wrong.Key = bundle(t).Key
	if _, err := target(t, w, nil).Stage(t.Context(), stageOf(wrong)); !errors.Is(err, encode.ErrMismatch) {
		t.Errorf("got %v", err)
	}
}

// A trial makes bindings of its own on a test machine, none beside live ones, and
// takes away all that it made.
func TestShadow(t *testing.T) {
	w := newWindows("www.example.org")
	before := w.netsh()
	live := options(t, func(o *Options) { o.Names, o.Sites = []string{"shop.example.net"}, []string{"Shop"} })
	for _, apart := range []bool{true, false} {
		trial, err := live.Shadow(deploy.Trial{Mark: "certfarm-selftest", Names: deploytest.Names, Apart: apart, Place: "first"})
		must(t, err)
		at := trial.Options.(Options)
		d := target(t, w, func(o *Options) { *o = at })
		install(t, d, bundle(t))
		if made := len(w.bindings) - 2; made != map[bool]int{true: 2, false: 0}[apart] || len(w.certs) != 1 || !trial.Bare || len(trial.Touches) == 0 {
			t.Errorf("apart %t: %d bindings made, %d certificates, %+v", apart, made, len(w.certs), trial)
		}
		must(t, trial.Drop(t.Context(), d))
		must(t, trial.Drop(t.Context(), d))
		if len(w.bindings) != 2 || len(w.certs) != 0 || len(w.registry) != 0 || w.netsh() != before {
			t.Errorf("apart %t: left are %+v, %d certificates, %v and\n%s", apart, w.bindings, len(w.certs), w.registry, w.netsh())
		}
	}
	own := options(t, func(o *Options) { o.Store, o.Path, o.User = Central, "/certs", "reader" })
	trial, err := own.Shadow(deploy.Trial{Mark: "certfarm-selftest", Names: deploytest.Names, Apart: true})
	must(t, err)
	if at := trial.Options.(Options); at.Mode != None || at.Path == "/certs" || len(trial.Live) != 2 {
		t.Errorf("got %+v", trial)
	}
}
