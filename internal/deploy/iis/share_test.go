package iis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/ccs"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/hosttest"
)

// farmOf is a share and the servers that read it.
type farmOf struct {
	files *hosttest.Faulty
	nodes map[string]*windows
	away  map[string]bool
	look  deploy.Look
}

const shareFolder = "/srv/certs"

// newFarm has three servers: the first serves a person's certificate, the second has no
// binding yet, the third reads the share already.
func newFarm(t *testing.T) *farmOf {
	t.Helper()
	m := &hosttest.Mem{}
	must(t, m.Mkdir(t.Context(), shareFolder, private))
	f := &farmOf{&hosttest.Faulty{Linked: m}, map[string]*windows{}, map[string]bool{}, nil}
	f.nodes["iis1"], f.nodes["iis2"], f.nodes["iis3"] = newWindows(deploytest.Names...), newWindows(), newWindows(deploytest.Names...)
	f.nodes["iis1"].person(deploytest.Names, bundle(t))
	third := f.nodes["iis3"]
	third.provider = fakeProvider{there: true, enabled: true, location: `\\FILES\certs\`, user: "reader", interval: 300}
	for i := range third.bindings[1:] {
		third.bindings[1+i].flags = flagsCentral
	}
	third.records = append(third.records, fakeRecord{"*:443", "", appID, "", "Disabled"})
	return f
}

// target opens a store on the share that changes the servers, too.
func (f *farmOf) target(t *testing.T, edit func(*ccs.Options)) deploy.Deployer {
	t.Helper()
	o := ccs.Defaults()
	o.Path, o.Location, o.Names = shareFolder, `\\files\certs`, deploytest.Names
	o.Mode, o.Account, o.Sites, o.Create = Bindings, `CORP\reader`, []string{"Shop"}, true
	if edit != nil {
		edit(&o)
	}
	_, _, err := o.Facts()
	must(t, err)
	files := ccs.New(ccs.Setup{Files: f.files, Password: secret(), Options: o, Look: f.look})
	return OfShare(files, o, deploy.Setup{
		Secrets: map[string]farm.Secret{ccs.StorePassword: secret(), ccs.ReaderPassword: farm.NewSecret([]byte("reader-password"))},
		Readers: slices.Sorted(maps.Keys(f.nodes)), Node: f.node,
	})
}

func (f *farmOf) node(_ context.Context, name string) (host.Host, error) {
	w, ok := f.nodes[name]
	if !ok {
		return nil, fmt.Errorf("there is no node %s", name)
	}
	if f.away[name] {
		return nil, fmt.Errorf("connecting: %w", host.ErrUnreachable)
	}
	return w, nil
}

// stored are the files that IIS reads.
func (f *farmOf) stored() (all []string) {
	for name, data := range f.files.Linked.(*hosttest.Mem).Tree() {
		if path.Dir(name) == shareFolder && data != "/" {
			all = append(all, path.Base(name))
		}
	}
	slices.Sort(all)
	return all
}

// state is all that a step may change, but for what is staged.
func (f *farmOf) state() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(f.nodes)) {
		w := f.nodes[name]
		var http []string
		for _, r := range w.records {
			http = append(http, fmt.Sprint(r))
		}
		slices.Sort(http)
		fmt.Fprintf(&b, "%s: enabled %t, bindings %v\n%s\n", name, w.provider.enabled, w.bindings, strings.Join(http, "\n"))
	}
	return b.String() + strings.Join(f.stored(), " ")
}

// scripts counts what was run on a node.
func (w *windows) scripts() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.stdins)
}

// A share and three servers become one store: each server is given what it lacks, and
// nothing more. The next certificate is files alone, and all can be given back.
func TestShare(t *testing.T) {
	f := newFarm(t)
	d, before, foreign := f.target(t, nil), f.state(), f.nodes["iis1"].foreign()
	r := install(t, d, bundle(t))
	for _, name := range []string{"iis1", "iis2"} {
		w := f.nodes[name]
		p := w.provider
		if !p.enabled || p.location != `\\files\certs` || p.user != `CORP\reader` || p.password != "reader-password" || p.key != string(secret().Reveal()) || p.interval != 300 {
			t.Errorf("%s: the provider is %+v", name, p)
		}
		if len(w.bindings) != 3 || w.bindings[1].flags != flagsCentral || w.bindings[2].flags != flagsCentral || strings.Contains(w.netsh(), "example.org") || w.foreign() != foreign+"*:443  "+appID+"  Disabled\n" {
			t.Errorf("%s: bindings are %+v, http.sys has\n%s", name, w.bindings, w.netsh())
		}
	}
	if n := f.nodes["iis3"].scripts(); n != 1 {
		t.Errorf("on the server that lacks nothing %d scripts were run", n)
	}
	if text := string(r.Note); strings.Contains(text, "password") || strings.Contains(text, "iis3") || r.Lag != 5*time.Minute || r.Wait != 2*nodeTime {
		t.Errorf("the receipt is %+v, %s", r, text)
	}
	f.serves(t, d)

	second, err := d.Stage(t.Context(), stageOf(bundle(t)))
	must(t, err)
	looked := f.nodes["iis1"].scripts()
	must(t, d.Activate(t.Context(), []deploy.Receipt{second}))
	must(t, d.Restore(t.Context(), []deploy.Receipt{second}))
	if f.nodes["iis1"].scripts() != looked {
		t.Error("a renewal ran scripts on the servers")
	}
	f.serves(t, d)
	must(t, d.Restore(t.Context(), []deploy.Receipt{r}))
	if f.state() != before {
		t.Errorf("it was\n%s\nand is\n%s", before, f.state())
	}
	f.nodes["iis3"].bindings[1].flags = flagSNI
	if in, err := d.Inspect(t.Context()); err != nil || in.Mismatch || len(in.Leaves) != 0 {
		t.Errorf("without files it holds %+v (%v)", in, err)
	}
}

func (f *farmOf) serves(t *testing.T, d deploy.Deployer) {
	t.Helper()
	if in, err := d.Inspect(t.Context()); err != nil || in.Mismatch || len(in.Leaves) != 1 || len(f.stored()) != 2 {
		t.Errorf("holds %+v (%v), in %q", in, err, f.stored())
	}
}

// One binding that http.sys does not have as it was meant, at any of the servers, and
// the files and all the others are what they were.
func TestShareGoesBackAsAWhole(t *testing.T) {
	next := bundle(t)
	for wrong, node := range []string{"iis1", "iis2", "iis3"} {
		f := newFarm(t)
		for i := range f.nodes["iis3"].bindings[1:] {
			f.nodes["iis3"].bindings[1+i].flags = 0
		}
		d, before := f.target(t, nil), f.state()
		r, err := d.Stage(t.Context(), stageOf(next))
		must(t, err)
		w := f.nodes[node]
		w.meddle = func() { w.meddle = nil; w.bind("10.0.0.9:8443", strings.Repeat("ef", 20), "My") }
		err = d.Activate(t.Context(), []deploy.Receipt{r})
		if err == nil || !strings.Contains(err.Error(), "node "+node) || !strings.Contains(err.Error(), "10.0.0.9:8443 changed") {
			t.Errorf("got %v", err)
		}
		if wrong == 0 && f.nodes["iis2"].scripts()+f.nodes["iis3"].scripts() > 2*2 { // a look at Stage, and one to go back
			t.Error("the others were changed after the first had failed")
		}
		w.drop("10.0.0.9:8443")
		if f.state() != before {
			t.Errorf("%s: it was\n%s\nand is\n%s", node, before, f.state())
		}
	}
}

// A server that is away when all is staged is left as it is, and brought there the next
// time; one that goes away later brings all back.
func TestShareWithAServerAway(t *testing.T) {
	f := newFarm(t)
	f.away["iis2"] = true
	d, next := f.target(t, nil), bundle(t)
	install(t, d, next)
	f.serves(t, d)
	if p := f.nodes["iis2"].provider; p.enabled || !f.nodes["iis1"].provider.enabled {
		t.Errorf("the provider of a server that is away is %+v", p)
	}
	f.away["iis2"] = false
	if in, err := d.Inspect(t.Context()); err != nil || !in.Mismatch {
		t.Errorf("a server that does not read the store is no mismatch: %+v (%v)", in, err)
	}
	before := f.state()
	r, err := d.Stage(t.Context(), stageOf(next))
	must(t, err)
	f.away["iis2"] = true
	if err := d.Activate(t.Context(), []deploy.Receipt{r}); !errors.Is(err, host.ErrUnreachable) || f.state() != before {
		t.Errorf("got %v, and there is\n%s", err, f.state())
	}
	f.away["iis2"] = false
	must(t, d.Activate(t.Context(), []deploy.Receipt{r}))
	f.serves(t, d)
}

// A first activation is cut after each of its scripts, whose answer is lost: all is given
// back, on the share, too.
func TestShareCut(t *testing.T) {
	next := bundle(t)
	for n := 0; ; n++ {
		f := newFarm(t)
		d, before := f.target(t, nil), f.state()
		r, err := d.Stage(t.Context(), stageOf(next))
		must(t, err)
		var mu sync.Mutex
		runs, real := 0, map[*windows]func(context.Context, []string, []byte) ([]byte, error){}
		for _, w := range f.nodes {
			exec := w.Exec
			real[w] = exec
			w.Exec = func(ctx context.Context, argv []string, stdin []byte) ([]byte, error) {
				mu.Lock()
				defer mu.Unlock()
				if runs++; runs <= n {
					return exec(ctx, argv, stdin)
				}
				if runs == n+1 { // it is done, and the answer is lost
					_, _ = exec(ctx, argv, stdin)
				}
				return nil, host.ErrUnreachable
			}
		}
		err = d.Activate(t.Context(), []deploy.Receipt{r})
		for w, exec := range real {
			w.Exec = exec
		}
		must(t, d.Restore(t.Context(), []deploy.Receipt{r}))
		if f.state() != before {
			t.Errorf("cut %d: it was\n%s\nand is\n%s", n, before, f.state())
		}
		if err == nil {
			if n < 6 {
				t.Errorf("an activation is done after %d scripts", n)
			}
			return
		}
	}
}

// The canary's bindings are there before its file is asked for, and those of the live
// names only when all servers serve it.
func TestShareWithCanary(t *testing.T) {
	const bird = "canary.example.org"
	b, err := encode.Placeholder(append([]string{bird}, deploytest.Names...), time.Now())
	must(t, err)
	f := newFarm(t)
	var asked string
	f.look = func(_ context.Context, sni string, _ []string) error {
		asked = fmt.Sprint(sni, f.stored())
		for name, w := range f.nodes {
			i := slices.IndexFunc(w.bindings, func(b fakeBinding) bool { return strings.HasSuffix(b.info, bird) })
			if i < 0 || w.bindings[i].flags != flagsCentral || !w.provider.enabled {
				t.Errorf("%s is asked for the canary, and has %+v", name, w.bindings)
			}
		}
		if !strings.Contains(f.nodes["iis1"].netsh(), deploytest.Names[0]) {
			t.Error("a live name was changed before the canary was seen")
		}
		return nil
	}
	d := f.target(t, func(o *ccs.Options) { o.Canary = bird })
	before := f.state()
	r := install(t, d, b)
	if asked != bird+"["+bird+".pfx]" || len(f.stored()) != 3 {
		t.Errorf("asked %q, and then there are %q", asked, f.stored())
	}
	must(t, d.Restore(t.Context(), []deploy.Receipt{r}))
	if f.state() != before {
		t.Errorf("it was\n%s\nand is\n%s", before, f.state())
	}
}

// Two sites on one share are made live by the hands of either. What one gives back the
// other does not miss.
func TestTwoSitesOfAShare(t *testing.T) {
	f := newFarm(t)
	own := func(name string) deploy.Deployer {
		return f.target(t, func(o *ccs.Options) { o.Names = []string{name} })
	}
	a, b := own(deploytest.Names[0]), own(deploytest.Names[1])
	var rs []deploy.Receipt
	for i, d := range []deploy.Deployer{a, b} {
		s := stageOf(bundle(t))
		s.Site = fmt.Sprint(i)
		r, err := d.Stage(t.Context(), s)
		must(t, err)
		rs = append(rs, r)
	}
	plain := f.target(t, func(o *ccs.Options) { o.Mode, o.Bound, o.Account, o.Location = None, ccs.Bound{}, "", "" })
	before := f.state()
	must(t, a.Activate(t.Context(), rs))
	if w := f.nodes["iis1"]; w.bindings[1].flags != flagsCentral || w.bindings[2].flags != flagsCentral || len(f.stored()) != 2 {
		t.Errorf("bindings are %+v, files %q", w.bindings, f.stored())
	}
	must(t, b.Restore(t.Context(), rs[1:]))
	if w := f.nodes["iis1"]; !w.provider.enabled || w.bindings[1].flags+w.bindings[2].flags != flagsCentral+flagSNI || len(f.stored()) != 1 {
		t.Errorf("the provider is %+v, bindings are %+v, files %q", w.provider, w.bindings, f.stored())
	}
	must(t, plain.Restore(t.Context(), rs[:1]))
	if f.state() != before {
		t.Errorf("it was\n%s\nand is\n%s", before, f.state())
	}
}

// What a share refuses while nothing has changed, and what it finds on the servers.
func TestShareRefusesAndAudits(t *testing.T) {
	f := newFarm(t)
	refused := func(want string, edit func(*ccs.Options)) {
		t.Helper()
		before := f.state()
		if _, err := f.target(t, edit).Stage(t.Context(), stageOf(bundle(t))); err == nil || !strings.Contains(err.Error(), want) || f.state() != before {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	refused("node iis3: the Centralized Certificate Store of the node is", func(o *ccs.Options) { o.Location = `\\old\certs` })
	refused("node iis1: the Centralized Certificate Store is not enabled on the node, and no account", func(o *ccs.Options) { o.Account = "" })
	refused(`IIS has no site "Fish"`, func(o *ccs.Options) { o.Sites = []string{"Fish"} })
	refused("node iis2: IIS has no HTTPS binding", func(o *ccs.Options) { o.Create = false })
	nobody := f.target(t, nil).(*share)
	nobody.readers = nil
	if _, err := nobody.Stage(t.Context(), stageOf(bundle(t))); err == nil || !strings.Contains(err.Error(), "under `on`") {
		t.Errorf("got %v", err)
	}
	d := f.target(t, func(o *ccs.Options) { o.PollingInterval = "1m" })
	install(t, d, bundle(t))
	f.nodes["iis1"].bindings[1].flags = flagSNI
	f.nodes["iis2"].provider.enabled = false
	f.away["iis2"] = false
	found := func() (all []string) {
		flaws, err := d.(deploy.Auditor).Audit(t.Context(), deploy.Audit{Now: time.Now(), Names: deploytest.Names})
		must(t, err)
		for _, w := range flaws {
			all = append(all, w.Trouble+" "+w.Place)
		}
		return all
	}
	want := []string{
		"unread iis1: *:443:" + deploytest.Names[0],
		"unread iis2: Centralized Certificate Store",
		"unread iis3: Centralized Certificate Store", // it polls every five minutes
	}
	if got := found(); !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}

// Only what IIS reads is changed: the modes of a share.
func TestModesOfAShare(t *testing.T) {
	f := newFarm(t)
	d := f.target(t, func(o *ccs.Options) { o.Mode, o.Bound = StoreOnly, ccs.Bound{} })
	http := f.nodes["iis1"].netsh()
	r := install(t, d, bundle(t))
	if w := f.nodes["iis1"]; !w.provider.enabled || w.netsh() != http || w.bindings[1].flags != flagSNI {
		t.Errorf("store-only: the provider is %+v, bindings are %+v", w.provider, w.bindings)
	}
	f.serves(t, d)
	must(t, d.Restore(t.Context(), []deploy.Receipt{r}))
	if f.nodes["iis1"].provider.enabled {
		t.Error("the provider was not given back")
	}
	before := f.nodes["iis1"].scripts()
	install(t, f.target(t, func(o *ccs.Options) { o.Mode, o.Bound, o.Account, o.Location = None, ccs.Bound{}, "", "" }), bundle(t))
	if f.nodes["iis1"].scripts() != before {
		t.Error("mode none ran a script")
	}
}

func TestContractOfShare(t *testing.T) {
	opened := map[string]farm.Bundle{}
	deploytest.Run(t, func(t *testing.T) deploytest.Bench {
		cutElsewhere(t, "package ccs, and between the scripts in TestShareCut")
		f := newFarm(t)
		of := deploytest.Target{Deployer: f.target(t, nil), Keys: []farm.KeyType{farm.EC256}}
		for _, name := range deploytest.Names {
			at := shareFolder + "/" + name + ".pfx"
			of.Live = append(of.Live, [2]string{at, at})
		}
		return deploytest.Bench{
			Host: f.files, Target: of, Bare: true,
			Open: func(data []byte) (chain, key []byte, err error) {
				b, known := opened[string(data)]
				if !known {
					if b, err = encode.OpenPFX(data, secret()); err != nil {
						return nil, nil, err
					}
					opened[string(data)] = b
				}
				return b.Chain, b.Key.Reveal(), nil
			},
		}
	})
}
