package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
)

func newDescribe(a *app) *cobra.Command {
	under := []*cobra.Command{
		a.describer("site", "Tell everything about a site", a.describeSite),
		a.describer("target", "Tell everything about a target, and look through its place", a.describeTarget),
		a.describer("node", "Tell of one node", a.describeNode),
	}
	return group(&cobra.Command{
		Use: "describe site|target|node NAME", GroupID: groupWork, Short: "Tell everything about one thing",
		Example: "certfarm describe site shop\ncertfarm describe target shop/nginx@web1\ncertfarm describe node web1",
	}, under...)
}

// describer is the command that describes a thing of a kind.
func (a *app) describer(one, short string, tell func(context.Context, *client.Client, string, string) error) *cobra.Command {
	return a.inFarm(&cobra.Command{
		Use: one + " NAME", Short: short, Args: args(1, 1, "the name of a "+one), ValidArgsFunction: a.completeNames(one),
		Example: map[string]string{
			"site": "certfarm describe site shop", "target": "certfarm describe target shop/nginx@web1", "node": "certfarm describe node web1",
		}[one],
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.with(cmd.Context(), func(c *client.Client, farmName string) error {
				return a.meant(cmd.Context(), c, one+"s", farmName, given[0], tell(cmd.Context(), c, farmName, given[0]))
			})
		},
	})
}

func (a *app) describeSite(ctx context.Context, c *client.Client, farmName, name string) error {
	d, err := c.Describe(ctx, farmName, name)
	if err != nil {
		return err
	}
	if a.json {
		return a.object(object{"site", farmName, d})
	}
	a.facts([]fact{
		{"Site", d.Name, bold},
		{"Sync", d.Sync, syncTone(d.Sync)},
		{"Health", d.Health, healthTone(d.Health)},
		{"Names", strings.Join(shownNames(d.Names), "\n"), plain},
		{"Issuer", d.Issuer, plain},
		{"Serves", servesNow(d), plain},
		{"Renewal", d.Verdict, plain},
		{"Known key", leaving(d.Certificate.Compromise), bad},
		{"Next look", date(d.Next), plain},
		{"Targets", fmt.Sprintf("%d of %d in step", d.InStep, d.Targets), plain},
		{"Rollout", d.Rollout, busy},
		{"Policy", policy(d.Policy), plain},
	})
	a.section("Needs attention", len(d.Attention))
	for _, t := range d.Attention {
		a.print("  %s", a.tint(a.out, warn, "! "+oneLine(t)))
	}
	a.describeMembers(d.Members)
	a.describePlaces(d)
	a.describeHistory(d)
	return nil
}

// describeMembers shows the nodes' parts of a site with strategy per-node, in the order
// in which they go.
func (a *app) describeMembers(all []controller.SiteStatus) {
	a.section("Nodes", len(all))
	if len(all) == 0 {
		return
	}
	var rows [][]cell
	for _, m := range all {
		rows = append(rows, []cell{
			{text: "  " + m.Name}, {m.Sync, syncTone(m.Sync)}, {m.Health, healthTone(m.Health)}, {text: farm.Short(m.Version)},
			{text: a.when(m.NotAfter)}, {cut(oneLine(cmp.Or(m.Waits, m.Verdict)), 60), faint},
		})
	}
	a.table([]string{"  NODE'S PART", "SYNC", "HEALTH", "SERVES", "EXPIRES", "RENEWAL"}, rows)
}

// leaving says how far the journey away from a key is that others know.
func leaving(c *farm.Compromise) string {
	switch {
	case c == nil:
		return ""
	case !c.Open():
		return "left behind at " + date(c.Ended)
	case c.Waits != "":
		return string(c.Stage) + ": " + c.Waits
	}
	return string(c.Stage)
}

func servesNow(d controller.SiteDetail) string {
	if d.Version == "" {
		return ""
	}
	return farm.Short(d.Version) + ", valid until " + date(d.NotAfter)
}

func (a *app) section(name string, n int) {
	if n > 0 {
		a.print("")
		a.print("%s", a.tint(a.out, bold, name))
	}
}

func policy(p farm.Policy) string {
	parts := []string{fmt.Sprintf("at most %d at a time", p.MaxParallel)}
	if p.Canary != (farm.Share{}) {
		parts = append(parts, "canary "+p.Canary.String())
	}
	if p.Soak > 0 {
		parts = append(parts, "soak "+p.Soak.String())
	}
	parts = append(parts, "failure budget "+p.FailureBudget.String(), "absent at most "+p.AbsentMax.String(), "drift: "+string(p.Drift))
	if len(p.Windows) > 0 {
		parts = append(parts, farm.Count(len(p.Windows), "maintenance window"))
	}
	return strings.Join(parts, ", ")
}

func (a *app) describePlaces(d controller.SiteDetail) {
	a.section("Targets", len(d.Places))
	if len(d.Places) == 0 {
		return
	}
	var rows [][]cell
	for _, p := range d.Places {
		for _, s := range p.Sights {
			saw, t := seen(s)
			rows = append(rows, []cell{{text: "  " + p.Target.Name}, {text: s.Endpoint.Address}, {saw, t}, {text: a.when(s.At)}})
		}
		if len(p.Sights) == 0 {
			rows = append(rows, []cell{{text: "  " + p.Target.Name}, {text: "–"}, {"not looked at yet", faint}, {text: "–"}})
		}
	}
	a.table([]string{"  TARGET", "ENDPOINT", "SERVES", "LOOKED"}, rows)
}

// seen says what an endpoint was seen to serve.
func seen(s farm.Sight) (string, tone) {
	switch {
	case s.Error != "":
		return "nothing: " + oneLine(s.Error), bad
	case !s.Trusted:
		return shorts(s.Fingerprint) + ", not trusted: " + oneLine(s.Distrust), bad
	}
	return fmt.Sprintf("%s, trusted, until %s, %s", shorts(s.Fingerprint), date(s.NotAfter), farm.Count(s.Samples, "handshake")), good
}

func (a *app) describeHistory(d controller.SiteDetail) {
	a.section("Versions", len(d.Versions))
	var rows [][]cell
	for _, v := range d.Versions {
		state, t := "good", good
		if v.State != farm.VersionGood {
			state, t = string(v.State)+": "+oneLine(v.Reason), bad
		}
		rows = append(rows, []cell{{text: "  " + shorts(v.Fingerprints())}, {text: date(v.NotBefore())}, {text: date(v.NotAfter())}, {state, t}})
	}
	if len(rows) > 0 {
		a.table([]string{"  VERSION", "FROM", "UNTIL", "STATE"}, rows)
	}
	a.section("Rollouts", len(d.Rollouts))
	rows = nil
	for _, r := range d.Rollouts {
		word, t := outcomeWord(r)
		rows = append(rows, []cell{{text: "  " + r.ID}, {word, t}, {text: a.when(r.Created)}, {text: dash(r.Why)}})
	}
	if len(rows) > 0 {
		a.table([]string{"  ROLLOUT", "OUTCOME", "BEGAN", "WHY"}, rows)
	}
	a.section("Events", len(d.Events))
	slices.Reverse(d.Events)
	for _, e := range d.Events {
		about, text := subject(e)
		a.print("  %s  %s", e.At.Local().Format("2006-01-02 15:04:05"), a.tint(a.out, toneOf(e), about+"  "+oneLine(text)))
	}
}

func (a *app) describeNode(ctx context.Context, c *client.Client, farmName, name string) error {
	n, err := c.NodeStatus(ctx, farmName, name)
	if err != nil {
		return err
	}
	all, err := c.Targets(ctx, farmName, "")
	if err != nil {
		return err
	}
	on := slices.DeleteFunc(all, func(t controller.TargetStatus) bool { return t.Node != name })
	if a.json {
		return a.object(object{"node", farmName, struct {
			controller.NodeStatus
			On []controller.TargetStatus `json:"on"`
		}{n, on}})
	}
	held := ""
	if n.Held != "" {
		held = "by " + n.Held + ": nothing is changed on it until `certfarm node release " + name + "`"
	}
	a.facts([]fact{
		{"Node", n.Name, bold},
		{"Address", n.Address, plain},
		{"Reach", n.Reach, plain},
		{"Held", held, warn},
		{"In step", fmt.Sprintf("%d of %d targets", n.InStep, n.Targets), plain},
	})
	a.describeAgent(name, n.Agent)
	a.section("Targets", len(on))
	for _, t := range on {
		a.print("  %s  %s  %s", t.Name, a.tint(a.out, syncTone(t.Sync), t.Sync), a.tint(a.out, warn, t.Trouble))
	}
	return nil
}
