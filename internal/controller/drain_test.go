package controller_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/store"
)

// A node that an activation had to leave out of its balancer is put back when it is
// seen to serve what it should, whoever mended it; and where farm.yaml does not name
// that balancer any more, people are told.
func TestANodeThatServesIsNotLeftOut(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("the balancer of this test is a shell script")
	}
	dir := t.TempDir()
	state, script := filepath.Join(dir, "state"), filepath.Join(dir, "pool")
	must(t, os.WriteFile(state, []byte("in\n"), 0o600))
	must(t, os.WriteFile(script, []byte("case $1 in state) cat '"+state+"';; out) echo out > '"+state+"';; back) echo in > '"+state+"';; esac\n"), 0o600))
	b, v1 := serving(t, setting{
		layout: lab.Layout{Nodes: 2},
		adjust: func(_ *bed, c *controller.Config) {
			c.Commands = map[string][]string{"pool": {"sh", script}}
		},
		edit: func(_ *bed, text string) string {
			return strings.Replace(text, "    labels: {pool: web}\n", "    labels: {pool: web}\n    drain: [{command: pool, wait: 1s}]\n", 1)
		},
	})
	left := func(names ...string) {
		t.Helper()
		text, err := json.Marshal(names)
		must(t, err)
		must(t, os.WriteFile(state, []byte("out\n"), 0o600))
		must(t, b.store.Update(b.ctx, func(tx *store.Tx) error { return tx.SetWord(b.ctx, b.Farm, "drained web1", string(text)) }))
	}
	stands := func(want string) {
		t.Helper()
		got, err := os.ReadFile(state)
		must(t, err)
		if strings.TrimSpace(string(got)) != want {
			t.Errorf("web1 is %s, want %s\n%s", got, want, b.story())
		}
	}
	stands("in")
	after := b.last()
	left("web1 by command pool")
	b.look()
	if e := b.happens("node.back", after); e.Node != "web1" || !strings.Contains(e.Text, "command pool") {
		t.Errorf("%+v", e)
	}
	stands("in")
	b.allServe(v1)

	left("web1 by command old")
	b.look()
	if e := b.happens("node.left-out", after); e.Level != farm.Warn || e.Hint == "" || !strings.Contains(e.Text, "command old") {
		t.Errorf("%+v", e)
	}
	stands("out")
	b.look()
	b.pass(10 * time.Minute)
	b.rests()
	if n := b.count("node.left-out"); n != 1 {
		t.Errorf("%d events for one thing", n)
	}
}
