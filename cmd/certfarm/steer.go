package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/controller"
)

func newFreeze(a *app) *cobra.Command {
	var off bool
	c := a.inFarm(&cobra.Command{
		Use: "freeze", GroupID: groupWork, Short: "Stop all activations of a farm, or let them go on",
		Long: `Freeze stops every activation at once, until freeze --off. Certificates are
still ordered and staged, and what fails is still put back.`,
		Example: "certfarm freeze\ncertfarm freeze --off",
		Args:    args(0, 0, "nothing"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(c *client.Client, farmName string) error {
				if err := c.Freeze(cmd.Context(), farmName, !off); err != nil {
					return err
				}
				if off {
					return a.done("frozen", map[string]any{"farm": farmName, "on": false}, "Farm %s goes on.", farmName)
				}
				return a.done("frozen", map[string]any{"farm": farmName, "on": true}, "Farm %s is frozen: nothing goes live until `certfarm freeze --off`.", farmName)
			})
		},
	})
	c.Flags().BoolVar(&off, "off", false, "let activations go on")
	return c
}

func newNode(a *app) *cobra.Command {
	hold := func(word, short, said string, on bool) *cobra.Command {
		return a.inFarm(&cobra.Command{
			Use: word + " NODE", Short: short, Example: "certfarm node " + word + " web1",
			Args: args(1, 1, "the name of a node"), ValidArgsFunction: a.completeNames("node"),
			RunE: func(cmd *cobra.Command, given []string) error {
				return a.with(cmd.Context(), func(c *client.Client, farmName string) error {
					if err := c.Hold(cmd.Context(), farmName, given[0], on); err != nil {
						return a.meant(cmd.Context(), c, "nodes", farmName, given[0], err)
					}
					return a.done("node", map[string]any{"node": given[0], "held": on}, "%s %s.", given[0], said)
				})
			},
		})
	}
	return group(&cobra.Command{
		Use: "node hold|release|token|ban|unban|ca", GroupID: groupWork, Short: "Keep all changes away from a node; let its agent in, or turn it away",
		Example: "certfarm node hold web1\ncertfarm node release web1\ncertfarm node token web1",
	},
		hold("hold", "Change nothing on a node", "is held: nothing is changed on it until it is released", true),
		hold("release", "Change it again, and bring what it missed", "is released; what it missed is brought there", false),
		newNodeToken(a), newNodeBan(a, true), newNodeBan(a, false), newNodeCA(a),
	)
}

func newRetire(a *app) *cobra.Command {
	return a.inFarm(&cobra.Command{
		Use: "retire TARGET", GroupID: groupFarm, Short: "Forget a target that is gone from farm.yaml",
		Long: `A target that is gone from farm.yaml is left alone and listed, since it may still
serve. Retire forgets it. What it serves and what is on its disk stay.`,
		Example: "certfarm retire shop/nginx@web3",
		Args:    args(1, 1, "the name of a target"), ValidArgsFunction: a.completeNames("target"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.with(cmd.Context(), func(c *client.Client, farmName string) error {
				if err := c.Retire(cmd.Context(), farmName, given[0]); err != nil {
					return a.meant(cmd.Context(), c, "targets", farmName, given[0], err)
				}
				return a.done("retired", map[string]any{"target": given[0]}, "%s is retired; what it serves was left alone.", given[0])
			})
		},
	})
}

func newVerify(a *app) *cobra.Command {
	var all bool
	c := a.inFarm(&cobra.Command{
		Use: "verify SITE|--all", GroupID: groupWork, Short: "Ask every endpoint now what it serves",
		Long: `Verify asks every endpoint of a site by its own address, and shows what each one
serves. It changes nothing. It ends with 1 if one serves something else than it
should. While a rollout runs, a target that it has changed should serve the new
certificate, and one whose turn has not come what it had.`,
		Example: "certfarm verify shop\ncertfarm verify --all || mail -s 'certificates' ops@example.com",
		Args:    args(0, 1, "one site"), ValidArgsFunction: a.completeNames("site"),
		RunE: func(cmd *cobra.Command, given []string) error {
			if all == (len(given) == 1) {
				return usage("certfarm verify shop", "verify needs the name of a site, or --all")
			}
			return a.with(cmd.Context(), func(c *client.Client, farmName string) error {
				sites := given
				if all {
					l, err := listSites(cmd.Context(), c, farmName)
					if err != nil {
						return err
					}
					sites = l.names
				}
				return a.verify(cmd, c, farmName, sites)
			})
		},
	})
	c.Flags().BoolVar(&all, "all", false, "verify every site")
	return c
}

// A verified is one target of a site, in JSON.
type verified struct {
	Site string `json:"site"`
	controller.Verified
}

func (a *app) verify(cmd *cobra.Command, c *client.Client, farmName string, sites []string) error {
	code := exitDone
	var rows [][]cell
	found := []verified{}
	for _, s := range sites {
		targets, err := c.Verify(cmd.Context(), farmName, s)
		if err != nil {
			return a.meant(cmd.Context(), c, "sites", farmName, s, err)
		}
		for _, t := range targets {
			found = append(found, verified{s, t})
			if !t.OK {
				code = exitFailed
			}
			rows = append(rows, verdicts(t)...)
		}
	}
	if a.json {
		if err := a.object(listing{"verified", farmName, found}); err != nil {
			return err
		}
		return quiet(code)
	}
	if len(rows) == 0 {
		return &exit{exitPartly, errors.New("no target should serve anything yet"), "`certfarm get sites` shows what they wait for"}
	}
	a.table([]string{"TARGET", "ENDPOINT", "", "SERVES"}, rows)
	return quiet(code)
}

// verdicts are the lines about one target: one for each endpoint.
func verdicts(t controller.Verified) (rows [][]cell) {
	for _, s := range t.Sights {
		saw, tn := seen(s)
		sign := "✓"
		if !t.OK {
			sign, tn = "✗", bad
			saw += ": " + oneLine(t.Why)
		}
		rows = append(rows, []cell{{text: t.Target}, {text: s.Endpoint.Address}, {sign, tn}, {saw, tn}})
	}
	if len(t.Sights) == 0 {
		rows = append(rows, []cell{{text: t.Target}, {text: "–"}, {"✗", bad}, {dash(t.Why), bad}})
	}
	return rows
}
