package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/certfarm/certfarm/internal/api/client"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"certfarm": main})
}

// TestSessions plays the sessions of a terminal in testdata. Beside testscript's
// own commands they have:
//
//	answers SOCKET      wait until a controller answers there
//	field PATH WANT     the last JSON line of standard output has this there
//	types WANT…         the types of the JSON lines of standard output, each once
func TestSessions(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			// A socket's path is short, and the work folder's is long.
			state, err := os.MkdirTemp("", "cf") //nolint:usetesting // t.TempDir is too long for a socket
			if err != nil {
				return err
			}
			e.Defer(func() { os.RemoveAll(state) })
			e.Setenv("STATE_DIRECTORY", state)
			e.Setenv("STATE", state)
			e.Setenv("TZ", "UTC")
			me, err := user.Current()
			if err != nil {
				return err
			}
			e.Setenv("USER", me.Username)
			id, err := age.GenerateX25519Identity()
			if err != nil {
				return err
			}
			e.Setenv("RECIPIENT", id.Recipient().String())
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			e.Setenv("AGENTS", l.Addr().String()) // was free a moment ago
			if err := l.Close(); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(e.WorkDir, "identity.txt"), []byte(id.String()+"\n"), 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"answers": answers, "field": field, "types": types, "exit": exitCode,
		},
	})
}

// exitCode runs certfarm and wants an exit code: exit 2 plan farm.yaml.
func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exit CODE ARGS…")
	}
	err := ts.Exec("certfarm", args[1:]...)
	got := 0
	if e, ok := errors.AsType[interface {
		error
		ExitCode() int
	}](err); ok {
		got = e.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

func answers(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: answers SOCKET")
	}
	c, err := client.New(client.Config{Socket: ts.MkAbs(args[0])})
	ts.Check(err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		_, err := c.About(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			ts.Fatalf("nobody answers: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func lines(ts *testscript.TestScript) (all []map[string]any) {
	in := bufio.NewScanner(strings.NewReader(ts.ReadFile("stdout")))
	in.Buffer(nil, 1<<24)
	for in.Scan() {
		var v map[string]any
		if err := json.Unmarshal(in.Bytes(), &v); err != nil {
			ts.Fatalf("not a line of JSON: %s", in.Text())
		}
		all = append(all, v)
	}
	if len(all) == 0 {
		ts.Fatalf("no JSON")
	}
	return all
}

func types(ts *testscript.TestScript, neg bool, args []string) {
	var got []string
	seen := map[string]bool{}
	for _, l := range lines(ts) {
		name := fmt.Sprint(l["type"])
		if !seen[name] {
			seen[name] = true
			got = append(got, name)
		}
	}
	if same := strings.Join(got, " ") == strings.Join(args, " "); same == neg {
		ts.Fatalf("types are %v", got)
	}
}

func field(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: field a.0.b WANT")
	}
	all := lines(ts)
	var at any = all[len(all)-1]
	for word := range strings.SplitSeq(args[0], ".") {
		switch v := at.(type) {
		case map[string]any:
			at = v[word]
		case []any:
			var i int
			if _, err := fmt.Sscan(word, &i); err != nil || i >= len(v) {
				ts.Fatalf("there is no %s in %v", args[0], all[len(all)-1])
			}
			at = v[i]
		default:
			at = nil
		}
	}
	if same := fmt.Sprint(at) == args[1]; same == neg {
		ts.Fatalf("%s is %v", args[0], at)
	}
}

// TestEveryCommandHelps holds what the rules of the interface ask of each command.
func TestEveryCommandHelps(t *testing.T) {
	root := newRoot(&app{ui: &ui{}})
	for _, c := range root.Commands() {
		if c.Hidden {
			continue // certfarm itself runs it
		}
		if c.Example == "" || c.Short == "" || c.GroupID == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: its help lacks examples, a short text or a group", c.Name())
		}
		for _, under := range c.Commands() {
			if under.Example == "" || under.Short == "" {
				t.Errorf("%s: its help lacks examples or a short text", under.CommandPath())
			}
		}
		text := c.Example
		if c.Name() != "lab" { // the table of faults has long lines
			text += "\n" + c.Long
		}
		for line := range strings.Lines(text) {
			if len([]rune(strings.TrimRight(line, "\n"))) > 94 {
				t.Errorf("%s: too long a line in its help: %s", c.Name(), line)
			}
		}
	}
}

// TestTheAPIOverTCP serves with tokens and asks through them.
func TestTheAPIOverTCP(t *testing.T) {
	dir, err := os.MkdirTemp("", "cf") //nolint:usetesting // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	const token = "0123456789abcdef0123456789abcdef"
	tokens, mine := filepath.Join(dir, "tokens"), filepath.Join(dir, "mine")
	for name, text := range map[string]string{tokens: "ops " + token + "\n", mine: token + "\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	addr := freeAddr(t)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan int, 1)
	u, _, _ := testUI()
	go func() {
		done <- run(ctx, u, []string{"serve", "--state", dir, "--challenge-listen", "none", "--listen", addr, "--token-file", tokens})
	}()
	defer func() {
		stop()
		if code := <-done; code != exitDone {
			t.Errorf("serve ended with %d", code)
		}
	}()
	for deadline := time.Now().Add(20 * time.Second); ; {
		res, err := http.Get("http://" + addr + "/v1/farms")
		if err == nil {
			res.Body.Close()
			if res.StatusCode != http.StatusUnauthorized {
				t.Errorf("without a token: %s", res.Status)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	u, out, errs := testUI()
	if code := run(ctx, u, []string{"get", "farms", "--url", "http://" + addr, "--token-file", mine, "--json"}); code != exitDone {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
