package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/agent"
	"github.com/certfarm/certfarm/internal/agent/door"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/deploy/target"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/fence"
	"github.com/certfarm/certfarm/internal/host/local"
	"github.com/certfarm/certfarm/internal/probe"
	"github.com/certfarm/certfarm/internal/snippet"
)

func newAgent(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use: "agent join|install|run", GroupID: groupStart, Short: "Work on a node that nobody reaches: its agent asks the controllers",
		Long: `The agent is for nodes that the controllers cannot or should not log in to. It asks
them what is to be done, does it if this node's own policy allows it, and brings the
answer; nothing connects to the node. Join once, with a token; then install it as a
service, or run it.

At a controller: certfarm serve --agents :8404, "agent: true" for the node in
farm.yaml, and certfarm node token NODE.`,
		Example: `certfarm agent join --server https://certfarm1:8404 --server https://certfarm2:8404 < token
certfarm agent install --write /etc/nginx/certs
certfarm agent run`,
	}, newAgentJoin(a), newAgentInstall(a), newAgentUninstall(a), newAgentRun(a))
}

func newAgentJoin(a *app) *cobra.Command {
	var servers []string
	var file, node, state string
	c := &cobra.Command{
		Use: "join --server URL", Short: "Become the agent of a node, with a token",
		Long: `Join makes a key on this machine, which never leaves it, and has the controllers
take it for a node's. The token says which node, and by which CA the controllers are
known: no certificate of theirs need be copied. It is read from the standard input or
from a file, and is worth nothing afterwards.`,
		Example: `certfarm agent join --server https://certfarm1:8404 < token
certfarm agent join --server https://certfarm1:8404 --token-file /run/token --node web7`,
		Args: args(0, 0, "nothing"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(servers) == 0 {
				return usage("--server https://host:8404, as `certfarm serve --agents` listens", "join needs --server")
			}
			text, err := a.joinToken(file)
			if err != nil {
				return err
			}
			token, err := agent.ReadToken(text)
			if err != nil {
				return usage("give it on the standard input, or with --token-file", "%w", err)
			}
			i, err := agent.JoinFarm(cmd.Context(), agent.JoinSetup{Servers: servers, Token: token, Node: node, State: state, Version: version()})
			if err != nil {
				return hinted(err, "a token is good once, for an hour: `certfarm node token NODE` at a controller makes another")
			}
			return a.done("joined", map[string]any{"farm": i.Farm, "node": i.Node, "until": i.Until},
				"This machine is node %s of farm %s. Its certificate renews itself while `certfarm agent run` runs.", i.Node, i.Farm)
		},
	}
	f := c.Flags()
	f.StringSliceVar(&servers, "server", nil, "URL of a controller's door for agents, https://host:port; several for several controllers")
	f.StringVar(&file, "token-file", "", "file with the token (default: the standard input)")
	f.StringVar(&node, "node", "", "what this machine is called in farm.yaml; needed only where a group token should give it that name")
	f.StringVar(&state, "state", agent.DefaultState(), "folder of the agent's key and memory, for its user alone")
	_ = c.MarkFlagDirname("state") // there is such a flag
	return c
}

// joinToken reads a token from a file, the standard input, or a person.
func (a *app) joinToken(file string) (farm.Secret, error) {
	if file == "" && isTerminal(a.in) {
		return a.hidden("Token")
	}
	if file == "" {
		file = "-"
	}
	text, err := a.readFile(file, maxSecret)
	return farm.NewSecret(text), err
}

// agentRun is what `certfarm agent run` was told.
type agentRun struct{ state, policy, ready string }

func newAgentRun(a *app) *cobra.Command {
	var r agentRun
	c := &cobra.Command{
		Use: "run", Short: "Ask the controllers what is to be done, and do it, until told to stop",
		Long: `Run is the agent itself. When the controllers are gone it ends what it has begun and
begins nothing; answers wait on disk. What is done, and what was refused with the
reason, is in node.log in the state folder.

With --ready it answers GET /ready on a loopback address: 200 when every target of this
node serves what it should, by a handshake of the agent's own; else 503 with the
reasons. A balancer, or the step that puts a new machine into one, waits for that.`,
		Example: "certfarm agent run\ncertfarm agent run --ready 127.0.0.1:8405",
		Args:    args(0, 0, "nothing"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return asService(cmd.Context(), func(ctx context.Context) error { return a.runAgent(ctx, r) })
		},
	}
	f := c.Flags()
	f.StringVar(&r.state, "state", agent.DefaultState(), "folder of the agent's key and memory, for its user alone")
	f.StringVar(&r.policy, "policy", fence.File, "what may be done on this node: a file that only root may write")
	f.StringVar(&r.ready, "ready", "", "loopback address for GET /ready: 127.0.0.1:8405")
	_ = c.MarkFlagDirname("state") // there is such a flag
	return c
}

func (a *app) runAgent(ctx context.Context, r agentRun) error {
	i, err := agent.LoadIdentity(r.state)
	if err != nil {
		if errors.Is(err, agent.ErrNotJoined) {
			return hinted(err, "`certfarm agent join --server https://host:8404` with a token of `certfarm node token NODE`")
		}
		return err
	}
	file, err := openLog(filepath.Join(r.state, "node.log"))
	if err != nil {
		return err
	}
	defer file.Close()
	answerer, err := agent.NewAnswerer(agent.AnswererSetup{
		Kinds: target.All(), Host: local.New(local.Config{}), State: r.state, Log: slog.New(slog.NewJSONHandler(file, nil)),
		Policy: func() (fence.Policy, error) { return fence.Load(r.policy) },
	})
	if err != nil {
		return err
	}
	log := a.logger(slog.LevelInfo)
	loop, err := agent.NewLoop(agent.LoopSetup{Identity: i, State: r.state, Answerer: answerer, Version: version(), Log: log})
	if err != nil {
		return err
	}
	parts := []func(context.Context) error{loop.Run}
	if r.ready != "" {
		l, err := listenReady(r.ready)
		if err != nil {
			return err
		}
		ready := agent.NewReadiness(loop, probe.TLS{})
		parts = append(parts, func(ctx context.Context) error { return agent.ServeReady(ctx, l, ready) })
	}
	if _, err := fence.Load(r.policy); err != nil {
		log.Warn("nothing may be done on this node", "error", err)
	}
	log.Info("ready", "farm", i.Farm, "node", i.Node, "controllers", strings.Join(i.Servers, " "))
	err = together(ctx, parts...)
	log.Info("stopped")
	return err
}

// listenReady listens on loopback only: what a node serves is nobody else's business.
func listenReady(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("readiness: %w", err)
	}
	if at, ok := l.Addr().(*net.TCPAddr); !ok || !at.IP.IsLoopback() {
		return nil, errors.Join(usage("say 127.0.0.1:8405; a balancer elsewhere asks by a rule of the web server", "--ready %s is no loopback address", address), l.Close())
	}
	return l, nil
}

// An agentsDoor is the door for agents, or none.
type agentsDoor struct{ open *door.Door }

// openAgents opens the door for agents; none where there is no address.
func openAgents(ctx context.Context, address string, c *controller.Controller, log *slog.Logger) (agentsDoor, error) {
	if address == "" || address == noDoor {
		return agentsDoor{}, nil
	}
	d, err := door.Listen(ctx, door.Config{Controller: c, Address: address, Log: log})
	return agentsDoor{d}, hinted(err, "choose another address with --agents")
}

// serve answers until the context ends.
func (d agentsDoor) serve(ctx context.Context) error {
	if d.open == nil {
		<-ctx.Done()
		return nil
	}
	return d.open.Serve(ctx)
}

// newAgentUnit prints the unit of systemd that runs the agent. It asks no controller:
// it is called on the node.
func newAgentUnit(a *app) *cobra.Command {
	var ask snippet.AgentUnitAsk
	c := &cobra.Command{
		Use: "agent-unit", Short: "Print the systemd unit that runs the agent on a node",
		Long: `Agent-unit prints a unit for /etc/systemd/system/certfarm-agent.service. Under it the
agent can write to its own folder and to those that are named, and to nothing else.
Test and reload commands run under it, too: have them ask systemd ("systemctl reload
nginx"), or name the folders that they write to and, for a test that opens ports below
1024 as ` + "`nginx -t`" + ` does, say --low-ports.`,
		Example: `certfarm snippet agent-unit --write /etc/nginx/certs --write /var/log/nginx --low-ports
certfarm snippet agent-unit --ready 127.0.0.1:8405 > /etc/systemd/system/certfarm-agent.service`,
		Args: args(0, 0, "nothing"),
		RunE: func(*cobra.Command, []string) error {
			if ask.Program = agentProgram(); strings.ContainsAny(ask.Program, " %\\\"'") {
				ask.Program = "/usr/local/bin/certfarm"
			}
			text, err := snippet.AgentUnit(ask)
			if err != nil {
				return usage("`certfarm snippet agent-unit --help` shows examples", "%w", err)
			}
			if a.json {
				return a.object(object{Type: "unit", Item: map[string]string{"text": text}})
			}
			_, err = io.WriteString(a.out, text)
			return err
		},
	}
	agentUnitFlags(c, &ask)
	return c
}
