package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
)

// A replacing is what `certfarm replace` was told.
type replacing struct {
	ask           controller.ReplaceAsk
	before, after string
	serials       string // file
	yes, dry      bool
}

func newReplace(a *app) *cobra.Command {
	var r replacing
	c := a.inFarm(&cobra.Command{
		Use: "replace", GroupID: groupWork, Short: "Replace many certificates at once, within the limits of their CAs",
		Long: `Replace is for the day on which a CA must revoke, or is trusted no more. Every
certificate that is meant is ordered anew and brought to its targets as at any
renewal: those with the least life left first, no faster than the CA allows. What
is meant is said by issuer, dates, serial numbers and sites; all that is said must
hold. Before anything is done it shows how many there are and how long it takes.

It goes on in the controller and outlives it; ` + "`certfarm get replacements`" + ` shows
how far it is, ` + "`certfarm replace pause`" + ` and ` + "`cancel`" + ` stop it. It stops by itself
when two rollouts, and more than a tenth of those tried, were put back. Where
another issuer is to issue, say so in farm.yaml first. What is replaced is not
revoked: ` + "`certfarm revoke`" + `.`,
		Example: `certfarm replace --issuer letsencrypt --before 2026-11-20
certfarm replace --serials affected.txt --reason "incident 2026-11"
certfarm replace cancel rep_01J9`,
		Args: args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := r.read(); err != nil {
				return err
			}
			return a.with(cmd.Context(), func(c *client.Client, farmName string) error { return a.replace(cmd.Context(), c, farmName, r) })
		},
	})
	f := c.Flags()
	f.StringVar(&r.ask.Issuer, "issuer", "", "name of the issuer that issued them")
	f.StringVar(&r.before, "before", "", "issued before this, 2026-11-20 or 2026-11-20T15:04:05Z")
	f.StringVar(&r.after, "after", "", "issued then or later")
	f.StringArrayVar(&r.ask.Serials, "serial", nil, "serial number in hex; may be said again")
	f.StringVar(&r.serials, "serials", "", "file of serial numbers, one a line")
	f.StringArrayVar(&r.ask.Sites, "site", nil, "of this site; may be said again")
	f.StringVar(&r.ask.Reason, "reason", "", "why, for the journal")
	f.BoolVar(&r.yes, "yes", false, "do not ask")
	f.BoolVar(&r.dry, "dry-run", false, "only show what would be done")
	_ = c.RegisterFlagCompletionFunc("site", a.completeNames("site"))
	c.AddCommand(
		a.steerReplacement("cancel", "End a mass replacement; what is not ordered yet stays", "It is ended; orders and rollouts that run go on.", (*client.Client).CancelReplacement),
		a.steerReplacement("pause", "Order nothing more of a mass replacement for now", "It is paused: what is not ordered yet waits; orders and rollouts that run go on.", (*client.Client).PauseReplacement),
		a.steerReplacement("resume", "Have a mass replacement go on that was paused, or stopped by itself", "It goes on.", (*client.Client).ResumeReplacement),
		a.replacementStatus(),
	)
	return c
}

// steerReplacement is a word to a mass replacement.
func (a *app) steerReplacement(word, short, said string, do func(*client.Client, context.Context, string, string) error) *cobra.Command {
	return a.inFarm(&cobra.Command{
		Use: word + " ID", Short: short,
		Example: "certfarm replace " + word + " rep_01J9", Args: args(1, 1, "the id of a mass replacement, as `certfarm get replacements` shows it"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.with(cmd.Context(), func(c *client.Client, farmName string) error {
				if err := do(c, cmd.Context(), farmName, given[0]); err != nil {
					return err
				}
				a.say("%s", said)
				return nil
			})
		},
	})
}

// replacementStatus tells how far one is.
func (a *app) replacementStatus() *cobra.Command {
	return a.inFarm(&cobra.Command{
		Use: "status ID", Short: "Tell how far a mass replacement is",
		Example: "certfarm replace status rep_01J9", Args: args(1, 1, "the id of a mass replacement, as `certfarm get replacements` shows it"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.with(cmd.Context(), func(c *client.Client, farmName string) error {
				r, err := c.Replacement(cmd.Context(), farmName, given[0])
				if err != nil {
					return err
				}
				if a.json {
					return a.object(object{"replacement", farmName, r})
				}
				state, how := replacementState(r)
				a.facts([]fact{
					{"Replacement", r.ID, bold}, {"Reason", oneLine(r.Reason), plain}, {"State", state, how},
					{"Done", fmt.Sprintf("%d of %d", r.Done, r.Total), plain}, {"Waiting", strconv.Itoa(r.Waiting), plain},
					{"Ordering", strconv.Itoa(r.Ordering), plain}, {"Rolling out", strconv.Itoa(r.Rolling), plain},
					{"Put back", strconv.Itoa(r.Failed), plain}, {"Failing", some(r.Failing, mostShown), bad},
				})
				return nil
			})
		},
	})
}

// replacementState is what a mass replacement does, in words.
func replacementState(r controller.CampaignStatus) (string, tone) {
	switch {
	case r.Canceled != "":
		return "ended by " + r.Canceled, warn
	case !r.Ended.IsZero():
		return "done at " + day(r.Ended), good
	case r.Paused == "certfarm":
		return "stopped by itself: " + r.Why, bad
	case r.Paused != "":
		return "paused by " + r.Paused, warn
	}
	return "running", busy
}

// read turns words into what is asked.
func (r *replacing) read() (err error) {
	if r.ask.Before, err = moment("--before", r.before); err != nil {
		return err
	}
	if r.ask.After, err = moment("--after", r.after); err != nil || r.serials == "" {
		return err
	}
	text, err := os.ReadFile(r.serials)
	if err != nil {
		return fmt.Errorf("serial numbers: %w", err)
	}
	r.ask.Serials = append(r.ask.Serials, strings.Fields(string(text))...)
	return nil
}

// moment reads a day, which begins in UTC, or a time.
func moment(flag, s string) (t time.Time, err error) {
	if s == "" {
		return t, nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err = time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return t, usage("write it as 2026-11-20 or 2026-11-20T15:04:05Z", "%s %q is no date", flag, s)
}

// replace shows what would be done, asks, and begins it.
func (a *app) replace(ctx context.Context, c *client.Client, farmName string, r replacing) error {
	p, err := c.PlanReplace(ctx, farmName, r.ask)
	if err != nil {
		return err
	}
	if r.dry && a.json {
		return a.object(object{"replace-plan", farmName, p})
	}
	a.showReplacePlan(p)
	switch {
	case r.dry || len(p.Sites) == 0:
		return nil
	case r.yes:
	case !isTerminal(a.in) || a.json:
		return usage("add --yes", "nobody can be asked")
	case !a.ask("Replace them?"):
		return &exit{exitFailed, errors.New("nothing was done"), ""}
	}
	s, err := c.Replace(ctx, farmName, r.ask)
	if err != nil {
		return err
	}
	if a.json {
		return a.object(object{"replacement", farmName, s})
	}
	a.say("%s begins: %s. `certfarm get replacements` shows how far it is.", s.ID, farm.Count(s.Total, "certificate"))
	return nil
}

// showReplacePlan tells the arithmetic; with --json only to whoever reads along.
func (a *app) showReplacePlan(p controller.ReplacePlan) {
	if len(p.Sites) == 0 {
		a.say("No certificate is meant by that: nothing is to be done.")
		return
	}
	if p.Unknown > 0 {
		a.say("%s", a.tint(a.err, warn, "! "+farm.Count(p.Unknown, "serial number")+" of no certificate that is meant"))
	}
	a.say("%s to be replaced: %s", farm.Count(len(p.Sites), "certificate"), some(p.Sites, mostShown))
	for _, i := range p.Issuers {
		done := "not done within 90 days"
		if !i.Done.IsZero() {
			done = "the last is ordered at about " + day(i.Done)
		}
		a.say("%s issues %s (%s): %s; %s.", i.Issuer, farm.Count(i.Certificates, "new one"), farm.Count(i.Orders, "order"), i.Pace, done)
		if len(i.Lapses) > 0 {
			a.say("%s", a.tint(a.err, bad, "! "+farm.Count(len(i.Lapses), "certificate")+" would expire before, the first is of "+i.Lapses[0].Site+" at "+day(i.Lapses[0].At)))
		}
	}
}

func listReplacements(ctx context.Context, c *client.Client, farmName string) (list, error) {
	all, err := c.Replacements(ctx, farmName)
	l := list{head: []string{"ID", "DONE", "WAITING", "ORDERING", "ROLLING OUT", "FAILING", "STATE", "BEGUN", "REASON"}, items: all}
	for _, r := range all {
		l.names = append(l.names, r.ID)
	}
	l.rows = func(u *ui) (rows [][]cell) {
		for _, r := range all {
			state, how := replacementState(r)
			failing := plain
			if len(r.Failing) > 0 {
				failing = bad
			}
			rows = append(rows, []cell{
				{text: r.ID}, {text: fmt.Sprintf("%d/%d", r.Done, r.Total)}, {text: strconv.Itoa(r.Waiting)}, {text: strconv.Itoa(r.Ordering)}, {text: strconv.Itoa(r.Rolling)},
				{strconv.Itoa(len(r.Failing)), failing}, {state, how}, {text: u.when(r.Begun)}, {text: cut(oneLine(r.Reason), 60)},
			})
		}
		return rows
	}
	return l, err
}
