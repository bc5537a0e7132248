package agent_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/agent"
	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/remote"
	"github.com/certfarm/certfarm/internal/deploy/target"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/fence"
	"github.com/certfarm/certfarm/internal/host/local"
)

// site is a node with a policy, and a controller that calls it.
type site struct {
	t        *testing.T
	root     string
	policy   fence.Policy
	answerer *agent.Answerer
	log      *bytes.Buffer
	now      time.Time
	ids      int
}

func newSite(t *testing.T) *site {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	root = filepath.ToSlash(root)
	for _, folder := range []string{"tls", "store", "etc"} {
		must(t, os.Mkdir(filepath.Join(root, folder), 0o755))
	}
	must(t, os.WriteFile(filepath.Join(root, "etc", "passwd"), []byte("root"), 0o600))
	s := &site{t: t, root: root, log: &bytes.Buffer{}, now: time.Now(), policy: fence.Policy{
		Node: "web1", Farm: "shop", Names: []string{"www.example.org", "*.shop.example.org"}, Kinds: []string{"files"},
		Folders: []string{root + "/tls", root + "/store"}, Commands: map[string][]string{"reload": {"true"}},
		KeyTypes: []farm.KeyType{farm.EC256}, Activations: 20,
	}}
	s.open()
	return s
}

// open begins the answerer anew, as after a stop.
func (s *site) open() {
	s.t.Helper()
	var err error
	s.answerer, err = agent.NewAnswerer(agent.AnswererSetup{
		Kinds: target.All(), Host: local.New(local.Config{}), State: filepath.Join(s.root, "state"),
		Policy: func() (fence.Policy, error) { return s.policy, nil },
		Log:    slog.New(slog.NewJSONHandler(s.log, nil)), Now: func() time.Time { return s.now },
	})
	must(s.t, err)
}

// call is one that is allowed; change makes it another.
func (s *site) call(do remote.Verb, change func(*remote.Call)) remote.Call {
	s.ids++
	c := remote.Call{
		ID: "call" + string(rune('a'+s.ids/26)) + string(rune('a'+s.ids%26)), Do: do, Farm: "shop", Node: "web1", Lane: "node web1", Deadline: time.Minute,
		Lease:  deploy.Lease{Owner: "ctl-one", Epoch: s.now.UnixMilli(), Nonce: "n1", Rollout: "r1"},
		Target: "shop/files@web1", Kind: "files", Options: s.options(s.root+"/tls/shop.pem", s.root+"/store", "true"),
	}
	if do == remote.DoStage {
		c.Stage = s.stage(farm.EC256, s.now, "www.example.org")
	}
	if change != nil {
		change(&c)
	}
	return c
}

func (s *site) options(pem, store string, reload ...string) []byte {
	text, err := json.Marshal(map[string]any{"pem": pem, "store": store, "reload": reload})
	must(s.t, err)
	return text
}

func (s *site) stage(kind farm.KeyType, at time.Time, names ...string) deploy.Stage {
	b, err := deploy.Throwaway(names, kind, at)
	must(s.t, err)
	return deploy.Stage{Site: "shop", Names: names, Bundles: []farm.Bundle{b}, Epoch: 1}
}

// does makes a call that must be done.
func (s *site) does(c remote.Call) remote.Answer {
	s.t.Helper()
	a := s.answerer.Answer(s.t.Context(), c)
	if a.Error != "" {
		s.t.Fatalf("%s: %s (%s)", c.Do, a.Error, a.Class)
	}
	return a
}

// install makes a version of a time live.
func (s *site) install(at time.Time) deploy.Receipt {
	s.t.Helper()
	a := s.does(s.call(remote.DoStage, func(c *remote.Call) { c.Stage = s.stage(farm.EC256, at, "www.example.org") }))
	s.does(s.call(remote.DoActivate, func(c *remote.Call) { c.Receipts = []deploy.Receipt{a.Receipt} }))
	return a.Receipt
}

// tree is everything on the node but what it remembers.
func (s *site) tree() map[string]string {
	all := map[string]string{}
	must(s.t, filepath.WalkDir(s.root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == filepath.Join(s.root, "state") {
			if err == nil {
				err = filepath.SkipDir
			}
			return err
		}
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			all[name], err = os.Readlink(name)
		case d.IsDir():
			all[name] = "folder"
		default:
			var text []byte
			text, err = os.ReadFile(name)
			all[name] = string(text)
		}
		return err
	}))
	return all
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A controller that was stolen has all that controllers have. Whatever it asks for
// beyond the node's policy is refused and logged with its id, and nothing changes.
func TestAMaliciousController(t *testing.T) {
	s := newSite(t)
	earlier := s.install(s.now.Add(-2 * time.Hour))
	live := s.install(s.now.Add(-time.Hour))
	waiting := s.does(s.call(remote.DoStage, nil)).Receipt
	must(t, os.Symlink(s.root+"/etc", filepath.Join(s.root, "tls", "out")))
	must(t, os.Symlink(s.root+"/etc/passwd", filepath.Join(s.root, "tls", "secret.pem")))
	done := s.call(remote.DoStage, nil)
	s.does(done)
	put := func(change func(*remote.Call)) remote.Call { return s.call(remote.DoStage, change) }
	opts := func(pem, store string, reload ...string) remote.Call {
		return put(func(c *remote.Call) { c.Options = s.options(pem, store, reload...) })
	}
	given := func(do remote.Verb, rs ...deploy.Receipt) remote.Call {
		return s.call(do, func(c *remote.Call) { c.Receipts = rs })
	}
	pem, store := s.root+"/tls/shop.pem", s.root+"/store"
	for name, c := range map[string]remote.Call{
		"a path outside":                  opts(s.root+"/etc/passwd", store),
		"a path by dots":                  opts(s.root+"/tls/../etc/passwd", store),
		"a path beside by its name":       opts(s.root+"/tls2/shop.pem", store),
		"a path through a symlink":        opts(s.root+"/tls/out/passwd", store),
		"reading through a symlink":       s.call(remote.DoInspect, func(c *remote.Call) { c.Options = s.options(s.root+"/tls/secret.pem", store) }),
		"a store outside":                 opts(pem, s.root+"/etc"),
		"what the node remembers":         opts(s.root+"/state/memory.json", store),
		"a shell":                         opts(pem, store, "sh", "-c", "echo x >"+s.root+"/etc/passwd"),
		"a command with another word":     opts(pem, store, "true", "x"),
		"a command of another path":       opts(pem, store, s.root+"/tls/true"),
		"a name":                          put(func(c *remote.Call) { c.Stage = s.stage(farm.EC256, s.now, "www.example.net") }),
		"a name that is told otherwise":   put(func(c *remote.Call) { b := s.stage(farm.EC256, s.now, "bank.example.net"); c.Stage.Bundles = b.Bundles }),
		"a name beside a good one":        put(func(c *remote.Call) { c.Stage = s.stage(farm.EC256, s.now, "www.example.org", "bank.example.net") }),
		"two labels for one":              put(func(c *remote.Call) { c.Stage = s.stage(farm.EC256, s.now, "a.b.shop.example.org") }),
		"a name of the stand-in":          put(func(c *remote.Call) { c.Stage.Names = []string{"bank.example.net"} }),
		"another kind":                    put(func(c *remote.Call) { c.Kind = "nginx" }),
		"an unknown kind":                 put(func(c *remote.Call) { c.Kind = "shell" }),
		"a kind that is on no node":       put(func(c *remote.Call) { c.Kind, c.Options = "webhook", []byte(`{"url":"https://evil.example/"}`) }),
		"options that are not the kind's": put(func(c *remote.Call) { c.Options = []byte(`{"pem":"/x","run":["sh"]}`) }),
		"another type of key":             put(func(c *remote.Call) { c.Stage = s.stage(farm.RSA2048, s.now, "www.example.org") }),
		"an older leaf":                   put(func(c *remote.Call) { c.Stage = s.stage(farm.EC256, s.now.Add(-3*time.Hour), "www.example.org") }),
		"an older leaf that was staged":   given(remote.DoActivate, earlier),
		"another node":                    put(func(c *remote.Call) { c.Node = "web2" }),
		"another farm":                    put(func(c *remote.Call) { c.Farm = "other" }),
		"an id that was used":             put(func(c *remote.Call) { c.ID = done.ID }),
		"an epoch before":                 put(func(c *remote.Call) { c.Lease.Epoch-- }),
		"an epoch of another lease":       put(func(c *remote.Call) { c.Lease.Nonce = "n2" }),
		"an epoch of the far future":      put(func(c *remote.Call) { c.Lease.Epoch += (25 * time.Hour).Milliseconds() }),
		"no lease":                        put(func(c *remote.Call) { c.Lease = deploy.Lease{Owner: "ctl-one"} }),
		"a receipt that nobody made":      given(remote.DoActivate, deploy.Receipt{Note: json.RawMessage(`{"Places":[],"New":"1-kept","Prev":"1-kept"}`)}),
		"a way back that nobody made":     given(remote.DoRestore, deploy.Receipt{Note: json.RawMessage(`{}`)}),
		"a receipt that was changed":      given(remote.DoActivate, deploy.Receipt{Note: bytes.Replace(waiting.Note, []byte(`"By":"`), []byte(`"By":"AAAA`), 1)}),
		"a receipt of another kind":       s.call(remote.DoActivate, func(c *remote.Call) { c.Kind, c.Receipts = "nginx", []deploy.Receipt{live} }),
		"a key for another name":          s.call(remote.DoRequest, func(c *remote.Call) { c.Names, c.KeyType = []string{"bank.example.net"}, farm.EC256 }),
		"a key of another type":           s.call(remote.DoRequest, func(c *remote.Call) { c.Names, c.KeyType = []string{"www.example.org"}, farm.RSA4096 }),
		"a key for nothing":               s.call(remote.DoRequest, func(c *remote.Call) { c.KeyType = farm.EC256 }),
		"forgetting a file":               s.call(remote.DoForget, func(c *remote.Call) { c.Keys = []string{"../../etc/passwd"} }),
		"keys for everybody": put(func(c *remote.Call) {
			c.Options = bytes.Replace(c.Options, []byte("{"), []byte(`{"mode":"0644",`), 1)
		}),
		"a verb": s.call("run", nil),
	} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			before := s.tree()
			s.log.Reset()
			a := s.answerer.Answer(t.Context(), c)
			if !slices.Contains([]remote.Class{remote.Denied, remote.Stale, remote.TooEarly, remote.Unheard}, a.Class) || a.Error == "" {
				t.Errorf("answered %q (%q)", a.Error, a.Class)
			}
			for _, want := range []string{`"level":"WARN"`, c.ID, "ctl-one"} {
				if !strings.Contains(s.log.String(), want) {
					t.Errorf("the log has no %s: %s", want, s.log)
				}
			}
			t.Logf("%s: %s", a.Class, a.Error)
			if after := s.tree(); !maps.Equal(before, after) {
				t.Errorf("the node changed from %v to %v", slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after)))
			}
		})
	}
}

// At most so many activations an hour, and twice as many ways back.
func TestTooManyActivations(t *testing.T) {
	s := newSite(t)
	s.policy.Activations = 2
	r := s.install(s.now)
	again := func(do remote.Verb) remote.Answer {
		return s.answerer.Answer(t.Context(), s.call(do, func(c *remote.Call) { c.Receipts = []deploy.Receipt{r} }))
	}
	if a := again(remote.DoActivate); a.Error != "" {
		t.Fatalf("the second: %s", a.Error)
	}
	if a := again(remote.DoActivate); a.Class != remote.Denied {
		t.Fatalf("the third: %q (%q)", a.Error, a.Class)
	}
	for n := range 5 {
		if a := again(remote.DoRestore); (a.Class == remote.Denied) != (n == 4) {
			t.Fatalf("way back %d: %q (%q)", n, a.Error, a.Class)
		}
	}
	s.now = s.now.Add(time.Hour)
	if a := again(remote.DoActivate); a.Error != "" {
		t.Fatalf("an hour later: %s", a.Error)
	}
}

// What was answered is answered again and not done again, also after a stop; the highest
// epoch and what is kept are known then, too.
func TestMemory(t *testing.T) {
	s := newSite(t)
	c := s.call(remote.DoRequest, func(c *remote.Call) { c.Names, c.KeyType = []string{"www.example.org"}, farm.EC256 })
	first := s.does(c)
	r := s.install(s.now)
	s.open()
	if again := s.does(c); again.Key != first.Key || !bytes.Equal(again.CSR, first.CSR) {
		t.Errorf("the key is another: %s, %s", first.Key, again.Key)
	}
	keys, err := os.ReadDir(filepath.Join(s.root, "state", "keys"))
	if err != nil || len(keys) != 1 {
		t.Fatalf("%d keys (%v)", len(keys), err)
	}
	if a := s.answerer.Answer(t.Context(), s.call(remote.DoStage, func(c *remote.Call) { c.Lease.Epoch-- })); a.Class != remote.Stale || a.Epoch != s.now.UnixMilli() {
		t.Errorf("answered %+v", a)
	}
	if a := s.answerer.Answer(t.Context(), s.call(remote.DoStage, func(c *remote.Call) { c.Stage = s.stage(farm.EC256, s.now.Add(-time.Hour), "www.example.org") })); a.Class != remote.Denied {
		t.Errorf("answered %+v", a)
	}
	s.does(s.call(remote.DoDiscard, func(c *remote.Call) { c.Receipts = []deploy.Receipt{r} }))
}
