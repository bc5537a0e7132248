package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/agent"
	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/controller"
)

func newNodeToken(a *app) *cobra.Command {
	var pool string
	var uses int
	var valid time.Duration
	c := a.inFarm(&cobra.Command{
		Use: "token NODE | --pool LABEL=VALUE --uses N", Short: "Make a token with which an agent joins, and show it once",
		Long: `Token makes a one-time token with which a machine becomes the agent of a node
(certfarm agent join). It is good for an hour at most and shown once; the controller
keeps its SHA-256 alone. It holds what the agent knows the controllers by.

With --pool it is a group token, for machines that come and go: each one joins as its
own name if farm.yaml lists that with the label, else as the first node with the label
that has no agent, or whose agent was silent for an hour.`,
		Example: `certfarm node token web7 | ssh web7 sudo certfarm agent join --server https://certfarm1:8404
certfarm node token --pool pool=web --uses 20`,
		Args: args(0, 1, "one node"), ValidArgsFunction: a.completeNames("node"),
		RunE: func(cmd *cobra.Command, given []string) error {
			ask := controller.AgentTokenAsk{Uses: uses, Valid: valid}
			label, value, ok := strings.Cut(pool, "=")
			switch {
			case (pool == "") == (len(given) == 0):
				return usage("certfarm node token web7, or certfarm node token --pool pool=web --uses 20", "token needs a node, or --pool")
			case pool != "" && (!ok || label == ""):
				return usage("--pool pool=web", "--pool %s is no label and value", pool)
			case pool != "":
				ask.Labels = map[string]string{label: value}
			default:
				ask.Node = given[0]
			}
			return a.with(cmd.Context(), func(c *client.Client, farmName string) error {
				return a.nodeToken(cmd.Context(), c, farmName, ask)
			})
		},
	})
	f := c.Flags()
	f.StringVar(&pool, "pool", "", "a label and its value: the token is for the nodes that have it")
	f.IntVar(&uses, "uses", 1, "with --pool: how many machines may join")
	f.DurationVar(&valid, "valid", time.Hour, "how long it is good for; an hour at most")
	return c
}

// nodeToken makes a token here and has the controller know its digest.
func (a *app) nodeToken(ctx context.Context, c *client.Client, farmName string, ask controller.AgentTokenAsk) error {
	t := agent.Token{Secret: agent.NewTokenSecret()}
	ask.Digest = t.Digest()
	made, err := c.NewAgentToken(ctx, farmName, ask)
	if err != nil {
		return a.meant(ctx, c, "nodes", farmName, ask.Node, err)
	}
	t.Pins = made.Pins
	text := string(t.Text().Reveal())
	if a.json {
		return a.object(object{"agent-token", farmName, map[string]any{"token": text, "node": ask.Node, "uses": max(1, ask.Uses), "until": made.Until}})
	}
	a.print("%s", text)
	a.say("It is good until %s and shown once. On the machine: certfarm agent join --server https://HOST:PORT, with this on its standard input.", date(made.Until))
	return nil
}

func newNodeBan(a *app, on bool) *cobra.Command {
	word, short, said := "unban", "Let the agent of a node in again, after a ban or a quarantine", "is let in again"
	if on {
		word, short, said = "ban", "Turn away the agent of a node: it gets nothing more", "is turned away, and nobody joins as that node until `certfarm node unban`"
	}
	return a.inFarm(&cobra.Command{
		Use: word + " NODE", Short: short, Example: "certfarm node " + word + " web1",
		Args: args(1, 1, "the name of a node"), ValidArgsFunction: a.completeNames("node"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.with(cmd.Context(), func(c *client.Client, farmName string) error {
				if err := c.BanAgent(cmd.Context(), farmName, given[0], on); err != nil {
					return a.meant(cmd.Context(), c, "nodes", farmName, given[0], err)
				}
				return a.done("node", map[string]any{"node": given[0], "banned": on}, "The agent of %s %s.", given[0], said)
			})
		},
	})
}

// agentCell is a node's agent in a list.
func agentCell(u *ui, s *controller.AgentStatus) cell {
	if s == nil {
		return cell{text: "–"}
	}
	t := map[string]tone{"up": good, "silent": bad, "banned": warn, "quarantined": bad, "none": warn, "joined": warn}[s.State]
	if s.State == "silent" {
		return cell{"silent, heard " + u.when(s.Heard), t}
	}
	return cell{s.State, t}
}

// describeAgent tells of a node's agent, if farm.yaml says that it has one.
func (a *app) describeAgent(node string, s *controller.AgentStatus) {
	if s == nil {
		return
	}
	state := map[string]string{
		"none":        "none has joined: `certfarm node token " + node + "` lets one",
		"joined":      "has joined and not asked for work yet: is `certfarm agent run` running there?",
		"up":          "up",
		"silent":      "silent",
		"banned":      "banned by " + s.Why + " until `certfarm node unban " + node + "`",
		"quarantined": "in quarantine: " + s.Why,
	}[s.State]
	heard, until := "", ""
	if !s.Heard.IsZero() {
		heard = a.when(s.Heard)
	}
	if !s.Until.IsZero() {
		until = date(s.Until) + ", it renews itself"
	}
	a.facts([]fact{
		{"Agent", state, agentCell(a.ui, s).tone}, {"Heard", heard, plain}, {"Version", s.Version, plain},
		clockFact(s.Clock), {"Certificate", until, plain}, {"Key", s.Pin, faint},
	})
}

// clockFact tells of a clock that is known.
func clockFact(ahead *time.Duration) fact {
	switch {
	case ahead == nil:
		return fact{name: "Clock"}
	case !controller.ClockOff(ahead):
		return fact{"Clock", "right", plain}
	case *ahead > 0:
		return fact{"Clock", ahead.String() + " ahead of the controllers'", warn}
	}
	return fact{"Clock", ahead.Abs().String() + " behind the controllers'", warn}
}
