package install

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/snippet"
)

// newMachine is a machine in a folder, and what systemd was asked.
func newMachine(t *testing.T, folders ...string) (m machine, asked *[]string) {
	t.Helper()
	asked = &[]string{}
	m = machine{root: t.TempDir(), systemctl: func(_ context.Context, words ...string) error {
		*asked = append(*asked, strings.Join(words, " "))
		return nil
	}}
	for _, f := range folders {
		must(t, os.MkdirAll(m.at(f), 0o777))
		must(t, os.Chmod(m.at(f), 0o777)) //nolint:gosec // too much is what is to be mended
	}
	return m, asked
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// do carries a plan out and says what systemd was asked meanwhile.
func do(t *testing.T, p Plan, err error, asked *[]string) []string {
	t.Helper()
	must(t, err)
	*asked = nil
	for _, s := range p.Steps {
		must(t, s.Do(t.Context()))
	}
	return *asked
}

var ask = Ask{Program: "/usr/local/bin/certfarm", State: "/var/lib/certfarm-node", Policy: "/etc/certfarm/policy.yaml", Writes: []string{"/etc/nginx/certs"}}

// The unit is the one that the snippet prints, folders have the rights that they should
// have, and a second time nothing is left to do but to have it enabled.
func TestInstall(t *testing.T) {
	t.Parallel()
	m, asked := newMachine(t, units, booted, ask.State)
	p, err := m.install(ask)
	if got := do(t, p, err, asked); !slices.Equal(got, []string{"daemon-reload", "enable " + Name}) {
		t.Errorf("systemd was asked to %q", got)
	}
	want, err := snippet.AgentUnit(ask)
	must(t, err)
	if got, err := os.ReadFile(m.at(unit)); string(got) != want {
		t.Errorf("the unit: %v\n%s", err, got)
	}
	for path, mode := range map[string]os.FileMode{ask.State: 0o700, filepath.Dir(ask.Policy): 0o755, ask.Writes[0]: 0o755, unit: 0o644} {
		if info, err := os.Stat(m.at(path)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v", path, info, err)
		}
	}
	if rest := strings.Join(p.Rest, "\n"); !strings.Contains(rest, "agent join") || !strings.Contains(rest, "snippet policy") {
		t.Errorf("left for people: %s", rest)
	}
	p, err = m.install(ask)
	if got := do(t, p, err, asked); len(p.Steps) != 1 || !slices.Equal(got, []string{"enable " + Name}) {
		t.Errorf("a second time: %d steps, %q", len(p.Steps), got)
	}
}

// One that has joined is started, and again where it is to run otherwise; uninstall
// leaves what it knows.
func TestInstallOfOneThatHasJoined(t *testing.T) {
	t.Parallel()
	m, asked := newMachine(t, units, booted, ask.State)
	must(t, os.WriteFile(filepath.Join(m.at(ask.State), "agent.json"), []byte("{}"), 0o600))
	p, err := m.install(ask)
	if got := do(t, p, err, asked); !slices.Contains(got, "restart "+Name) {
		t.Errorf("at first %q", got)
	}
	p, err = m.install(ask)
	if got := do(t, p, err, asked); !slices.Contains(got, "start "+Name) {
		t.Errorf("a second time %q", got)
	}
	p, err = m.uninstall()
	if got := do(t, p, err, asked); !slices.Equal(got, []string{"stop " + Name, "disable " + Name, "daemon-reload"}) || m.has(unit) || !m.has(ask.State+"/agent.json") {
		t.Errorf("taken away by %q", got)
	}
	if p, err = m.uninstall(); err != nil || len(p.Steps) > 0 {
		t.Errorf("a second time: %d steps, %v", len(p.Steps), err)
	}
}

func TestInstallWhereItCannotBe(t *testing.T) {
	t.Parallel()
	m, _ := newMachine(t)
	if _, err := m.install(ask); err == nil || !strings.Contains(err.Error(), "no systemd") {
		t.Errorf("without systemd: %v", err)
	}
	m, asked := newMachine(t, units)
	p, err := m.install(ask)
	if got := do(t, p, err, asked); !slices.Equal(got, []string{"enable " + Name}) || !strings.Contains(strings.Join(p.Rest, "\n"), "does not run here") {
		t.Errorf("where systemd does not run: %q, %q", got, p.Rest)
	}
	far := ask
	far.Program = "/root/certfarm"
	if _, err := m.install(far); err == nil || !strings.Contains(err.Error(), "/usr/local/bin") {
		t.Errorf("a program that the unit cannot see: %v", err)
	}
}
