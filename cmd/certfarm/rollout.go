package main

import (
	"cmp"
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

func newRollout(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use: "rollout status|pause|resume|abort|undo|approve SITE|ID", GroupID: groupWork, Short: "See and steer a rollout",
		Long: `A rollout is named by its id, or by its site for the site's newest one.`,
		Example: `certfarm rollout status shop --follow
certfarm rollout pause shop
certfarm rollout approve shop --wave production
certfarm rollout undo shop`,
	},
		newStatus(a),
		a.teller(controller.Pause, "Begin nothing more; what is live stays", "is paused; `certfarm rollout resume` lets it go on"),
		a.teller(controller.Resume, "Go on with a paused rollout", "goes on"),
		a.teller(controller.Abort, "Put every target back", "is aborted; every target is put back"),
		newUndo(a),
		a.teller(controller.Approve, "Let a wave begin that waits for assent", "may go on"),
	)
}

func newStatus(a *app) *cobra.Command {
	var follow bool
	var w watching
	c := a.inFarm(&cobra.Command{
		Use: "status SITE|ID", Short: "Show a rollout; the exit code tells how it stands",
		Example: "certfarm rollout status shop\ncertfarm rollout status shop --follow --for 10m",
		Args:    args(1, 1, "a site or the id of a rollout"), ValidArgsFunction: a.completeNames("site"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.with(cmd.Context(), func(c *client.Client, farmName string) error {
				r, err := c.Rollout(cmd.Context(), farmName, given[0])
				if err != nil && (!follow || !errors.Is(err, store.ErrNotFound)) {
					return a.noRollout(cmd.Context(), c, farmName, given[0], err)
				}
				if !follow || r.Outcome != farm.Running {
					return a.showRollout(cmd.Context(), c, r)
				}
				// A site whose order is under way will have one.
				f := &follower{ui: a.ui, source: c, farm: farmName, sites: []string{cmp.Or(r.Site, given[0])}, wait: w.wait, detaches: true}
				if err := f.begin(cmd.Context()); err != nil {
					return err
				}
				return a.meant(cmd.Context(), c, "sites", farmName, given[0], a.follow(cmd.Context(), f))
			})
		},
	})
	c.Flags().BoolVarP(&follow, "follow", "f", false, "watch it to the end")
	c.Flags().DurationVar(&w.wait, "for", 0, "with --follow, watch for this long at most")
	return c
}

// noRollout tells a site without a rollout from one that is not there.
func (a *app) noRollout(ctx context.Context, c *client.Client, farmName, name string, err error) error {
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if _, siteErr := c.Describe(ctx, farmName, name); siteErr == nil {
		return hinted(errors.New("site "+name+" has no rollout yet"), "`certfarm describe site "+name+"` shows what it waits for")
	}
	return a.meant(ctx, c, "sites", farmName, name, err)
}

// showRollout shows a rollout as it stands.
func (a *app) showRollout(ctx context.Context, c *client.Client, r farm.Rollout) error {
	if a.json {
		if err := a.object(object{"rollout", r.Farm, r}); err != nil {
			return err
		}
		return quiet(outcome(r))
	}
	all, err := c.Progress(ctx, r.Farm, r.Site)
	if err != nil || len(all) == 0 {
		return err
	}
	word, t := outcomeWord(r)
	waits, again := untilWhen(all[0], r)
	took := ""
	if !r.Ended.IsZero() {
		took = span(r.Ended.Sub(r.Created))
	}
	a.facts([]fact{
		{"Rollout", r.ID, bold},
		{"Site", r.Site, plain},
		{"Outcome", word, t},
		{"Why", r.Why, plain},
		{"Goes back", r.Back, bad},
		{"Waits", waits, busy},
		{"Goes on", again, plain},
		{"Reason", r.Reason, plain},
		{"Began", date(r.Created), plain},
		{"Took", took, plain},
	})
	a.print("")
	var rows [][]cell
	for _, s := range r.Steps {
		wave := ""
		if s.Wave < len(r.Waves) {
			wave = r.Waves[s.Wave].Name
		}
		l := lookOf(s.State)
		rows = append(rows, []cell{{text: wave}, {text: s.Target}, {l.sign + " " + string(s.State), l.tone}, {text: dash(string(s.Doing))}, {text: dash(s.Error)}})
	}
	a.table([]string{"WAVE", "TARGET", "STATE", "DOING", "LAST FAILURE"}, rows)
	return quiet(outcome(r))
}

// untilWhen says what a rollout waits for, and when it or, where all was put back,
// the next try of its version goes on by itself.
func untilWhen(p controller.Progress, r farm.Rollout) (waits, again string) {
	switch {
	case p.Rollout == r.ID && p.Waits != "":
		again = "when a person acts"
		if !p.Again.IsZero() {
			again = "by itself at " + date(p.Again)
		}
		return p.Waits, again
	case p.Newest == r.ID && !p.Retry.IsZero():
		return "", "the same version is tried again at " + date(p.Retry) + ", or when the node that failed answers"
	}
	return "", ""
}

// teller is the command that says a word to a running rollout.
func (a *app) teller(word, short, said string) *cobra.Command {
	var wave string
	c := a.inFarm(&cobra.Command{
		Use: word + " SITE|ID", Short: short, Example: "certfarm rollout " + word + " shop",
		Args: args(1, 1, "a site or the id of a rollout"), ValidArgsFunction: a.completeNames("site"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.with(cmd.Context(), func(c *client.Client, farmName string) error {
				r, err := c.Tell(cmd.Context(), farmName, given[0], word, wave)
				if err != nil {
					return a.noRollout(cmd.Context(), c, farmName, given[0], err)
				}
				return a.done("rollout", r, "The rollout %s of %s %s.", r.ID, r.Site, said)
			})
		},
	})
	if word == controller.Approve {
		c.Flags().StringVar(&wave, "wave", "", "the wave that may begin (default: the next that waits)")
	}
	return c
}

func newUndo(a *app) *cobra.Command {
	w := watching{one: true}
	var to string
	c := a.inFarm(&cobra.Command{
		Use: "undo SITE", Short: "Bring a version back, as a rollout of its own: the one before, or a named one",
		Example: "certfarm rollout undo shop\ncertfarm rollout undo shop --to 3fa9c1",
		Args:    args(1, 1, "the name of a site"), ValidArgsFunction: a.completeNames("site"),
		RunE: func(cmd *cobra.Command, given []string) error {
			what := "The version before"
			if to != "" {
				what = "Version " + to
			}
			return a.begin(cmd.Context(), given[0], w, what+" of "+given[0]+" is brought back.", func(c *client.Client, farmName string) error {
				return c.Undo(cmd.Context(), farmName, given[0], to)
			})
		},
	})
	c.Flags().StringVar(&to, "to", "", "the version: its id, or the beginning of a fingerprint as `describe site` shows it (default: the one before the newest)")
	w.flags(c)
	return c
}
