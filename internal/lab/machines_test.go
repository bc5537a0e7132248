package lab

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

func TestAHundredNodesStartQuickly(t *testing.T) {
	begun := time.Now()
	m := newMachines(t, Layout{Nodes: MaxNodes})
	took := time.Since(begun)
	t.Logf("%d nodes in %s", MaxNodes, took)
	if took > 10*time.Second {
		t.Errorf("%d nodes took %s", MaxNodes, took)
	}
	seen := map[string]bool{}
	for _, n := range m.Nodes {
		for _, addr := range []string{n.SSHAddr(), n.HTTPAddr(), n.HTTPSAddr()} {
			if seen[addr] {
				t.Fatalf("%s is given twice", addr)
			}
			seen[addr] = true
		}
	}
	last, err := m.Node("web100")
	if err != nil || !canConnect(last.SSHAddr()) {
		t.Errorf("web100: %v", err)
	}
}

func TestControllerKey(t *testing.T) {
	m := newMachines(t, Layout{Nodes: 1})
	info, err := os.Stat(m.KeyFile)
	must(t, err)
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %s", info.Mode())
	}
	text, err := os.ReadFile(m.KeyFile)
	must(t, err)
	_, err = ssh.ParsePrivateKey(text)
	must(t, err)
}

func TestMachinesByName(t *testing.T) {
	m := newMachines(t, Layout{})
	for name, hint := range map[string]string{"web4": "did you mean web1?", "db": "there are web1 to web3"} {
		if _, err := m.Node(name); err == nil || !strings.Contains(err.Error(), hint) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := StartMachines(Layout{Dir: t.TempDir(), Nodes: MaxNodes + 1}); !errors.Is(err, ErrNodes) {
		t.Errorf("101 nodes: %v", err)
	}
}
