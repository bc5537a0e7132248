package main

import (
	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/deploy"
)

func newTarget(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use: "target test|restore NAME", GroupID: groupWork, Short: "Try a target with a throw-away certificate, or bring it back to what it should hold",
		Example: "certfarm target test shop/nginx@web1\ncertfarm target restore shop/nginx@web1",
	}, newTargetTest(a), newTargetRestore(a))
}

func newTargetRestore(a *app) *cobra.Command {
	return a.inFarm(&cobra.Command{
		Use: "restore NAME", Short: "Bring a target back to what it should hold, as a rollout of its own",
		Long: `Restore heals a target that serves something else than it should: where farm.yaml
says drift: report, or before the next try. A valid certificate that is not ours
is replaced only after ` + "`certfarm rollout approve SITE`" + `.`,
		Example: "certfarm target restore shop/nginx@web1",
		Args:    args(1, 1, "the name of a target"), ValidArgsFunction: a.completeNames("target"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.with(cmd.Context(), func(c *client.Client, farmName string) error {
				if err := c.RestoreTarget(cmd.Context(), farmName, given[0]); err != nil {
					return a.meant(cmd.Context(), c, "targets", farmName, given[0], err)
				}
				return a.done("restore", map[string]any{"target": given[0]}, "%s is brought back to what it should hold.", given[0])
			})
		},
	})
}

func newTargetTest(a *app) *cobra.Command {
	var reload bool
	c := a.inFarm(&cobra.Command{
		Use: "test NAME", Short: "Try a target beside what is live, and take it away again",
		Long: `Test has the controller log in and look at what is live; then it installs a
throw-away certificate in a shadow place of the target, which is not live: files
in a folder of their own beside the live ones, a file of a name that nobody asks
for, another name in a vault. It checks the configuration, replaces that
certificate by another, goes back, and takes everything away. It tells what
works, what does not with a hint, and what cannot be tried so.

Nothing that is live is written. The server is not reloaded, unless --reload says
so; its configuration has not changed then.`,
		Example: "certfarm target test shop/nginx@web1\ncertfarm target test shop/nginx@web1 --reload",
		Args:    args(1, 1, "the name of a target"), ValidArgsFunction: a.completeNames("target"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.with(cmd.Context(), func(c *client.Client, farmName string) error {
				r, err := c.TestTarget(cmd.Context(), farmName, given[0], reload)
				if err != nil {
					return a.meant(cmd.Context(), c, "targets", farmName, given[0], err)
				}
				return a.showTargetTest(farmName, r)
			})
		},
	})
	c.Flags().BoolVar(&reload, "reload", false, "reload the server, too")
	return c
}

func (a *app) showTargetTest(farmName string, r controller.TargetTest) error {
	code := exitDone
	if r.Failed > 0 {
		code = exitFailed
	}
	if a.json {
		if err := a.object(object{"target-test", farmName, r}); err != nil {
			return err
		}
		return quiet(code)
	}
	var rows [][]cell
	for _, k := range r.Checks {
		sign, t := checkSign(k.Verdict)
		rows = append(rows, []cell{{text: k.Name}, {sign, t}, {oneLine(k.Saw), t}})
	}
	a.table([]string{"CHECK", "", "SAW"}, rows)
	for _, k := range r.Checks {
		if k.Hint != "" {
			a.print("\n%s: %s", k.Name, k.Hint)
		}
	}
	return quiet(code)
}

// checkSign is a verdict in a word, and how it is meant.
func checkSign(v deploy.Verdict) (string, tone) {
	switch v {
	case deploy.CheckOK:
		return "✓ ok", good
	case deploy.CheckFailed:
		return "✗ failed", bad
	case deploy.CheckNotTried:
	}
	return "– not tried", faint
}
