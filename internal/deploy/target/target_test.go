package target

import (
	"encoding/json"
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/hosttest"
	"github.com/certfarm/certfarm/internal/host/local"
)

func TestNginx(t *testing.T)  { contract(t, "nginx", "nginx -t", "nginx -s reload") }
func TestApache(t *testing.T) { contract(t, "apache", "apache2ctl -t", "apache2ctl -k graceful") }
func TestFiles(t *testing.T)  { contract(t, "files", "", "") }

func contract(t *testing.T, kind, test, reload string) {
	for _, form := range []string{"pair", "pem"} {
		t.Run(form, func(t *testing.T) {
			deploytest.Run(t, func(t *testing.T) deploytest.Bench {
				return bench(t, &hosttest.Mem{}, "/", kind, form, test, reload)
			})
		})
	}
}

// On a real file system; commands are of no matter here.
func TestLocalFiles(t *testing.T) {
	deploytest.Run(t, func(t *testing.T) deploytest.Bench {
		return bench(t, local.New(local.Config{}), filepath.ToSlash(t.TempDir()), "files", "pair", "", "")
	})
}

// bench is a node below root with targets of a kind.
func bench(t *testing.T, h hosttest.Linked, root, kind, form, test, reload string) deploytest.Bench {
	t.Helper()
	f := &hosttest.Faulty{Linked: h}
	open := func(name string, double bool) deploytest.Target {
		o := map[string]any{"store": path.Join(root, "store")}
		of := deploytest.Target{Keys: []farm.KeyType{farm.EC256}}
		add := func(o map[string]any, name string) {
			base := path.Join(root, "etc/tls", name)
			if form == "pem" {
				o["pem"] = base + ".pem"
				of.Live = append(of.Live, [2]string{base + ".pem", base + ".pem"})
				return
			}
			o["chain"], o["key"] = base+".pem", base+".key"
			of.Live = append(of.Live, [2]string{base + ".pem", base + ".key"})
		}
		add(o, name)
		if double {
			more := map[string]any{"keys": "rsa2048"}
			add(more, name+"-rsa")
			o["more"] = []any{more}
			of.Keys = append(of.Keys, farm.RSA2048)
		}
		text, err := json.Marshal(o)
		must(t, err)
		of.Deployer, err = All().Open(kind, text, deploy.Setup{Host: f})
		must(t, err)
		return of
	}
	return deploytest.Bench{
		Host: f, Target: open("shop", false), Second: open("blog", false), Double: open("both", true),
		Test: test, Reload: reload,
		Plain: func(_ deploytest.T, of deploytest.Target, b farm.Bundle) {
			must(t, h.Mkdir(t.Context(), path.Dir(of.Live[0][0]), host.Attr{Mode: 0o755}))
			for i, part := range []part{chainOnly, keyOnly} {
				if form == "pem" {
					part = combined
				}
				text, err := format{}.text(part, b)
				must(t, err)
				must(t, h.Write(t.Context(), of.Live[0][i], text, host.Attr{Mode: 0o600}))
			}
		},
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestOptions(t *testing.T) {
	for text, field := range map[string]string{
		`{}`:                                                     "chain",
		`{"pem": "/a", "chain": "/b"}`:                           "chain",
		`{"chain": "/a"}`:                                        "chain",
		`{"chain": "/a", "key": "/a"}`:                           "chain",
		`{"pem": "relative"}`:                                    "pem",
		`{"pem": "/a/../b"}`:                                     "pem",
		`{"pem": "/a\nb"}`:                                       "pem",
		`{"pem": "/a", "store": "x"}`:                            "store",
		`{"pem": "/s/a", "store": "/s"}`:                         "store",
		`{"pem": "/a", "mode": "0644"}`:                          "mode",
		`{"pem": "/a", "mode": "rw"}`:                            "mode",
		`{"pem": "/a", "owner": "a b"}`:                          "owner",
		`{"pem": "/a", "test": ["nginx -t"]}`:                    "test",
		`{"pem": "/a", "reload": [""]}`:                          "reload",
		`{"pem": "/a", "start": ["a", "\u0000"]}`:                "start",
		`{"pem": "/a", "more": [{"pem": "/b"}]}`:                 "more[0].keys",
		`{"pem": "/a", "more": [{"keys": "rsa2048"}]}`:           "more[0].chain",
		`{"pem": "/a", "more": [{"keys": "rsa1", "pem": "/b"}]}`: "more[0].keys",
	} {
		_, err := All()["nginx"].Check([]byte(text))
		mistake, ok := err.(*deploy.FieldError)
		if !ok || mistake.Field != field {
			t.Errorf("%s: got %v, want a mistake in %s", text, err, field)
		}
	}
	if _, err := All()["nginx"].Check([]byte(`{"pem": "/a", "pme": "/b"}`)); err == nil {
		t.Error("an unknown option passed")
	}
}

func TestFactsAndDefaults(t *testing.T) {
	kind := All()["nginx"]
	facts, err := kind.Check([]byte(`{"chain": "/etc/a.pem", "key": "/etc/a.key", "test": ["x", "y", "z"]}`))
	must(t, err)
	if facts.Identity != "file /etc/a.pem" || !strings.Contains(facts.Group, `nginx test=["x" "y" "z"] reload=["nginx" "-s" "reload"]`) {
		t.Errorf("got %+v", facts)
	}
	more, err := kind.Check([]byte(`{"chain": "/etc/a.pem", "key": "/etc/a.key", "more": [{"keys": "rsa2048", "pem": "/etc/rsa.pem"}]}`))
	must(t, err)
	if got := strings.Join(more.Places, ", "); got != "file /etc/a.pem, file /etc/a.key, file /etc/rsa.pem" || more.Identity != facts.Identity {
		t.Errorf("it writes to %s, and is known by %s", got, more.Identity)
	}
	again, err := kind.Check(facts.Options)
	must(t, err)
	if string(again.Options) != string(facts.Options) || again.Group != facts.Group {
		t.Errorf("canonical options are read as others: %s", again.Options)
	}
	plain, err := kind.Check([]byte(`{"pem": "/a"}`)) // reading options does not change the defaults
	must(t, err)
	want := `{"pem":"/a","store":"/var/lib/certfarm","mode":"0600","test":["nginx","-t"],"reload":["nginx","-s","reload"],"start":["nginx"]}`
	if string(plain.Options) != want {
		t.Errorf("got %s, want %s", plain.Options, want)
	}
	none, err := kind.Check([]byte(`{"pem": "/a", "test": [], "reload": []}`))
	must(t, err)
	if again, err := kind.Check(none.Options); err != nil || !strings.Contains(string(again.Options), `"test":[]`) {
		t.Errorf("no command became the default: %s (%v)", again.Options, err)
	}
}

func TestModesAndLabels(t *testing.T) {
	m := &hosttest.Mem{}
	must(t, m.Mkdir(t.Context(), "/sys/fs/selinux", host.Attr{Mode: 0o755}))
	must(t, m.Write(t.Context(), enforce, []byte("1\n"), host.Attr{Mode: 0o644}))
	d, err := All().Open("nginx", []byte(`{"chain": "/etc/c.pem", "key": "/etc/k.pem", "owner": "www", "mode": "0640"}`), deploy.Setup{Host: m})
	must(t, err)
	for epoch := range int64(2) {
		r, err := d.Stage(t.Context(), deploy.Stage{Names: deploytest.Names, Epoch: epoch, Bundles: []farm.Bundle{deploytest.NewBundle(t, farm.EC256)}})
		must(t, err)
		must(t, d.Activate(t.Context(), []deploy.Receipt{r}))
	}
	if a, b := m.Attr("/etc/k.pem"), m.Attr("/etc/c.pem"); a.Mode != 0o640 || a.Owner != "www" || b.Mode != 0o644 {
		t.Errorf("key %+v, chain %+v", a, b)
	}
	ran := strings.Join(m.Ran(), "\n")
	for _, want := range []string{"chcon --reference=/etc ", "chcon -h --reference=", "chcon --reference=/var/lib/certfarm/"} {
		if !strings.Contains(ran, want) {
			t.Errorf("no %q in\n%s", want, ran)
		}
	}
}

// server is what a node's server does with commands.
type server struct {
	runs   bool
	ran    []string
	refuse map[string]bool
}

func (s *server) exec(line string) error {
	s.ran = append(s.ran, line)
	no := &host.ExitError{Argv: strings.Fields(line), Status: 1}
	if s.refuse[line] {
		return no
	}
	switch line {
	case "nginx -s reload":
		if !s.runs {
			return no
		}
	case "nginx":
		if s.runs {
			return no
		}
		s.runs = true
	}
	return nil
}

// A server that does not run is started: at the first installation, and when it
// died.
func TestServersThatDoNotRun(t *testing.T) {
	s := &server{}
	b := bench(t, &hosttest.Mem{}, "/", "nginx", "pair", "nginx -t", "nginx -s reload")
	b.Host.Refuse = func(call string) error {
		if line, ok := strings.CutPrefix(call, "run "); ok {
			return s.exec(line)
		}
		return nil
	}
	d, next := b.Target.Deployer, deploytest.NewBundle(t, farm.EC256)
	r, err := d.Stage(t.Context(), deploy.Stage{Names: deploytest.Names, Bundles: []farm.Bundle{next}})
	must(t, err)
	must(t, d.Activate(t.Context(), []deploy.Receipt{r}))
	if in, err := d.Inspect(t.Context()); err != nil || !s.runs || fmt.Sprint(in.Leaves) != fmt.Sprint([]string{next.Leaf}) {
		t.Fatalf("runs: %v, holds %+v, ran %q", s.runs, in, s.ran)
	}
	s.runs = false
	must(t, d.Restore(t.Context(), []deploy.Receipt{r}))
	if !s.runs {
		t.Fatalf("it was not started: %q", s.ran)
	}
	s.runs, s.refuse = false, map[string]bool{"nginx": true}
	if err := d.Activate(t.Context(), []deploy.Receipt{r}); err == nil {
		t.Fatal("a server that cannot start is no error")
	}
	if in, err := d.Inspect(t.Context()); err != nil || !in.Placeholder {
		t.Fatalf("holds %+v (%v)", in, err)
	}
}

// What a person does between Stage and Activate is not overwritten.
func TestSomebodyElseWasThere(t *testing.T) {
	m := &hosttest.Mem{}
	b := bench(t, m, "/", "files", "pair", "", "")
	d := b.Target.Deployer
	stage := func(epoch int64) deploy.Receipt {
		r, err := d.Stage(t.Context(), deploy.Stage{Names: deploytest.Names, Epoch: epoch, Bundles: []farm.Bundle{deploytest.NewBundle(t, farm.EC256)}})
		must(t, err)
		return r
	}
	must(t, d.Activate(t.Context(), []deploy.Receipt{stage(1)}))
	r := stage(2)
	night := deploytest.NewBundle(t, farm.EC256)
	b.Plain(t, b.Target, night)
	if err := d.Activate(t.Context(), []deploy.Receipt{r}); err == nil {
		t.Fatal("a person's files were overwritten")
	}
	if in, err := d.Inspect(t.Context()); err != nil || len(in.Leaves) != 1 || in.Leaves[0] != night.Leaf {
		t.Fatalf("holds %+v (%v)", in, err)
	}
	must(t, d.Activate(t.Context(), []deploy.Receipt{stage(3)})) // with assent
}
