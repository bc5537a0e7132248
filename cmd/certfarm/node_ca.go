package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
)

func newNodeCA(a *app) *cobra.Command {
	var now, yes bool
	over := a.asks(&cobra.Command{
		Use: "rollover", Short: "Have another CA follow that of the agents before its time",
		Long: `Rollover makes another CA for the agents of all farms. They learn of it when they renew
their certificate, within half a day; it signs when all know of it, and after 90 days
at the latest. An agent that was silent all that time must join anew. By itself this
begins two years before the CA ends: say it where its key may be known to others.

With --now the new one signs at once. Agents that do not know of it yet must join anew:
they are named before, and you are asked.`,
		Example: "certfarm node ca rollover\ncertfarm node ca rollover --now",
		Args:    args(0, 0, "nothing"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withAgentsCA(cmd, func(c *client.Client, is controller.AgentsCA) (controller.AgentsCA, error) {
				if now && !yes {
					if err := a.assentToLose(is); err != nil {
						return is, err
					}
				}
				return c.RollOverAgentsCA(cmd.Context(), now)
			})
		},
	})
	over.Flags().BoolVar(&now, "now", false, "do not wait until all agents know of it: those that do not must join anew")
	over.Flags().BoolVar(&yes, "yes", false, "do not ask")
	show := a.asks(&cobra.Command{
		Use: "ca", Short: "Tell of the CA of the agents, and which of them know the one that follows it",
		Example: "certfarm node ca\ncertfarm node ca rollover",
		Args:    args(0, 0, "nothing"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withAgentsCA(cmd, func(_ *client.Client, is controller.AgentsCA) (controller.AgentsCA, error) { return is, nil })
		},
	})
	show.AddCommand(over)
	return show
}

// withAgentsCA reads how the CA of the agents is, has f act on it, and shows it.
func (a *app) withAgentsCA(cmd *cobra.Command, f func(*client.Client, controller.AgentsCA) (controller.AgentsCA, error)) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	is, err := c.AgentsCA(cmd.Context())
	if err == nil {
		is, err = f(c, is)
	}
	if err != nil {
		return err
	}
	if a.json {
		return a.object(object{Type: "agents-ca", Item: is})
	}
	a.showAgentsCA(is)
	return nil
}

// assentToLose asks whether agents may be lost.
func (a *app) assentToLose(is controller.AgentsCA) error {
	what := "every agent of every farm"
	if is.Next != "" {
		what = farm.Count(len(is.Unaware), "agent")
		if len(is.Unaware) == 0 {
			return nil
		}
	}
	if !isTerminal(a.in) || a.json {
		return usage("say it without --now and wait until `certfarm node ca` shows that all know of it; or add --yes", "%s would have to join anew, and nobody can be asked", what)
	}
	if !a.ask("Then " + what + " must join anew with a token: " + dash(some(is.Unaware, mostShown)) + ". Go on?") {
		return usage("say it without --now", "nothing was done")
	}
	return nil
}

func (a *app) showAgentsCA(is controller.AgentsCA) {
	if is.Pin == "" {
		a.print("There is no CA of agents yet: it is made when the first agent is to join.")
		return
	}
	a.facts([]fact{{"CA", is.Pin, faint}, {"Made", date(is.Made), plain}, {"Ends", date(is.Ends), plain}})
	if is.Next == "" {
		a.print("Another follows it by itself, two years before it ends.")
		return
	}
	tone := good
	if len(is.Unaware) > 0 {
		tone = warn
	}
	a.facts([]fact{
		{"Next", is.Next, faint}, {"Since", date(is.Since), plain}, {"Signs by", date(is.By), plain},
		{"Known to", strconv.Itoa(is.Agents-len(is.Unaware)) + " of " + farm.Count(is.Agents, "agent"), tone},
	})
	if len(is.Unaware) > 0 {
		a.print("Not yet to %s: they are told when they renew their certificate, within half a day, if they run.", some(is.Unaware, mostShown))
	}
}
