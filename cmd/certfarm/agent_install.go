package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/agent"
	"github.com/certfarm/certfarm/internal/agent/install"
	"github.com/certfarm/certfarm/internal/fence"
)

func newAgentInstall(a *app) *cobra.Command {
	var ask install.Ask
	var dry bool
	c := &cobra.Command{
		Use: "install", Short: "Make the agent a service of this machine",
		Long: `Install makes the agent a service: on Linux the unit that ` + "`certfarm snippet agent-unit`" + `
prints, with its folders, enabled in systemd and started if this machine has joined; on
Windows a service that starts with the machine. It may be repeated: what is as it should
be stays, and an agent whose unit changed is restarted.`,
		Example: `certfarm agent install --write /etc/nginx/certs --ready 127.0.0.1:8405
certfarm agent install --write /etc/nginx/certs --dry-run`,
		Args: args(0, 0, "nothing"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ask.Program = agentProgram()
			p, err := install.Install(ask)
			if err != nil {
				return hinted(err, "`certfarm agent install --help` shows examples")
			}
			return a.carryOut(cmd, p, dry, "installed", "The agent is a service of this machine.")
		},
	}
	agentUnitFlags(c, &ask)
	c.Flags().BoolVar(&dry, "dry-run", false, "say what would be done, and do nothing")
	return c
}

func newAgentUninstall(a *app) *cobra.Command {
	var dry bool
	c := &cobra.Command{
		Use: "uninstall", Short: "Take the agent's service away from this machine",
		Long: `Uninstall stops the agent, which ends what it has begun, and takes its service away. Its
key, its memory and the policy stay: remove their folders by hand, and have a controller
turn the agent away with ` + "`certfarm node ban NODE`" + `.`,
		Example: "certfarm agent uninstall --dry-run",
		Args:    args(0, 0, "nothing"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := install.Uninstall()
			if err != nil {
				return err
			}
			return a.carryOut(cmd, p, dry, "uninstalled", "The agent is no service of this machine.")
		},
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "say what would be done, and do nothing")
	return c
}

// carryOut does the steps of a plan, or says them.
func (a *app) carryOut(cmd *cobra.Command, p install.Plan, dry bool, kind, text string) error {
	did := []string{}
	if !dry {
		if err := install.Allowed(); err != nil {
			return hinted(err, "as root, or an elevated administrator; --dry-run says what would be done")
		}
	}
	for _, s := range p.Steps {
		if !dry {
			if err := s.Do(cmd.Context()); err != nil {
				return hinted(err, "what was done before it stays; repeat the command when that is mended")
			}
		}
		did = append(did, s.What)
	}
	if a.json {
		return a.object(object{Type: kind, Item: map[string]any{"steps": did, "rest": append([]string{}, p.Rest...), "dry_run": dry}})
	}
	word := "did"
	if dry {
		word, text = "would do", "Nothing was changed."
	}
	for _, what := range did {
		a.print("%s: %s", word, what)
	}
	for _, what := range p.Rest {
		a.print("for you: %s", what)
	}
	a.print("%s", text)
	return nil
}

// agentProgram is the program that a service of the agent runs: this one.
func agentProgram() string {
	if self, err := os.Executable(); err == nil && filepath.IsAbs(self) {
		return self
	}
	return "/usr/local/bin/certfarm"
}

// agentUnitFlags are the flags that say how the agent runs as a service.
func agentUnitFlags(c *cobra.Command, ask *install.Ask) {
	f := c.Flags()
	f.StringVar(&ask.State, "state", agent.DefaultState(), "folder of the agent's key and memory")
	f.StringVar(&ask.Policy, "policy", fence.File, "the node's own policy")
	f.StringVar(&ask.Ready, "ready", "", "loopback address for GET /ready")
	f.StringSliceVar(&ask.Writes, "write", nil, "folders that certificates, tests and reloads write to")
	f.BoolVar(&ask.LowPorts, "low-ports", false, "a test command opens ports below 1024 (CAP_NET_BIND_SERVICE)")
}
