package ccs

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"path"
	"slices"
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

var now = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)

// shop is a store in memory for some names.
type shop struct {
	*Store
	mem  *hosttest.Mem
	host *hosttest.Faulty
}

func newShop(t *testing.T, change func(*Options)) shop {
	t.Helper()
	m := &hosttest.Mem{}
	must(t, m.Mkdir(t.Context(), "/srv/certs", host.Attr{Mode: 0o755}))
	o := Defaults()
	o.Path, o.Names = "/srv/certs", deploytest.Names
	change(&o)
	_, _, err := o.Facts()
	must(t, err)
	f := &hosttest.Faulty{Linked: m}
	return shop{New(Setup{Files: f, Password: secret(), Options: o}), m, f}
}

func plain(*Options) {}

func bundleFor(t *testing.T, names ...string) farm.Bundle {
	t.Helper()
	b, err := encode.Placeholder(names, now)
	must(t, err)
	return b
}

func (s shop) stage(t *testing.T, epoch int64, b farm.Bundle) deploy.Receipt {
	t.Helper()
	r, err := s.Stage(t.Context(), deploy.Stage{Site: "shop", Names: b.Names, Bundles: []farm.Bundle{b}, Epoch: epoch})
	must(t, err)
	return r
}

func (s shop) install(t *testing.T, epoch int64, b farm.Bundle) deploy.Receipt {
	t.Helper()
	r := s.stage(t, epoch, b)
	must(t, s.Activate(t.Context(), []deploy.Receipt{r}))
	return r
}

func (s shop) put(t *testing.T, file string, data []byte) {
	t.Helper()
	must(t, s.mem.Write(t.Context(), "/srv/certs/"+file, data, private))
}

// root is what IIS sees: the files of the root and their bytes.
func (s shop) root() map[string]string {
	files := map[string]string{}
	for name, data := range s.mem.Tree() {
		if path.Dir(name) == "/srv/certs" && data != "/" {
			files[path.Base(name)] = data
		}
	}
	return files
}

func (s shop) has(t *testing.T, files ...string) {
	t.Helper()
	if got := slices.Sorted(maps.Keys(s.root())); !slices.Equal(got, slices.Sorted(slices.Values(files))) {
		t.Fatalf("the store has %q, want %q", got, files)
	}
}

func TestFirstGoesBackToNothing(t *testing.T) {
	s, b := newShop(t, plain), bundleFor(t, deploytest.Names...)
	r := s.install(t, 1, b)
	s.has(t, "www.example.org.pfx", "example.org.pfx")
	for range 2 {
		must(t, s.Restore(t.Context(), []deploy.Receipt{r}))
		s.has(t)
	}
	must(t, s.Activate(t.Context(), []deploy.Receipt{r}))
	must(t, s.Restore(t.Context(), []deploy.Receipt{r}))
	must(t, s.Discard(t.Context(), r))
	if left := s.mem.Tree(); len(left) != 4 { // the root folder, /srv, the store, and the folder for stagings
		t.Errorf("there is %q", slices.Sorted(maps.Keys(left)))
	}
	s.install(t, 2, b)
	s.has(t, "www.example.org.pfx", "example.org.pfx")
}

// A failure at any file puts back those before it, byte by byte; a restoration
// brings back whatever was there, readable or not.
func TestAllNamesOrNone(t *testing.T) {
	names := []string{"a.example.org", "b.example.org", "c.example.org"}
	for n := range names {
		s := newShop(t, func(o *Options) { o.Names = names })
		old, err := encode.PFX(bundleFor(t, names...), encode.PFXOptions{Password: secret()})
		must(t, err)
		s.put(t, "a.example.org.pfx", old)
		s.put(t, "b.example.org.pfx", []byte("something broken"))
		s.put(t, "other.example.org.pfx", []byte("not ours"))
		before := s.root()
		r := s.stage(t, 1, bundleFor(t, names...))
		renames := 0
		s.host.Refuse = func(call string) error {
			if strings.HasPrefix(call, "rename ") {
				if renames++; renames == n+1 {
					return errors.New("no")
				}
			}
			return nil
		}
		if err := s.Activate(t.Context(), []deploy.Receipt{r}); err == nil {
			t.Fatal("a refusal is no error")
		}
		s.host.Mend()
		if !maps.Equal(before, s.root()) {
			t.Errorf("a failure at file %d left %q", n+1, slices.Sorted(maps.Keys(s.root())))
		}
		must(t, s.Activate(t.Context(), []deploy.Receipt{r}))
		if got := s.root(); got["a.example.org.pfx"] == string(old) || got["a.example.org.pfx"] != got["c.example.org.pfx"] || got["other.example.org.pfx"] != "not ours" {
			t.Error("it is not all live")
		}
		must(t, s.Restore(t.Context(), []deploy.Receipt{r}))
		if !maps.Equal(before, s.root()) {
			t.Errorf("a restoration left %q", slices.Sorted(maps.Keys(s.root())))
		}
	}
}

// Nothing is renamed before all that is needed lies on the server.
func TestNoRoomIsFoundBeforeTheFirstRename(t *testing.T) {
	s := newShop(t, plain)
	s.install(t, 1, bundleFor(t, deploytest.Names...))
	before := s.root()
	r := s.stage(t, 2, bundleFor(t, deploytest.Names...))
	for n := 1; n <= 3; n++ { // two files and the pointer
		s.host.FullAt = n
		if err := s.Activate(t.Context(), []deploy.Receipt{r}); err == nil {
			t.Fatalf("a disk that is full at write %d is no error", n)
		}
		s.host.Mend()
		if !maps.Equal(before, s.root()) {
			t.Fatalf("something was switched although the disk was full at write %d", n)
		}
	}
	must(t, s.Activate(t.Context(), []deploy.Receipt{r}))
}

func TestFilesOfNames(t *testing.T) {
	names := []string{"*.example.org", "example.org", "WWW.Example.org", "xn--bcher-kva.example"}
	s := newShop(t, func(o *Options) { o.Names = names })
	s.install(t, 1, bundleFor(t, "*.example.org", "example.org", "www.example.org", "xn--bcher-kva.example"))
	s.has(t, "_.example.org.pfx", "example.org.pfx", "www.example.org.pfx", "xn--bcher-kva.example.pfx", "bücher.example.pfx")
	for _, name := range []string{"", "*", "192.0.2.1", "2001:db8::1", "a/b", `a\b`, "..", "a..b", "a b", "*.*.example.org", "www.*.org"} {
		if files, err := fileNames(name); err == nil {
			t.Errorf("%q has the files %q", name, files)
		}
	}
}

// What is live already is not written again: every reader would load it anew.
func TestSameCertificateIsLeftAlone(t *testing.T) {
	s, b := newShop(t, plain), bundleFor(t, deploytest.Names...)
	s.install(t, 1, b)
	before := s.root()
	s.install(t, 2, b)
	if !maps.Equal(before, s.root()) {
		t.Error("the same certificate was written again")
	}
	s.options.Readers = Readers2016 // another cipher is a reason
	r := s.install(t, 3, b)
	for name, data := range s.root() {
		if cipher, err := encode.PFXCipherOf([]byte(data)); err != nil || cipher != encode.PFXLegacy {
			t.Errorf("%s is protected by %s (%v)", name, cipher, err)
		}
	}
	if r.Lag != 5*time.Minute {
		t.Errorf("the lag is %s", r.Lag)
	}
}

func TestStageRefuses(t *testing.T) {
	s := newShop(t, plain)
	b := bundleFor(t, deploytest.Names...)
	stage := func(bundles ...farm.Bundle) error {
		_, err := s.Stage(t.Context(), deploy.Stage{Site: "shop", Names: deploytest.Names, Bundles: bundles, Epoch: 1})
		return err
	}
	two := stage(b, deploytest.NewBundle(t, farm.RSA2048))
	if mistake, ok := errors.AsType[*deploy.FieldError](two); !ok || !strings.Contains(mistake.Problem, "one PFX file for each name") || mistake.Hint == "" {
		t.Errorf("two key types give %v", two)
	}
	if err := stage(bundleFor(t, "www.example.org")); err == nil {
		t.Error("a certificate that does not cover all names passed")
	}
	other, err := encode.PFX(b, encode.PFXOptions{Password: encode.NewPFXPassword()})
	must(t, err)
	s.put(t, "www.example.org.pfx", other)
	before := s.mem.Tree()
	if err := stage(b); !errors.Is(err, encode.ErrPassword) || !strings.Contains(err.Error(), "PrivateKeyPassword") {
		t.Errorf("a store with another password gives %v", err)
	}
	if !maps.Equal(before, s.mem.Tree()) {
		t.Error("something was changed")
	}
	must(t, s.mem.Remove(t.Context(), "/srv/certs"))
	if err := stage(b); err == nil || !strings.Contains(err.Error(), "the folder that IIS reads must be there") {
		t.Errorf("a store that is not there gives %v", err)
	}
}

// What a person does between Stage and Activate is not overwritten.
func TestSomebodyElseWasThere(t *testing.T) {
	s := newShop(t, plain)
	first := s.install(t, 1, bundleFor(t, deploytest.Names...))
	r := s.stage(t, 2, bundleFor(t, deploytest.Names...))
	s.put(t, "example.org.pfx", []byte("a person's"))
	before := s.root()
	for _, err := range []error{s.Activate(t.Context(), []deploy.Receipt{r}), s.Restore(t.Context(), []deploy.Receipt{first})} {
		if !errors.Is(err, errChanged) {
			t.Errorf("got %v", err)
		}
	}
	if s.root()["example.org.pfx"] != before["example.org.pfx"] {
		t.Error("a person's file was overwritten")
	}
	if in, err := s.Inspect(t.Context()); err != nil || !in.Mismatch {
		t.Errorf("holds %+v (%v)", in, err)
	}
}

func TestStagingBeside(t *testing.T) {
	s := newShop(t, func(o *Options) { o.Staging = `/srv/certs-staging` })
	s.install(t, 1, bundleFor(t, deploytest.Names...))
	for name := range s.mem.Tree() {
		if strings.HasPrefix(name, "/srv/certs/") && path.Ext(name) != ".pfx" {
			t.Errorf("there is %s", name)
		}
	}
}

func TestForgedReceipts(t *testing.T) {
	s := newShop(t, plain)
	good := s.stage(t, 1, bundleFor(t, deploytest.Names...))
	var n note
	must(t, json.Unmarshal(good.Note, &n))
	for name, change := range map[string]func(*note){
		"a folder of others": func(n *note) { n.Folder = "/srv/certs" },
		"a way out":          func(n *note) { n.Folder = "/srv/../etc/0123456789abcdef/1-a" },
		"a root with a way":  func(n *note) { n.Root = "/srv/certs/.." },
		"no file":            func(n *note) { n.Files = nil },
		"a file elsewhere":   func(n *note) { n.Files[0].Name = "../x.pfx" },
		"no PFX":             func(n *note) { n.Files[0].Name = "web.config" },
		"a hidden file":      func(n *note) { n.Files[0].Name = ".pfx" },
		"no hash":            func(n *note) { n.New = "x" },
		"no leaf":            func(n *note) { n.Leaf = "x" },
		"a kept file":        func(n *note) { n.Files[0].Prev = "../x" },
	} {
		forged := n
		forged.Files = slices.Clone(n.Files)
		change(&forged)
		text, err := json.Marshal(forged)
		must(t, err)
		r := deploy.Receipt{Note: text}
		for _, err := range []error{s.Activate(t.Context(), []deploy.Receipt{r}), s.Restore(t.Context(), []deploy.Receipt{r}), s.Discard(t.Context(), r)} {
			if err == nil || !strings.Contains(err.Error(), "reading a receipt") {
				t.Errorf("%s: got %v", name, err)
			}
		}
	}
}

// liar is a share that does not do as it says.
type liar struct {
	Share
	rename func(do func() error) error
}

func (l liar) Rename(ctx context.Context, from, to string) error {
	return l.rename(func() error { return l.Share.Rename(ctx, from, to) })
}

// An answer that is lost leaves a file switched that counts as not switched: it
// is put back, too. A rename that was answered and not done is found.
func TestLostAndFalseAnswers(t *testing.T) {
	for name, rename := range map[string]func(nth int, do func() error) error{
		"lost": func(nth int, do func() error) error {
			if err := do(); err != nil || nth != 2 {
				return err
			}
			return errors.New("the answer was lost")
		},
		"false": func(nth int, do func() error) error {
			if nth == 2 {
				return nil
			}
			return do()
		},
	} {
		s := newShop(t, plain)
		s.install(t, 1, bundleFor(t, deploytest.Names...))
		before, nth := s.root(), 0
		r := s.stage(t, 2, bundleFor(t, deploytest.Names...))
		s.files = liar{s.files, func(do func() error) error {
			nth++
			return rename(nth, do)
		}}
		if err := s.Activate(t.Context(), []deploy.Receipt{r}); err == nil || !maps.Equal(before, s.root()) {
			t.Errorf("%s: got %v, and not all is as it was", name, err)
		}
	}
}

// A staging does not take away the way back from what is live.
func TestStagedAgainUnderTheSameName(t *testing.T) {
	s, b := newShop(t, plain), bundleFor(t, deploytest.Names...)
	s.put(t, "www.example.org.pfx", []byte("what was there"))
	before := s.root()
	r := s.install(t, 1, b)
	must(t, s.Discard(t.Context(), s.stage(t, 1, b)))
	must(t, s.Restore(t.Context(), []deploy.Receipt{r}))
	if !maps.Equal(before, s.root()) {
		t.Error("what was there is lost")
	}
}

func TestStagingsAreSwept(t *testing.T) {
	s := newShop(t, plain)
	for epoch := range int64(4) {
		s.stage(t, epoch, bundleFor(t, deploytest.Names...))
	}
	n := 0
	for name := range s.mem.Tree() {
		if path.Base(name) == stagedFile {
			n++
		}
	}
	if n != 1 {
		t.Errorf("there are %d stagings", n)
	}
}

// Bytes that change where they lie are found: at Stage, and before a switch.
func TestChangedWhereTheyLie(t *testing.T) {
	s := newShop(t, plain)
	s.put(t, "www.example.org.pfx", []byte("what was there"))
	b := bundleFor(t, deploytest.Names...)
	s.host.Alter = func(name string, data []byte) []byte {
		if strings.HasSuffix(name, keptSuffix) {
			return []byte("another")
		}
		return data
	}
	if _, err := s.Stage(t.Context(), deploy.Stage{Site: "shop", Bundles: []farm.Bundle{b}}); err == nil || !strings.Contains(err.Error(), "other bytes") {
		t.Errorf("a changed copy of what is live gives %v", err)
	}
	s.host.Mend()
	r := s.stage(t, 1, b)
	before := s.root()
	n, err := read(r)
	must(t, err)
	must(t, s.mem.Write(t.Context(), n.staged(), []byte("another"), private))
	if err := s.Activate(t.Context(), []deploy.Receipt{r}); err == nil || !maps.Equal(before, s.root()) {
		t.Errorf("a changed staging gives %v", err)
	}
	must(t, s.mem.Remove(t.Context(), n.staged()))
	if err := s.Activate(t.Context(), []deploy.Receipt{r}); !errors.Is(err, errGone) {
		t.Errorf("a staging that is gone gives %v", err)
	}
}

func TestInspectSeesWhatIsMissing(t *testing.T) {
	s, b := newShop(t, plain), bundleFor(t, deploytest.Names...)
	s.install(t, 1, b)
	must(t, s.mem.Remove(t.Context(), "/srv/certs/www.example.org.pfx"))
	if in, err := s.Inspect(t.Context()); err != nil || !in.Mismatch || !slices.Equal(in.Leaves, []string{b.Leaf}) {
		t.Errorf("holds %+v (%v)", in, err)
	}
}

// Another first name gives a site another folder for its stagings. The one before goes
// with its keys when the new one is live; folders of other sites, and of a farm that has a
// site of the same name, stay.
func TestAnotherFirstName(t *testing.T) {
	s := newShop(t, plain)
	folders := func() (all []string) {
		for name := range s.mem.Tree() {
			if path.Dir(name) == "/srv/certs/.certfarm" {
				all = append(all, path.Base(name))
			}
		}
		slices.Sort(all)
		return all
	}
	renamed := newShop(t, func(o *Options) { o.Names = []string{"a.example.org", deploytest.Names[1]} })
	other := newShop(t, func(o *Options) { o.Names = []string{"other.example.org"} })
	for _, shop := range []*shop{&renamed, &other} {
		shop.Store.files, shop.mem, shop.host = s.host, s.mem, s.host
	}
	s.install(t, 1, bundleFor(t, deploytest.Names...))
	before := folders()
	other.install(t, 1, bundleFor(t, "other.example.org"))
	r := renamed.stage(t, 2, bundleFor(t, renamed.options.Names...))
	if got := folders(); len(got) != 3 || !slices.Contains(got, before[0]) {
		t.Fatalf("before it is live there are %q, of which %q was first", got, before)
	}
	must(t, renamed.Activate(t.Context(), []deploy.Receipt{r}))
	if got := folders(); len(got) != 2 || slices.Contains(got, before[0]) {
		t.Errorf("there are %q, of which %q was first", got, before)
	}
	must(t, renamed.Restore(t.Context(), []deploy.Receipt{r}))
	if got := s.root(); got["a.example.org.pfx"] != "" || got["example.org.pfx"] == "" || got["other.example.org.pfx"] == "" {
		t.Errorf("the store has %q", slices.Sorted(maps.Keys(got)))
	}
}
