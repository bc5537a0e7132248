package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// mostWatched is how many sites apply watches: each is asked for again and again.
const mostWatched = 1000

// applying is what `certfarm apply` was told.
type applying struct {
	yes, detach bool
	wait        time.Duration
}

func newApply(a *app) *cobra.Command {
	var o applying
	c := a.asks(&cobra.Command{
		Use: "apply FILE", GroupID: groupFarm, Short: "Apply a farm.yaml or a saved plan, and watch the rollout",
		Long: `Apply shows what would change, asks for your assent, makes the farm.yaml the
farm's next revision, and watches until every site that changes serves what it
should. If someone else changed the farm since the plan, nothing is applied and
you are told who it was.

Ctrl-C leaves the rollout to the controller and ends; it goes on there.`,
		Example: `certfarm apply farm.yaml
certfarm apply --yes --for 30m farm.yaml    in a script: no question, half an hour at most
certfarm apply --detach today.plan          do not watch`,
		Args: args(1, 1, "a farm.yaml or a saved plan"),
		RunE: func(cmd *cobra.Command, given []string) error { return a.apply(cmd.Context(), given[0], o) },
	})
	c.Flags().BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	c.Flags().BoolVar(&o.detach, "detach", false, "do not watch the rollout")
	c.Flags().DurationVar(&o.wait, "for", 0, "watch for this long at most (default: to the end)")
	return c
}

func (a *app) apply(ctx context.Context, name string, o applying) error {
	p, err := a.savedOrNew(ctx, name)
	if err != nil {
		return err
	}
	if !a.json {
		a.showPlan(p.Plan)
	}
	if len(p.Plan.Changes) == 0 {
		return a.result(nil)
	}
	if err := a.assent(o); err != nil {
		return err
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	sites := touched(p.Plan)
	if len(sites) > mostWatched && !o.detach {
		a.say("%s change: more than are watched from here.", farm.Count(len(sites), "site"))
		o.detach = true
	}
	if o.detach || len(sites) == 0 {
		return a.sendAlone(ctx, c, p, sites)
	}
	f := &follower{ui: a.ui, source: c, farm: p.Plan.Farm, sites: sites, wait: o.wait, detaches: true}
	if err := f.begin(ctx); err != nil {
		return err
	}
	if err := a.send(ctx, c, p); err != nil {
		return err
	}
	return a.follow(ctx, f)
}

// sendAlone applies a plan and watches nothing.
func (a *app) sendAlone(ctx context.Context, c *client.Client, p planFile, sites []string) error {
	if err := a.send(ctx, c, p); err != nil {
		return err
	}
	if len(sites) > 0 {
		a.say("The controller goes on by itself: `certfarm get sites` shows how far it is.")
	}
	return a.result(waiting(sites))
}

// savedOrNew is the plan in a file that plan saved, or one made of a farm.yaml
// now.
func (a *app) savedOrNew(ctx context.Context, name string) (planFile, error) {
	text, err := a.readFile(name, maxFarmFile)
	if err != nil {
		return planFile{}, err
	}
	if p, ok := saved(text); ok {
		return p, nil
	}
	return a.planText(ctx, name, text)
}

// send applies a plan.
func (a *app) send(ctx context.Context, c *client.Client, p planFile) error {
	var applied controller.Plan
	err := a.during("the controller applies "+farm.Count(len(p.Plan.Changes), "change"), func() (err error) {
		applied, err = c.Apply(ctx, p.Plan.Farm, []byte(p.Text), p.File, p.Plan.Revision)
		return err
	})
	if _, conflict := errors.AsType[*store.Conflict](err); conflict {
		return conflictOf(ctx, c, p, err)
	}
	if err == nil && a.json {
		err = a.object(object{"applied", applied.Farm, applied})
	}
	if err == nil {
		a.say("Revision %d of farm %s is applied.", applied.Revision, applied.Farm)
	}
	return err
}

// assent asks whether to go on.
func (a *app) assent(o applying) error {
	if o.yes {
		return nil
	}
	if a.json || !isTerminal(a.in) {
		return usage("look at `certfarm plan`, and add --yes", "apply asks first, and there is nobody to ask")
	}
	if !a.ask("Apply this?") {
		return &exit{exitFailed, errors.New("nothing was applied"), ""}
	}
	return nil
}

// follow watches until all rests, and tells how it ended.
func (a *app) follow(ctx context.Context, f *follower) error {
	results, err := f.run(ctx)
	if errors.Is(err, context.Canceled) && f.detaches {
		a.say("\nYou left; the controller goes on. `certfarm rollout status %s --follow` watches again.", f.sites[0])
		return a.result(results)
	}
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return a.result(results)
}

// A siteResult is how it ended for one site.
type siteResult struct {
	Site    string `json:"site"`
	Exit    int    `json:"exit"`
	Outcome string `json:"outcome" doc:"of the rollout; or in-sync, waiting, failed"`
	Why     string `json:"why,omitempty"`
	Rollout string `json:"rollout,omitempty"`
	Serves  string `json:"serves,omitempty"`
	InStep  int    `json:"in_step"`
	Targets int    `json:"targets"`
}

// A result is the last line of what was followed.
type result struct {
	Type  string       `json:"type"` // "result"
	Exit  int          `json:"exit"`
	Sites []siteResult `json:"sites"`
}

// waiting says of sites that nothing is known yet.
func waiting(sites []string) (all []siteResult) {
	for _, s := range sites {
		all = append(all, siteResult{Site: s, Exit: exitPartly, Outcome: "waiting", Why: "not watched"})
	}
	return all
}

// result prints how it ended, and ends with the exit code of the worst.
func (a *app) result(all []siteResult) error {
	r := result{Type: "result", Sites: all}
	for _, s := range all {
		r.Exit = worse(r.Exit, s.Exit)
	}
	if a.json {
		if all == nil {
			r.Sites = []siteResult{}
		}
		if err := a.object(r); err != nil {
			return err
		}
		return quiet(r.Exit)
	}
	a.lines(all)
	return quiet(r.Exit)
}

// mostLines is how many sites with the same outcome are told one by one.
const mostLines = 40

// lines tell how it ended, and count the sites that ended as many others did.
func (a *app) lines(all []siteResult) {
	told := map[string]int{}
	for _, s := range all {
		if told[s.Outcome]++; told[s.Outcome] <= mostLines {
			a.print("%s", a.line(s))
		}
	}
	for _, outcome := range slices.Sorted(maps.Keys(told)) {
		if more := told[outcome] - mostLines; more > 0 {
			a.print("… and %s: %s", farm.Count(more, "more site"), outcome)
		}
	}
}

// line tells one site's end in a sentence.
func (a *app) line(s siteResult) string {
	sign, t := "✓", good
	switch s.Exit {
	case exitPartly:
		sign, t = "!", warn
	case exitFailed:
		sign, t = "✗", bad
	}
	text := fmt.Sprintf("%s %s: %s", sign, s.Site, s.Outcome)
	if s.Serves != "" {
		text += fmt.Sprintf(", %d of %d targets serve %s", s.InStep, s.Targets, farm.Short(s.Serves))
	}
	if s.Why != "" && s.Exit != exitDone {
		text += ": " + s.Why
	}
	return a.tint(a.out, t, text)
}

// ended says how it ended for a site that rests, or that nobody waits for.
func ended(p controller.Progress, r *farm.Rollout) siteResult {
	s := siteResult{Site: p.Name, Serves: p.Version, InStep: p.InStep, Targets: p.Targets}
	if r != nil {
		s.Rollout, s.Outcome, s.Why, s.Exit = r.ID, string(r.Outcome), r.Why, outcome(*r)
	}
	switch {
	case !p.Rest:
		s.Exit, s.Outcome, s.Why = exitPartly, "waiting", p.Waits
		if !p.Again.IsZero() {
			s.Why += "; it goes on by itself " + date(p.Again)
		}
	case r != nil:
	case p.Sync == "in-sync" && p.Health != "degraded":
		s.Outcome = "in-sync"
	case p.Health == "degraded":
		s.Exit, s.Outcome = exitFailed, "failed"
	default:
		s.Exit, s.Outcome = exitPartly, p.Sync
	}
	if s.Why == "" && s.Exit != exitDone && len(p.Attention) > 0 {
		s.Why = p.Attention[0]
	}
	return s
}

var _ source = (*client.Client)(nil)
