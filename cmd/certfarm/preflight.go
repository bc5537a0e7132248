package main

import (
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/prove/http01"
)

func newPreflight(a *app) *cobra.Command {
	var external, all bool
	c := a.inFarm(&cobra.Command{
		Use: "preflight SITE", GroupID: groupWork, Short: "Ask now what the CA would ask, at every node and address",
		Long: `Preflight asks the CA's questions before an order is spent: over HTTP every name
at every node and address, over DNS where each record is, and whether CAA records
let the CA, the account and the method issue. It says what is right, what is
wrong and what cannot be told from here, each with a remedy. It asks from one
place; a CA asks from several. With --external the CA's staging directory asks,
too, from the places that the CA uses; that takes an order there.

The same is asked before each order. Only what is wrong holds one back, and not
for ever.`,
		Example: "certfarm preflight shop\ncertfarm preflight shop --external",
		Args:    args(1, 1, "the name of a site"), ValidArgsFunction: a.completeNames("site"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.with(cmd.Context(), func(c *client.Client, farmName string) error {
				r, err := c.Preflight(cmd.Context(), farmName, given[0], external)
				if err != nil {
					return a.meant(cmd.Context(), c, "sites", farmName, given[0], err)
				}
				return a.showPreflight(farmName, r, all)
			})
		},
	})
	c.Flags().BoolVar(&all, "all", false, "show every cell of the matrix by itself, not only in groups")
	c.Flags().BoolVar(&external, "external", false, "order at the CA's staging directory, too")
	return c
}

func (a *app) showPreflight(farmName string, r controller.PreflightReport, all bool) error {
	code := exitDone
	switch {
	case r.Wrong > 0 || r.External != nil && !r.External.OK:
		code = exitFailed
	case r.Unclear > 0:
		code = exitPartly
	}
	if a.json {
		if err := a.object(object{"preflight", farmName, r}); err != nil {
			return err
		}
		return quiet(code)
	}
	var rows [][]cell
	for _, g := range grouped(r.Findings, all) {
		sign, t := verdictSign(g.Verdict)
		rows = append(rows, []cell{{text: g.Check}, {sign + " " + string(g.Verdict), t}, {text: some(shownNames(g.Names), mostShown)}, {text: dash(some(slices.Concat(g.Nodes, g.Addresses), mostShown))}, {oneLine(g.Saw), t}})
	}
	a.table([]string{"CHECK", "", "NAMES", "AT", "SAW"}, rows)
	a.remedies(r.Findings)
	if e := r.External; e != nil {
		a.print("")
		word, t := "every name is proven", good
		if !e.OK {
			word, t = oneLine(e.Saw), bad
		}
		a.print("%s: %s", e.Directory, a.tint(a.out, t, word))
		for _, u := range e.Unproven {
			a.print("  this does not prove %s", u)
		}
	}
	return quiet(code)
}

// grouped is what was found alike in one, wrong ones first; or each by itself.
func grouped(found []http01.Finding, each bool) (all []http01.Summary) {
	if !each {
		return http01.Summarise(found)
	}
	for _, f := range found {
		all = append(all, http01.Summarise([]http01.Finding{f})...)
	}
	return all
}

// mostShown is how many names or places of a group are named.
const mostShown = 3

func verdictSign(v http01.Sort) (string, tone) {
	switch v {
	case http01.Right:
		return "✓", good
	case http01.Wrong:
		return "✗", bad
	case http01.Unclear:
	}
	return "?", warn
}

// remedies tells each remedy once, with how many findings it is for.
func (a *app) remedies(all []http01.Finding) {
	var order []string
	count := map[string]int{}
	for _, f := range all {
		if f.Remedy == "" {
			continue
		}
		if count[f.Remedy] == 0 {
			order = append(order, f.Remedy)
		}
		count[f.Remedy]++
	}
	a.section("What to do", len(order))
	for _, r := range order {
		times := ""
		if count[r] > 1 {
			times = " (" + strconv.Itoa(count[r]) + " findings)"
		}
		a.print("  - %s%s", oneLine(r), times)
	}
}
