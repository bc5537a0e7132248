package snippet

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// An AgentUnitAsk is what the unit of a node's agent must allow.
type AgentUnitAsk struct {
	Program  string   // the certfarm binary
	State    string   // folder of the agent's key and memory
	Policy   string   // the node's own policy
	Ready    string   // loopback address of GET /ready; empty: none
	Writes   []string // folders that certificates, tests and reloads write to
	LowPorts bool     // a test opens ports below 1024
}

// unitWord is what is put into a unit as it is: nothing that systemd would expand,
// split or unquote.
var unitWord = regexp.MustCompile(`^[A-Za-z0-9_./:@+\[\]-]+$`)

const agentUnit = `# The agent of a node as a systemd unit. Checked with systemd-analyze verify, not run
# under systemd by the project's own tests. Written by certfarm snippet agent-unit.
[Unit]
Description=Certfarm's agent: brings this node's certificates up to date
Documentation=https://github.com/certfarm/certfarm
Wants=network-online.target
After=network-online.target

[Service]
# root, since certificates belong to it and servers are reloaded; but it may write to
# the folders below only, and has no more of root's powers than they need.
User=root
UMask=0077
ExecStart=%s
Restart=always
RestartSec=5
# What was begun is ended, within its own deadline.
TimeoutStopSec=180

NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths=%s
%s
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
LimitCORE=0

[Install]
WantedBy=multi-user.target
`

// agentPowers are what is left of root: to give files to their owner, to read and
// replace those of others, and to signal a server.
const agentPowers = "CAP_CHOWN CAP_FOWNER CAP_DAC_OVERRIDE CAP_KILL"

// AgentUnit writes the unit.
func AgentUnit(a AgentUnitAsk) (string, error) {
	words := append([]string{a.Program, a.State, a.Policy}, a.Writes...)
	for _, w := range words {
		if !unitWord.MatchString(w) || !path.IsAbs(w) || path.Clean(w) != w {
			return "", fmt.Errorf("%q is no full path that a unit can have as it stands", w)
		}
	}
	run := a.Program + " agent run --state " + a.State + " --policy " + a.Policy
	if a.Ready != "" {
		if !unitWord.MatchString(a.Ready) {
			return "", fmt.Errorf("%q is no address and port", a.Ready)
		}
		run += " --ready " + a.Ready
	}
	powers := agentPowers
	if a.LowPorts {
		powers += " CAP_NET_BIND_SERVICE"
	}
	return fmt.Sprintf(agentUnit, run, strings.Join(append([]string{a.State}, a.Writes...), " "), "CapabilityBoundingSet="+powers), nil
}
