package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/api/client"
)

// watching says whether a command watches what it began.
type watching struct {
	detach bool
	one    bool // one rollout, and not the orders of the site
	wait   time.Duration
}

func (w *watching) flags(c *cobra.Command) {
	c.Flags().BoolVar(&w.detach, "detach", false, "do not watch the rollout")
	c.Flags().DurationVar(&w.wait, "for", 0, "watch for this long at most (default: to the end)")
}

func newRenew(a *app) *cobra.Command {
	var w watching
	c := a.inFarm(&cobra.Command{
		Use: "renew SITE", GroupID: groupWork, Short: "Order a new certificate now, and watch the rollout",
		Long: `Renew orders a new certificate for a site, due or not. The limits of the CA are
kept: where they say to wait, it waits.`,
		Example: "certfarm renew shop\ncertfarm renew shop --detach",
		Args:    args(1, 1, "the name of a site"), ValidArgsFunction: a.completeNames("site"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.begin(cmd.Context(), given[0], w, "A new certificate for "+given[0]+" is ordered.", func(c *client.Client, farmName string) error {
				return c.Renew(cmd.Context(), farmName, given[0])
			})
		},
	})
	w.flags(c)
	return c
}

// begin does something that begins a rollout of a site, and watches it. Said is told
// when it was done; empty: do tells it.
func (a *app) begin(ctx context.Context, site string, w watching, said string, do func(*client.Client, string) error) error {
	return a.with(ctx, func(c *client.Client, farmName string) error {
		f := &follower{ui: a.ui, source: c, farm: farmName, sites: []string{site}, wait: w.wait, detaches: true, one: w.one}
		if err := f.begin(ctx); err != nil {
			return err
		}
		if err := do(c, farmName); err != nil {
			return a.meant(ctx, c, "sites", farmName, site, err)
		}
		if said != "" {
			a.say("%s", said)
		}
		if w.detach {
			return a.result(waiting(f.sites))
		}
		return a.follow(ctx, f)
	})
}
