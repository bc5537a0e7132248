package target

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/hosttest"
	"github.com/certfarm/certfarm/internal/host/local"
)

// tried are options of each kind that writes files.
var tried = map[string]string{
	"nginx":    `{"chain": "/etc/tls/shop.pem", "key": "/etc/private/shop.key", "more": [{"keys": "ec256", "pem": "/etc/tls/shop-ec.pem"}]}`,
	"apache":   `{"pem": "/etc/tls/shop.pem"}`,
	"lighttpd": `{"pem": "/etc/tls/shop.pem"}`,
	"haproxy":  `{"pem": "/etc/tls/shop.pem"}`,
	"files":    `{"pem": "/etc/tls/shop.pem"}`,
	"pfx":      `{"path": "/etc/tls/shop.pfx"}`,
	"jks":      `{"path": "/etc/tls/shop.jks"}`,
	"tomcat":   `{"path": "/etc/tls/shop.pfx"}`,
	"envoy":    `{"path": "/etc/tls/shop.json"}`,
}

func try(h host.Host, kind, options string, reload bool) deploy.Try {
	return deploy.Try{
		Kinds: All(), Kind: kind, Options: []byte(options), Setup: deploy.Setup{Host: h, Secrets: secrets()}, Now: time.Now,
		Trial: deploy.Trial{Mark: "certfarm-test", Names: []string{"certfarm-test.invalid"}, Reload: reload},
	}
}

// verdicts are the checks of a try, "stage failed" each.
func verdicts(checks []deploy.Check) (all []string) {
	for _, c := range checks {
		if c.Verdict != deploy.CheckNotTried {
			all = append(all, c.Name+" "+string(c.Verdict))
		}
	}
	return all
}

var allWell = []string{"reach ok", "live ok", "stage ok", "activate ok", "inspect ok", "replace ok", "restore ok", "discard ok", "clean up ok"}

// Every kind can be tried beside what is live, which is never written, and nothing
// is left; nothing makes the server read anew, and its config test runs.
func TestTry(t *testing.T) {
	for kind, options := range tried {
		t.Run(kind, func(t *testing.T) {
			m := &hosttest.Mem{}
			for _, folder := range []string{"/etc/tls", "/etc/private", defaultStore} {
				must(t, m.Mkdir(t.Context(), folder, host.Attr{Mode: 0o755}))
			}
			must(t, m.Write(t.Context(), "/etc/tls/other.pem", []byte("a person's"), host.Attr{Mode: 0o600}))
			f := &hosttest.Faulty{Linked: m}
			before := m.Tree()
			checks := try(f, kind, options, false).Run(t.Context())
			if got := verdicts(checks); !slices.Equal(got, allWell) {
				t.Errorf("got %q of %+v", got, checks)
			}
			if len(checks) == len(allWell) && kind != "files" && kind != "pfx" && kind != "jks" { // those have no commands
				t.Error("it does not say what it cannot try")
			}
			left := m.Tree()
			maps.DeleteFunc(left, func(name, is string) bool { return before[name] == is || strings.HasSuffix(name, "/") })
			for name := range left {
				t.Errorf("%s is left", name)
			}
			for _, call := range f.Calls() {
				op, name, _ := strings.Cut(call, " ")
				if slices.Contains([]string{"write", "rename", "remove", "link", "mkdir"}, op) && !strings.Contains(name, "/.certfarm-test") {
					t.Errorf("it did %s", call)
				}
				if op == "run" && (strings.Contains(call, "reload") || strings.Contains(call, "graceful") || strings.Contains(call, "start")) {
					t.Errorf("it did %s", call)
				}
			}
		})
	}
}

func TestTryReloads(t *testing.T) {
	f := &hosttest.Faulty{Linked: &hosttest.Mem{}}
	checks := try(f, "nginx", tried["apache"], true).Run(t.Context())
	if !slices.Equal(verdicts(checks), allWell) || !slices.Contains(f.Calls(), "run nginx -s reload") || slices.Contains(f.Calls(), "run nginx") {
		t.Errorf("got %+v, it did %q", checks, f.Calls())
	}
}

// What fails is told with a hint, what comes after it is not tried, and the place is
// taken away all the same.
func TestTryTellsWhatFails(t *testing.T) {
	live := path.Dir("/etc/tls/shop.pem") + "/.certfarm-test"
	for name, c := range map[string]struct {
		fault func(f *hosttest.Faulty)
		want  []string
		hint  string
	}{
		"the config test": {
			func(f *hosttest.Faulty) {
				f.Refuse = func(call string) error {
					if call == "run nginx -t" {
						return &host.ExitError{Argv: []string{"nginx", "-t"}, Status: 1, Output: []byte("sudo: a password is required")}
					}
					return nil
				}
			},
			[]string{"reach ok", "live ok", "stage ok", "activate failed", "clean up ok"}, "sudoers",
		},
		"no right to the folder": {
			func(f *hosttest.Faulty) {
				f.Refuse = func(call string) error {
					if call == "link "+live+"/shop.pem" {
						return fmt.Errorf("%s: %w", call, fs.ErrPermission)
					}
					return nil
				}
			},
			[]string{"reach ok", "live ok", "stage ok", "activate failed", "clean up ok"}, "right to read and write",
		},
		"a full disk":        {func(f *hosttest.Faulty) { f.FullAt = 2 }, []string{"reach ok", "live ok", "stage failed", "clean up ok"}, ""},
		"a line that is cut": {func(f *hosttest.Faulty) { f.DieAfter(0, false) }, []string{"reach failed"}, "address"},
	} {
		t.Run(name, func(t *testing.T) {
			m := &hosttest.Mem{}
			f := &hosttest.Faulty{Linked: m}
			c.fault(f)
			checks := try(f, "nginx", tried["apache"], false).Run(t.Context())
			if got := verdicts(checks); !slices.Equal(got, c.want) {
				t.Errorf("got %q of %+v", got, checks)
			}
			i := slices.IndexFunc(checks, func(k deploy.Check) bool { return k.Verdict == deploy.CheckFailed })
			if i < 0 || !strings.Contains(checks[i].Hint, c.hint) {
				t.Errorf("the hint is not about %q: %+v", c.hint, checks)
			}
			for name := range m.Tree() {
				if strings.Contains(name, "certfarm-test/") {
					t.Errorf("%s is left", name)
				}
			}
		})
	}
}

// The place is taken away also when whoever asked is gone.
func TestTryCleansUpWhenItIsStopped(t *testing.T) {
	m := &hosttest.Mem{}
	f := &hosttest.Faulty{Linked: m}
	ctx, cancel := context.WithCancel(t.Context())
	f.Refuse = func(call string) error {
		if call == "run nginx -t" {
			cancel()
			return ctx.Err()
		}
		return nil
	}
	checks := try(f, "nginx", tried["apache"], false).Run(ctx)
	if got := verdicts(checks); !slices.Contains(got, "activate failed") || got[len(got)-1] != "clean up ok" {
		t.Errorf("got %q", got)
	}
	for name := range m.Tree() {
		if strings.Contains(name, "certfarm-test/") {
			t.Errorf("%s is left", name)
		}
	}
}

func TestTryOnWindows(t *testing.T) {
	w := &hosttest.Windows{}
	for _, folder := range []string{"C:/tls", "C:/store"} {
		must(t, w.Mkdir(t.Context(), folder, host.Attr{Mode: 0o755}))
	}
	options, err := json.Marshal(map[string]any{"pem": "C:/tls/shop.pem", "store": "C:/store", "test": httpdTest, "reload": httpdRestart, "start": []string{}})
	must(t, err)
	checks := try(w, "apache", string(options), false).Run(t.Context())
	if got := verdicts(checks); !slices.Equal(got, allWell) {
		t.Errorf("got %q of %+v", got, checks)
	}
	for _, folder := range []string{"C:/tls", "C:/store"} {
		left, err := w.List(t.Context(), folder)
		if err != nil || len(left) > 0 {
			t.Errorf("in %s is left %v (%v)", folder, left, err)
		}
	}
}

func practice(h host.Host, kind, options string) *deploytest.Practice {
	return &deploytest.Practice{Kinds: All(), Kind: kind, Options: []byte(options), Setup: deploy.Setup{Host: h, Secrets: secrets()}, Mark: "certfarm-selftest"}
}

// results counts outcomes, and tells those that are broken.
func results(t *testing.T, all []deploytest.Outcome) map[string]int {
	t.Helper()
	n := map[string]int{}
	for _, o := range all {
		n[o.Result]++
		if o.Result == deploytest.Broken {
			t.Errorf("%s: %q", o.Rule, o.Details)
		}
	}
	return n
}

// some are rules of all sorts. Those that cut at each call take long, and the kinds'
// own tests hold them to all.
var some = []string{
	"an activation cut anywhere can be undone", "every step may be repeated", "plain files are taken over and given back",
	"bytes changed on the way are found by staging", "a group is tested and reloaded once", "discarding after success erases the version before",
}

// The contract holds in the shadow place of each sort of target, and leaves nothing.
func TestPractice(t *testing.T) {
	short := slices.DeleteFunc(deploytest.Rules(), func(rule string) bool { return strings.Contains(rule, "cut anywhere") })
	windows := &hosttest.Windows{}
	for _, folder := range []string{"C:/tls", "C:/store"} {
		must(t, windows.Mkdir(t.Context(), folder, host.Attr{Mode: 0o755}))
	}
	for name, c := range map[string]struct {
		host          host.Host
		kind, options string
		rules         []string
		kept          int
	}{
		"pair":    {&hosttest.Mem{}, "nginx", tried["nginx"], short, 24},
		"pem":     {&hosttest.Mem{}, "haproxy", tried["haproxy"], some, len(some)},
		"windows": {windows, "files", `{"pem": "C:/tls/shop.pem", "store": "C:/store"}`, some, len(some)},
		"sds":     {&hosttest.Mem{}, "envoy", tried["envoy"], some, len(some)},
	} {
		t.Run(name, func(t *testing.T) {
			all, err := practice(c.host, c.kind, c.options).Run(t.Context(), c.rules...)
			must(t, err)
			if n := results(t, all); n[deploytest.Kept] != c.kept {
				t.Errorf("%d of %d rules kept, not %d: %v", n[deploytest.Kept], len(all), c.kept, n)
			}
			if m, ok := c.host.(*hosttest.Mem); ok {
				for name := range m.Tree() {
					if strings.Contains(name, "certfarm-selftest/") {
						t.Errorf("%s is left", name)
					}
				}
			}
		})
	}
}

// On a real file system, and stopped in the middle: nothing is left, what is live is
// as it was, and what was not run says so.
func TestPracticeIsStopped(t *testing.T) {
	dir := filepath.ToSlash(t.TempDir())
	h := local.New(local.Config{})
	must(t, h.Mkdir(t.Context(), dir+"/tls", host.Attr{Mode: 0o755}))
	must(t, h.Write(t.Context(), dir+"/tls/shop.pem", []byte("live"), host.Attr{Mode: 0o600}))
	ctx, cancel := context.WithCancel(t.Context())
	p := practice(h, "files", fmt.Sprintf(`{"pem": %q, "store": %q}`, dir+"/tls/shop.pem", dir+"/store"))
	rules := []string{"an empty target holds nothing", "every step may be repeated", "nothing piles up"}
	p.Told = func(o deploytest.Outcome) {
		if o.Rule == rules[1] {
			cancel()
		}
	}
	all, err := p.Run(ctx, rules...)
	must(t, err)
	if n := results(t, all); n[deploytest.Kept] != 2 || n[deploytest.NotRun] != 1 {
		t.Errorf("got %+v", all)
	}
	for folder, want := range map[string][]string{"/tls": {"shop.pem"}, "/store": nil} {
		entries, err := h.List(t.Context(), dir+folder)
		must(t, err)
		var names []string
		for _, e := range entries {
			names = append(names, e.Name)
		}
		if !slices.Equal(names, want) {
			t.Errorf("in %s is %q", folder, names)
		}
	}
	if text, err := h.Read(t.Context(), dir+"/tls/shop.pem"); err != nil || string(text) != "live" {
		t.Errorf("what is live is now %q (%v)", text, err)
	}
}

// forgetful is a host that says of some files that they were written, and does not.
type forgetful struct{ *hosttest.Mem }

func (forgetful) Dial(context.Context, string, string) (net.Conn, error) { return nil, errDown }

func (f forgetful) Link(ctx context.Context, to, name string) error {
	if path.Base(name) == "current" && f.exists(ctx, name) {
		return nil
	}
	return f.Mem.Link(ctx, to, name)
}

func (f forgetful) exists(ctx context.Context, name string) bool {
	_, err := f.Readlink(ctx, name)
	return err == nil
}

// A machine on which the contract does not hold is told as such, with what was seen.
func TestPracticeTellsWhatIsBroken(t *testing.T) {
	all, err := practice(forgetful{&hosttest.Mem{}}, "files", tried["files"]).Run(t.Context())
	must(t, err)
	broken := map[string][]string{}
	for _, o := range all {
		if o.Result == deploytest.Broken {
			broken[o.Rule] = o.Details
		}
	}
	if d := broken["every step may be repeated"]; len(d) == 0 || !strings.Contains(d[0], "holds") {
		t.Errorf("broken is %q", broken)
	}
	if _, ok := broken["a receipt holds no key"]; ok {
		t.Error("what is right is told as broken")
	}
}

// No kind gives a place that is live, and every kind with files has one.
func TestShadowsAreNotLive(t *testing.T) {
	for kind, options := range tried {
		facts, err := All()[kind].Check([]byte(options), password, managerSecret)
		must(t, err)
		for _, apart := range []bool{false, true} {
			p, err := All().Shadow(kind, facts.Options, deploy.Trial{Mark: "mark", Names: []string{"mark.invalid"}, Apart: apart})
			must(t, err)
			for _, pair := range p.Live {
				if slices.Contains(facts.Places, "file "+pair[0]) || slices.Contains(facts.Places, "file "+pair[1]) {
					t.Errorf("%s: %q is live", kind, pair)
				}
			}
			if want := 1 + strings.Count(options, "keys"); !apart && len(p.Leaves) > 0 && len(p.Leaves) != want {
				t.Errorf("%s: leaves %v", kind, p.Leaves)
			}
		}
	}
	if p, err := All().Shadow("nginx", []byte(tried["nginx"]), deploy.Trial{Mark: "mark"}); err != nil || !slices.Equal(p.Leaves, []farm.KeyType{farm.RSA2048, farm.EC256}) {
		t.Errorf("leaves %v (%v)", p.Leaves, err)
	}
}
