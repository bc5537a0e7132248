package main

import (
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
)

func newDoctor(a *app) *cobra.Command {
	var all bool
	c := a.inFarm(&cobra.Command{
		Use: "doctor", GroupID: groupWork, Short: "Look at the controllers, the database, and the way to every node and CA",
		Long: `Doctor looks at the system itself: which controllers work on the database, and
how far their clocks are off; whether the database keeps what it acknowledges;
what is being done and by whom; which jobs fail; what keeps a stale controller
out of each target. It opens the line to every node, looks at every target that
is on none, and fetches every CA's directory, from the controller that answers.
It changes nothing. It ends with 1 if something failed.`,
		Example: "certfarm doctor\ncertfarm doctor --all\ncertfarm doctor --json",
		Args:    args(0, 0, "nothing"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(c *client.Client, farmName string) error {
				k, err := c.Doctor(cmd.Context(), farmName)
				if err != nil {
					return err
				}
				return a.showCheckup(farmName, k, all)
			})
		},
	})
	c.Flags().BoolVar(&all, "all", false, "show what is well by itself, too, where there is much of it")
	return c
}

// wellShown is up to how many things of an area are listed that are all well.
const wellShown = 10

func (a *app) showCheckup(farmName string, k controller.Checkup, all bool) error {
	code := exitDone
	if k.Failed > 0 {
		code = exitFailed
	}
	if a.json {
		if err := a.object(object{"doctor", farmName, k}); err != nil {
			return err
		}
		return quiet(code)
	}
	a.checkups(k, all)
	if len(k.Lanes) > 0 {
		var rows [][]cell
		for _, h := range k.Lanes {
			rows = append(rows, []cell{{text: "  " + h.Lane}, {text: h.Kind + " " + h.Subject}, {text: h.Owner}, {text: strconv.FormatInt(h.Epoch, 10)}, {text: "for " + h.Until.Sub(k.At).Round(time.Second).String() + " more"}})
		}
		a.section("What is being done", len(rows))
		a.table([]string{"  LANE", "JOB", "BY", "EPOCH", "LEASE"}, rows)
	}
	if len(k.Fences) > 0 {
		var rows [][]cell
		for _, f := range k.Fences {
			rows = append(rows, []cell{{text: "  " + f.Class}, {text: f.Kind}, {text: strconv.Itoa(f.Targets)}})
		}
		a.section("What keeps a stale controller out", len(rows))
		a.table([]string{"  FENCE", "KIND", "TARGETS"}, rows)
	}
	a.print("")
	switch {
	case k.Failed > 0:
		a.print("%s", a.tint(a.out, bad, farm.Count(k.Failed, "failure")+", "+farm.Count(k.Warnings, "warning")))
	case k.Warnings > 0:
		a.print("%s", a.tint(a.out, warn, "nothing failed, "+farm.Count(k.Warnings, "warning")))
	default:
		a.print("%s", a.tint(a.out, good, "all is well"))
	}
	return quiet(code)
}

// checkups lists what was looked at. Where all of a large area is well, one line
// says so.
func (a *app) checkups(k controller.Checkup, all bool) {
	well := map[string]int{}
	for _, r := range k.Checks {
		if r.Verdict == controller.CheckupOK {
			well[r.Area]++
		}
	}
	var rows [][]cell
	said := map[string]bool{}
	for _, r := range k.Checks {
		sign, t := checkupSign(r.Verdict)
		if n := well[r.Area]; r.Verdict == controller.CheckupOK && n > wellShown && !all {
			if !said[r.Area] {
				said[r.Area] = true
				rows = append(rows, []cell{{text: r.Area}, {text: strconv.Itoa(n) + " of them"}, {sign, t}, {text: "`--all` lists them"}})
			}
			continue
		}
		rows = append(rows, []cell{{text: r.Area}, {text: r.Name}, {sign, t}, {oneLine(r.Saw), t}})
	}
	a.table([]string{"WHAT", "NAME", "", "SAW"}, rows)
	for _, r := range k.Checks {
		if r.Verdict != controller.CheckupOK && r.Hint != "" {
			a.print("\n%s %s: %s", r.Area, r.Name, oneLine(r.Hint))
		}
	}
}

// checkupSign is a verdict in a word, and how it is meant.
func checkupSign(v controller.Verdict) (string, tone) {
	switch v {
	case controller.CheckupOK:
		return "✓ ok", good
	case controller.CheckupWarning:
		return "! warning", warn
	case controller.CheckupFailed:
	}
	return "✗ failed", bad
}
