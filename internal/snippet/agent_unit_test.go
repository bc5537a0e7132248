package snippet

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The unit has what was asked for and no more, and systemd takes it.
func TestAgentUnit(t *testing.T) {
	a := AgentUnitAsk{Program: "/usr/bin/true", State: "/var/lib/certfarm-node", Policy: "/etc/certfarm/policy.yaml", Ready: "127.0.0.1:8405", Writes: []string{"/etc/nginx/certs"}}
	text, err := AgentUnit(a)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\nExecStart=/usr/bin/true agent run --state /var/lib/certfarm-node --policy /etc/certfarm/policy.yaml --ready 127.0.0.1:8405\n",
		"\nReadWritePaths=/var/lib/certfarm-node /etc/nginx/certs\n", "\nNoNewPrivileges=yes\n", "\nProtectSystem=strict\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %q", want)
		}
	}
	if strings.Contains(text, "CAP_NET_BIND_SERVICE") {
		t.Error("it may open low ports, and was not asked to")
	}
	a.LowPorts = true
	low, err := AgentUnit(a)
	if err != nil || !strings.Contains(low, " CAP_NET_BIND_SERVICE\n") {
		t.Errorf("with low ports: %v", err)
	}
	for _, bad := range []string{"certs", "/etc/a b", "/etc/%n", "/etc/../x", "/x\nExecStartPre=/bin/sh", ""} {
		if _, err := AgentUnit(AgentUnitAsk{Program: "/usr/bin/true", State: "/s", Policy: "/p", Writes: []string{bad}}); err == nil {
			t.Errorf("%q is taken for a folder", bad)
		}
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	file := filepath.Join(t.TempDir(), "certfarm-agent.service")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), analyze, "verify", file).CombinedOutput(); err != nil {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
