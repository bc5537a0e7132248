package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/config"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/plan"
)

// exitChanges is what `plan --detailed-exitcode` ends with where something would
// change (see exit.go).
const exitChanges = 2

// A planFile is a plan that was saved to be applied later: the farm.yaml as it
// was, and the revision that it was compared with.
type planFile struct {
	Type string          `json:"type"` // planType
	File string          `json:"file"`
	Text string          `json:"text"`
	Plan controller.Plan `json:"plan"`
}

const planType = "certfarm-plan"

func newPlan(a *app) *cobra.Command {
	var save string
	var detailed bool
	c := a.asks(&cobra.Command{
		Use: "plan FILE", GroupID: groupFarm, Short: "Show what applying a farm.yaml would change",
		Long: `Plan compares a farm.yaml with the revision that the controller has, and shows
what would follow. It changes nothing. With -o the plan is saved, and apply
takes the file: what was read is then what is applied, or nothing is.`,
		Example: `certfarm plan farm.yaml
certfarm plan farm.yaml -o today.plan && certfarm apply today.plan
certfarm plan farm.yaml --detailed-exitcode    0: no changes, 1: error, 2: changes`,
		Args: args(1, 1, "a farm.yaml"),
		RunE: func(cmd *cobra.Command, given []string) error {
			p, err := a.plan(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			if save != "" {
				if err := p.save(save); err != nil {
					return err
				}
			}
			if a.json {
				err = a.object(object{"plan", p.Plan.Farm, p.Plan})
			} else {
				a.showPlan(p.Plan)
			}
			if save != "" {
				a.say("saved: `certfarm apply %s` applies it", save)
			}
			if err == nil && detailed && len(p.Plan.Changes) > 0 {
				return quiet(exitChanges)
			}
			return err
		},
	})
	c.Flags().StringVarP(&save, "output", "o", "", "save the plan to this file")
	c.Flags().BoolVar(&detailed, "detailed-exitcode", false, "exit with 2 where something would change")
	_ = c.MarkFlagFilename("output") // there is such a flag
	return c
}

// plan reads a farm.yaml and asks what it would change.
func (a *app) plan(ctx context.Context, name string) (planFile, error) {
	text, err := a.readFile(name, maxFarmFile)
	if err != nil {
		return planFile{}, err
	}
	return a.planText(ctx, name, text)
}

// readThere is the size of a farm.yaml that the controller alone reads: it compares it with
// what it has, and need not read the whole, which takes seconds here.
const readThere = 1 << 20

func (a *app) planText(ctx context.Context, name string, text []byte) (p planFile, err error) {
	farm := ""
	if len(text) > readThere {
		farm = config.FarmOf(text)
	}
	if farm == "" {
		parsed, err := parse(text, name, false)
		if err != nil {
			return p, err
		}
		farm = parsed.Farm.Name
	}
	c, err := a.connect()
	if err != nil {
		return p, err
	}
	defer c.Close()
	p = planFile{Type: planType, File: name, Text: string(text)}
	err = a.during("the controller compares "+name+" with what it has", func() (err error) {
		p.Plan, err = c.Plan(ctx, farm, text, name)
		return err
	})
	return p, err
}

func (p planFile) save(name string) error {
	text, err := json.MarshalIndent(p, "", "  ")
	if err == nil {
		err = os.WriteFile(name, append(text, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("save the plan: %w", err)
	}
	return nil
}

// saved reads a saved plan; ok is false where the file is something else.
func saved(text []byte) (p planFile, ok bool) {
	err := json.Unmarshal(text, &p)
	return p, err == nil && p.Type == planType
}

// mark is the sign of a change: new, gone, or another.
func mark(c plan.Change) (string, tone) {
	switch {
	case strings.Contains(c.Why, " is new"):
		return "+", good
	case strings.HasSuffix(c.Why, " is gone"), c.Do == plan.Release, c.Do == plan.Forget:
		return "-", bad
	}
	return "~", warn
}

// showPlan shows what a plan would change.
func (a *app) showPlan(p controller.Plan) {
	against := fmt.Sprintf("revision %d", p.Revision)
	if p.Revision == 0 {
		against = "nothing stored yet"
	}
	if len(p.Changes) == 0 {
		a.print("Farm %s: no changes (against %s).", p.Farm, against)
		return
	}
	a.print("Farm %s, against %s:", p.Farm, against)
	a.print("")
	a.showChanges(p.Changes)
	for _, n := range p.PerNode[:min(len(p.PerNode), mostChanges)] {
		a.showPrice(n)
	}
	if more := len(p.PerNode) - mostChanges; more > 0 {
		a.print("")
		a.print("  … and what %s with a key on each node will take: --json tells", farm.Count(more, "more site"))
	}
	for _, w := range p.Warnings {
		a.print("")
		a.print("  %s: %s", a.tint(a.out, bold, "issuer "+w.Issuer), a.tint(a.out, warn, "! "+w.Text))
		a.print("      hint: %s", w.Hint)
	}
	a.print("")
	a.print("%s", summary(p))
}

// mostChanges is how many changes with the same consequence are shown, each on its
// lines: nobody reads more, and what is rare would go by unseen.
const mostChanges = 100

// showChanges shows the first changes of each consequence, and counts the others.
func (a *app) showChanges(all []plan.Change) {
	shown := map[plan.Do]int{}
	for _, c := range all {
		if shown[c.Do]++; shown[c.Do] <= mostChanges {
			a.showChange(c)
		}
	}
	for _, do := range slices.Sorted(maps.Keys(shown)) {
		if more := shown[do] - mostChanges; more > 0 {
			a.print("  … and %s: %s (--json tells each)", farm.Count(more, "more change"), doing(do))
		}
	}
}

func (a *app) showChange(c plan.Change) {
	sign, t := mark(c)
	a.print("  %s %s: %s %s", a.tint(a.out, t, sign), a.tint(a.out, bold, title(c)), following(c), a.tint(a.out, faint, "("+c.Why+")"))
	a.showFields(c)
	if len(c.Targets) > 0 {
		a.print("      on %s", some(c.Targets, 6))
	}
	for _, b := range c.Blasts {
		a.print("      %s: %s", b.Target, a.tint(a.out, warn, fmt.Sprintf("blast radius: %d readers", b.Readers)))
	}
}

// showPrice shows what the first certificates of nodes with keys of their own take.
func (a *app) showPrice(n controller.PerNode) {
	a.print("")
	a.print("  %s: %s", a.tint(a.out, bold, "site "+n.Site), n.Text)
	if n.Limit != "" && n.Every > 0 {
		a.print("      the CA allows %s", n.Limit)
	}
	if n.Warn != "" {
		a.print("      %s", a.tint(a.out, warn, "! "+n.Warn))
	}
	if n.Hint != "" {
		a.print("      hint: %s", n.Hint)
	}
}

// showFields shows what differs. Of what is new, that it is new says enough.
func (a *app) showFields(c plan.Change) {
	wide := 0
	for _, f := range c.Fields {
		wide = max(wide, len(f.Name))
	}
	for _, f := range c.Fields {
		if f.Old == "" {
			a.print("      %-*s  %s", wide, f.Name, f.New)
			continue
		}
		is := f.New
		if is == "" {
			is = "nothing"
		}
		a.print("      %-*s  %s → %s", wide, f.Name, f.Old, is)
	}
}

// title names what changes.
func title(c plan.Change) string {
	kind := "site"
	switch c.Do {
	case plan.Settings:
		return "farm"
	case plan.Node:
		kind = "node"
	case plan.Issuer:
		kind = "issuer"
	}
	return kind + " " + c.Name
}

// following says what follows from a change, which may need no new certificate.
func following(c plan.Change) string {
	if c.Do == plan.Issue && !c.Certificate {
		return "roll out the certificate from before"
	}
	return doing(c.Do)
}

// doing says what follows from a change.
func doing(d plan.Do) string {
	switch d {
	case plan.Issue:
		return "order a certificate and roll it out"
	case plan.RollOut:
		return "roll out the certificate it has"
	case plan.Release:
		return "leave its targets alone, until `certfarm retire`"
	case plan.Forget:
		return "forget: another target has the place"
	case plan.Watch:
		return "look elsewhere"
	case plan.Policy:
		return "counts from the next rollout"
	case plan.Settings:
		return "counts at once"
	}
	return "counts from the next use"
}

// summary counts what would follow.
func summary(p controller.Plan) string {
	orders, rollouts, sites := 0, 0, map[string]bool{}
	for _, c := range p.Changes {
		switch {
		case c.Do == plan.Issue && c.Certificate:
			orders += parts(c)
		case c.Do == plan.Issue, c.Do == plan.RollOut:
			rollouts += parts(c)
		default:
			continue
		}
		sites[c.Name] = true
	}
	if len(sites) == 0 {
		return farm.Count(len(p.Changes), "change") + "; no certificate is ordered and nothing is installed."
	}
	return fmt.Sprintf("%s: %s to order, %s to roll out as it is.",
		farm.Count(len(p.Changes), "change"), farm.Count(orders, "certificate"), farm.Count(rollouts, "certificate"))
}

// parts are how many certificates a change is of: a site with strategy per-node has one
// for each node.
func parts(c plan.Change) int {
	if len(c.Members) == 0 || slices.Contains(c.Members, c.Name) {
		return 1
	}
	return len(c.Members)
}

// some lists the first names, and how many more there are.
func some(all []string, most int) string {
	if len(all) <= most {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), len(all)-most)
}

// touched are the sites of whose targets something is installed.
func touched(p controller.Plan) []string {
	var sites []string
	seen := map[string]bool{}
	for _, c := range p.Changes {
		if (c.Do == plan.Issue || c.Do == plan.RollOut) && !seen[c.Name] {
			seen[c.Name] = true
			sites = append(sites, c.Name)
		}
	}
	return sites
}

// conflictOf explains a conflict: what the other person changed.
func conflictOf(ctx context.Context, c *client.Client, p planFile, err error) error {
	now, planErr := c.Plan(ctx, p.Plan.Farm, []byte(p.Text), p.File)
	if planErr != nil {
		return errors.Join(err, planErr)
	}
	return hinted(err, fmt.Sprintf("`certfarm plan %s` shows the %s that it would make now", p.File, farm.Count(len(now.Changes), "change")))
}
