package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/api"
	"github.com/certfarm/certfarm/internal/secret/secrettest"
	"github.com/certfarm/certfarm/internal/web"
)

// openWord is no secret: it is the farm's name, in the state folder's and in the
// controller's environment. Where it is not found, nothing was looked through.
const openWord = "openword7c1e"

// A canaryFarm is a controller's process with a farm around it, all of whose secrets
// are known to the test, and whose other ends repeat them in what they answer.
type canaryFarm struct {
	*hostile
	program, state, tokens string
	address                string // of its API and dashboard
	hunt                   secrettest.Hunt
	browser                visitor
	run                    *exec.Cmd
	out, err               locked

	mu    sync.Mutex
	heard map[string][]byte // what was read, by where
}

// TestNoSecretLeaks runs the built program through an order and a rollout that fails,
// with every other end repeating the secrets that it is told, and looks for each of
// them wherever somebody else may read: in what the program prints, its files, its
// API and pages and their streams, metrics, messages, traces, and the words and
// environments of its processes.
func TestNoSecretLeaks(t *testing.T) {
	c := newCanaryFarm(t)
	c.serve(t)
	c.secrets(t)
	c.write(t, "farm.yaml", c.farmYAML(false))
	c.cli(t, 3, "apply", "--yes", "--detach", filepath.Join(c.state, "..", "farm.yaml"))
	c.visit(t)
	c.cli(t, 0, "rollout", "status", siteName, "--follow", "--for", "40s")
	c.learn(t)
	c.write(t, "farm2.yaml", c.farmYAML(true))
	c.cli(t, 1, "apply", "--yes", "--for", "60s", filepath.Join(c.state, "..", "farm2.yaml"))
	c.commands(t)
	c.waitFor(t, "dns", "refused dns", "mail", "slack", "webhook", "shoutrrr", "stage", "traces")
	c.routes(t)
	c.depart(t)
	c.sample("at the end")
	c.stop(t)
	c.files(t)
	c.check(t)
}

// newCanaryFarm starts what the controller meets.
func newCanaryFarm(t *testing.T) *canaryFarm {
	t.Helper()
	//nolint:usetesting // t.TempDir is too long for a socket
	dir, err := os.MkdirTemp("", "cf")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	c := &canaryFarm{state: filepath.Join(dir, openWord), program: filepath.Join(dir, "certfarm"), tokens: filepath.Join(dir, "token"), heard: map[string][]byte{}}
	var build sync.WaitGroup
	build.Go(func() { err = command("env", "CGO_ENABLED=0", "go", "build", "-o", c.program, "../../cmd/certfarm") })
	c.hostile = newHostile(t, dir, c.sample)
	build.Wait()
	must(t, err)
	c.hunt = secrettest.Hunt{"the token of the API": []byte("canary0token0of0the0API0d41f29c07")}
	maps.Copy(c.hunt, c.known)
	return c
}

// serve starts the controller and waits until it answers.
func (c *canaryFarm) serve(t *testing.T) {
	t.Helper()
	must(t, os.Mkdir(c.state, 0o700))
	token := string(c.hunt["the token of the API"])
	must(t, os.WriteFile(c.tokens+"s", []byte("ops "+token+"\n"), 0o600))
	must(t, os.WriteFile(c.tokens, []byte(token+"\n"), 0o600))
	c.address = freeAddress(t)
	c.run = exec.Command(c.program, "serve", "--state", c.state, "--challenge-listen", "none", "--listen", c.address,
		"--token-file", c.tokens+"s", "--otlp-endpoint", c.collector, "--debug", "--log-format", "json")
	c.run.Env = append(os.Environ(), "CERTFARM_TEST_WORD="+openWord)
	c.run.Stdout, c.run.Stderr = &c.out, &c.err
	c.run.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, c.run.Start())
	t.Cleanup(func() {
		_ = c.run.Process.Kill() // it has ended, if all went well
		if t.Failed() {
			said := c.err.String()
			t.Logf("the controller, the end:\n%s", said[max(0, len(said)-8000):])
		}
	})
	within(t, 30*time.Second, "the controller answers", func() bool { return answers(c.address) })
}

// stop ends the controller as systemd does.
func (c *canaryFarm) stop(t *testing.T) {
	t.Helper()
	must(t, c.run.Process.Signal(syscall.SIGTERM))
	must(t, c.run.Wait())
	c.hear("stdout of serve", []byte(c.out.String()+openWord)) // it has nothing to say there
	c.hear("stderr of serve", []byte(c.err.String()))
}

// hear keeps what was read somewhere, beside what was read there before.
func (c *canaryFarm) hear(where string, text []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard[where] = append(append(c.heard[where], text...), '\n')
}

// sample reads the words and the environment of the controller and of every process
// that it has at the moment.
func (c *canaryFarm) sample(when string) {
	for _, pid := range family(func(p process) bool { return p.pid == c.run.Process.Pid }) {
		for _, file := range []string{"cmdline", "environ"} {
			text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), file))
			if err == nil { // it may have ended
				c.hear(file+" "+when, bytes.ReplaceAll(text, []byte{0}, []byte{' '}))
			}
		}
	}
}

// cli runs a command to its end, and keeps what it prints.
func (c *canaryFarm) cli(t *testing.T, code int, argv ...string) string {
	t.Helper()
	return c.cliWith(t, nil, code, argv...)
}

func (c *canaryFarm) cliWith(t *testing.T, stdin []byte, code int, argv ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	run := exec.CommandContext(t.Context(), c.program, append(argv, "--url", "http://"+c.address, "--token-file", c.tokens)...)
	run.Stdin, run.Stdout, run.Stderr = bytes.NewReader(stdin), &out, &errs
	_ = run.Run() // its status says it
	if got := run.ProcessState.ExitCode(); got != code {
		t.Fatalf("certfarm %s ends with %d, want %d:\n%s%s", strings.Join(argv, " "), got, code, out.String(), errs.String())
	}
	where := strings.Join(argv[:min(2, len(argv))], " ")
	c.hear("stdout of certfarm "+where, out.Bytes())
	c.hear("stderr of certfarm "+where, errs.Bytes())
	return out.String()
}

// secrets gives the controller what farm.yaml names.
func (c *canaryFarm) secrets(t *testing.T) {
	t.Helper()
	for name, value := range c.given {
		c.cliWith(t, value, 0, "secret", "set", name, "--farm", openWord)
	}
}

// learn takes the secrets that the controller made itself: a token, the site's key, as
// a node has it, the keys in its store, and the master key.
func (c *canaryFarm) learn(t *testing.T) {
	t.Helper()
	var out bytes.Buffer
	run := exec.CommandContext(t.Context(), c.program, "token", "create", "reader", "--role", "viewer", "--url", "http://"+c.address, "--token-file", c.tokens)
	run.Stdout = &out // shown once, here
	must(t, run.Run())
	fields := strings.Fields(out.String())
	c.hunt["a token that was shown once"] = []byte(slices.MaxFunc(fields, func(a, b string) int { return len(a) - len(b) }))
	c.hunt["the site's key"] = c.siteKey(t)
	maps.Copy(c.hunt, c.sealedKeys(t))
	master, err := os.ReadFile(filepath.Join(c.state, "master.key"))
	must(t, err)
	fields = strings.Fields(string(master))
	c.hunt["the master key"] = []byte(fields[len(fields)-1])
}

// commands asks all that a person would ask at night.
func (c *canaryFarm) commands(t *testing.T) {
	t.Helper()
	c.cli(t, 1, "notify", "test")
	for _, argv := range []string{
		"describe site shop", "describe node web1", "get sites", "get targets -o wide", "get secrets", "get receivers", "events --last 200",
		"events --last 200 --json", "audit list", "audit verify", "get rollouts",
	} {
		c.cli(t, 0, strings.Fields(argv)...)
	}
}

// routes reads every answer of the API, the metrics among them, and every page, as a
// browser that is logged in.
func (c *canaryFarm) routes(t *testing.T) {
	t.Helper()
	words := strings.NewReplacer("{farm}", openWord, "{site}", siteName, "{target}", "shop%2Fnginx@web1", "{rollout}", siteName, "{node}", "web1", "{$}", "")
	for _, r := range api.Routes() {
		if r.Method == http.MethodGet && r.Needs != api.KeyExport && r.ID != "follow-events" {
			c.ask(t, "API "+r.ID, words.Replace(r.Path))
		}
	}
	for _, r := range web.Routes() {
		if r.Method == http.MethodGet && r.ID != "page-live" {
			c.ask(t, "DOM "+r.ID, words.Replace(r.Path))
		}
	}
	c.ask(t, "API refusal", "/v1/farms/"+openWord+"/sites/none")
}

// ask keeps what is answered at a path.
func (c *canaryFarm) ask(t *testing.T, where, path string) {
	t.Helper()
	res := c.get(t.Context(), t, path)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	must(t, err)
	if res.StatusCode >= http.StatusInternalServerError {
		t.Errorf("%s: %s %s", path, res.Status, body)
	}
	c.hear(where, fmt.Appendf(body, "\n%v", res.Header))
}

// files reads every file of the state folder but the master key's. In the database the
// secrets lie sealed.
func (c *canaryFarm) files(t *testing.T) {
	t.Helper()
	must(t, filepath.WalkDir(c.state, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || e.Name() == "master.key" {
			return err
		}
		text, err := os.ReadFile(path)
		c.hear("file "+e.Name(), text)
		return err
	}))
}

// check looks through all that was heard, after it has seen that each sort of place was
// read: there is the open word in it.
func (c *canaryFarm) check(t *testing.T) {
	t.Helper()
	maps.Copy(c.heard, c.messages())
	open := secrettest.Hunt{"the open word": []byte(openWord)}
	for _, sort := range []string{
		"stdout of serve", "stderr of serve", "stdout of certfarm audit list", "stderr of certfarm apply --yes", "file certfarm.db", "API get-site", "API list-events",
		"API list-audit", "API metrics", "DOM page-overview", "DOM page-site", "DOM page-events", "DOM page-notifications", "stream of the API", "message webhook", "message traces",
		"cmdline while dns", "environ while dns",
	} {
		if len(open.Found(c.heard[sort])) == 0 {
			t.Errorf("%s was not read, or not as it is: %.300s", sort, c.heard[sort])
		}
	}
	for when, helper := range map[string]string{"cmdline while dns": "dns-helper", "cmdline while refused dns": "dns-helper", "cmdline while shoutrrr": "shout"} {
		if !bytes.Contains(c.heard[when], []byte(helper)) {
			t.Errorf("%s: no helper was seen: %s", when, c.heard[when])
		}
	}
	c.hunt.Check(t, c.heard)
	t.Logf("%d secrets were looked for in %d texts", len(c.hunt), len(c.heard))
}

func (c *canaryFarm) write(t *testing.T, name, text string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(c.state, "..", name), []byte(text), 0o600))
}

// waitFor waits until each of the other ends was called.
func (c *canaryFarm) waitFor(t *testing.T, who ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for _, w := range who {
		select {
		case <-c.called[w]:
		case <-ctx.Done():
			t.Fatalf("nobody called %s within %s", w, limit)
		}
	}
}
