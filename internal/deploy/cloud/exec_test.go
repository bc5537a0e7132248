package cloud

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/hosttest"
	machine "github.com/certfarm/certfarm/internal/host/local"
)

// programs is a node whose commands are real ones, of this machine.
type programs struct {
	hosttest.Linked
	machine *machine.Host
}

func (p programs) Run(ctx context.Context, argv []string, stdin []byte) ([]byte, error) {
	return p.machine.Run(ctx, argv, stdin)
}

// example is the command that the documentation shows.
func example(t *testing.T) string {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the example is a shell script")
	}
	if _, err := exec.LookPath("jq"); err != nil {
		t.Skip("the example needs jq, which is not installed")
	}
	script, err := filepath.Abs("../../../examples/exec-target.sh")
	must(t, err)
	return script
}

func TestExec(t *testing.T) {
	script := example(t)
	deploytest.Run(t, func(t *testing.T) deploytest.Bench {
		faulty := &hosttest.Faulty{Linked: programs{machine: machine.New(machine.Config{})}}
		folder := t.TempDir()
		d, err := openExec(command{Argv: []string{script, folder}, Place: "shop", Deliver: true, Timeout: "1m"}, deploy.Setup{Host: faulty})
		must(t, err)
		return deploytest.Bench{
			Host: faulty, Target: deploytest.Target{Deployer: remember(d)},
			Empty: func(deploytest.T) { must(t, os.RemoveAll(filepath.Join(folder, "shop"))) },
		}
	})
}

// TestExecByName goes the whole way: a name in the controller's list, options as
// farm.yaml has them, and what the command is handed.
func TestExecByName(t *testing.T) {
	script, folder := example(t), t.TempDir()
	t.Setenv("CERTFARM_CANARY", "a credential")
	list := map[string][]string{"cdn": {script, folder}, "env": {"/bin/sh", "-c", `cat > /dev/null; env | cut -c 1-40 >&2; exit 3`}}
	setup := deploy.Setup{Command: func(name string) ([]string, error) {
		if argv := list[name]; argv != nil {
			return argv, nil
		}
		return nil, errors.New("there is no " + name)
	}}
	kinds := deploy.NewKinds(All()...)
	d, err := kinds.Open("exec", []byte(`{"command": "cdn", "place": "shop", "deliver": true}`), setup)
	must(t, err)
	b := deploytest.NewBundle(t, farm.EC256)
	r, err := d.Stage(t.Context(), stageOf(b))
	must(t, err)
	must(t, d.Activate(t.Context(), []deploy.Receipt{r}))
	holds(t, d, b.Leaf)
	live, err := os.ReadFile(filepath.Join(folder, "shop", "live"))
	must(t, err)
	key, err := os.ReadFile(filepath.Join(folder, "shop", strings.TrimSpace(string(live)), "key.pem"))
	must(t, err)
	if strings.TrimSpace(string(key)) != strings.TrimSpace(string(b.Key.Reveal())) {
		t.Error("the key did not arrive")
	}
	_, err = kinds.Open("exec", []byte(`{"command": "gone"}`), setup)
	says(t, err, []string{"there is no gone"})
	_, err = kinds.Open("exec", []byte(`{"command": "cdn"}`), deploy.Setup{})
	says(t, err, []string{"--commands-file"})
	d, err = kinds.Open("exec", []byte(`{"command": "env"}`), setup)
	must(t, err)
	_, err = d.Inspect(t.Context())
	says(t, err, []string{"status 3", "PATH="}, farm.NewSecret([]byte("a credential")))
}

// spoken is a node whose every command writes the same.
type spoken struct {
	hosttest.Linked
	output string
	status int
	argv   []string
	stdin  string
}

func (s *spoken) Run(_ context.Context, argv []string, stdin []byte) ([]byte, error) {
	s.argv, s.stdin = argv, string(stdin)
	if s.status != 0 {
		return []byte(s.output), &host.ExitError{Argv: argv, Status: s.status, Output: []byte(s.output)}
	}
	return []byte(s.output), nil
}

func TestExecAnswers(t *testing.T) {
	b := deploytest.NewBundle(t, farm.EC256)
	key := string(b.Key.Reveal())
	for name, c := range map[string]struct {
		status int
		output string
		words  []string
	}{
		"no":               {0, "uploading\n{\"ok\": false, \"error\": \"disk\\nfull\"}\n", []string{"says no: disk full", "it wrote: uploading"}},
		"nothing":          {0, "", []string{"printed no line"}},
		"not ours":         {0, "{\"result\": 1}\ndone\n", []string{"printed no line", "done"}},
		"failed":           {7, "cannot connect\n", []string{"status 7", "cannot connect"}},
		"failed, and says": {1, "{\"ok\": false, \"error\": \"busy\"}", []string{"says no: busy"}},
		"failed, with ok":  {1, "{\"ok\": true}\nlater: broken pipe", []string{"status 1", "broken pipe"}},
		"quotes the key":   {1, "bad key: " + key, []string{"status 1", "[secret]"}},
		"keeps the key":    {0, `{"ok": true, "note": "` + strings.Split(key, "\n")[1] + `"}`, []string{"holds the key"}},
	} {
		t.Run(name, func(t *testing.T) {
			node := &spoken{output: c.output, status: c.status}
			d, err := openExec(command{Argv: []string{"/x/cmd", "a b"}, Deliver: true, Timeout: "1s"}, deploy.Setup{Host: node})
			must(t, err)
			_, err = d.Stage(t.Context(), stageOf(b))
			says(t, err, c.words, b.Key)
			if !slices.Equal(node.argv, []string{"/x/cmd", "a b", "stage"}) || !strings.Contains(node.stdin, `"verb":"stage"`) {
				t.Errorf("it was run as %q with %q", node.argv, node.stdin)
			}
			if errors.Is(err, host.ErrUnreachable) {
				t.Error("an answer counts as silence")
			}
		})
	}
	node := &spoken{output: "warning: old jq\n{\"ok\": true, \"leaves\": [\"" + strings.Repeat("ab", 32) + "\"]}\nbye\n"}
	d, err := openExec(command{Argv: []string{"/x/cmd"}, Timeout: "1s"}, deploy.Setup{Host: node})
	must(t, err)
	holds(t, d, strings.Repeat("ab", 32))
	if strings.Contains(node.stdin, "PRIVATE") {
		t.Error("the key was handed over without deliver")
	}
}

func TestExecEnds(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs sleep")
	}
	line := execLine{argv: []string{"/bin/sh", "-c", "sleep 1000"}, run: machine.New(machine.Config{}), timeout: 50 * time.Millisecond}
	_, err := line.send(t.Context(), call{Verb: "inspect"})
	if !errors.Is(err, host.ErrUnreachable) || !strings.Contains(err.Error(), "50ms") {
		t.Errorf("got %v", err)
	}
}

func TestExecOptions(t *testing.T) {
	badOptions(t, "exec", map[string]string{
		`{}`:                                  "command",
		`{"command": "a", "argv": ["b"]}`:     "command",
		`{"argv": ["a", ""]}`:                 "argv",
		`{"argv": ["a b"]}`:                   "argv",
		`{"command": "a", "place": "b\n"}`:    "place",
		`{"command": "a", "timeout": "1ms"}`:  "timeout",
		`{"command": "a", "lag": "x"}`:        "lag",
		`{"command": "a\u0000"}`:              "command",
		`{"argv": ["a"], "timeout": "1000h"}`: "timeout",
	})
	identity := func(options string) string {
		f, err := Exec().Check([]byte(options))
		must(t, err)
		return f.Identity
	}
	all := []string{
		identity(`{"command": "a"}`), identity(`{"command": "a", "place": "b"}`), identity(`{"argv": ["a"]}`),
		identity(`{"argv": ["a", "b c"]}`), identity(`{"argv": ["a", "b", "c"]}`),
	}
	slices.Sort(all)
	if len(slices.Compact(all)) != 5 {
		t.Errorf("two places are one: %q", all)
	}
	if !Exec().OnNode([]byte(`{"argv": ["a"]}`)) || Exec().OnNode([]byte(`{"command": "a"}`)) {
		t.Error("argv is on a node, and a command is not")
	}
}
