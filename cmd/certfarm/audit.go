package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/audit"
	"github.com/certfarm/certfarm/internal/farm"
)

func newAudit(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use: "audit list|verify", GroupID: groupState, Short: "Read who did what, and prove that nothing of it was changed",
		Long: `Every act of a person or a program that goes through the API or the dashboard is a
line of the audit, chained to the line before by its hash. What changes farm.yaml,
secrets, keys or access is written before it is done, or it is not done.`,
		Example: `certfarm audit list
certfarm audit verify --head 1041:5e0c…`,
	}, newAuditList(a), newAuditVerify(a))
}

func newAuditList(a *app) *cobra.Command {
	var after int64
	var limit int
	c := a.asks(&cobra.Command{
		Use: "list", Short: "List lines of the audit", Args: args(0, 0, "nothing"),
		Example: `certfarm audit list
certfarm audit list --after 1000 --limit 500 --json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			lines, err := c.AuditLines(cmd.Context(), after, limit)
			if err != nil {
				return err
			}
			return a.listAudit(lines)
		},
	})
	c.Flags().Int64Var(&after, "after", 0, "lines after this number")
	c.Flags().IntVar(&limit, "limit", 100, "how many, 1 to 1000")
	return c
}

func (a *app) listAudit(lines []audit.Line) error {
	if a.json {
		return a.object(listing{Type: "audit", Items: lines})
	}
	var rows [][]cell
	for _, l := range lines {
		var e audit.Entry
		if err := json.Unmarshal(l.Entry, &e); err != nil {
			return fmt.Errorf("a line of the audit: %w", err)
		}
		t := map[string]tone{audit.Refused: warn, audit.Failed: bad}[e.Result]
		rows = append(rows, []cell{
			{fmt.Sprint(e.Seq), faint}, {e.At.UTC().Format("2006-01-02 15:04:05"), plain}, {e.Actor, plain}, {e.Action, plain}, {e.Farm, plain}, {e.Object, plain}, {e.Result, t},
		})
	}
	a.table([]string{"LINE", "AT (UTC)", "ACTOR", "ACTION", "FARM", "OBJECT", "RESULT"}, rows)
	return nil
}

func newAuditVerify(a *app) *cobra.Command {
	var heads []string
	c := a.asks(&cobra.Command{
		Use: "verify", Short: "Read the whole audit, and say whether a line was changed, left out or cut off",
		Long: `Verify reads the whole audit and checks the hash of every line. A chain that was
rebuilt from some line on is found only by comparison with hashes that were sent
away (serve --audit-to): give the newest of them with --head.`,
		Example: `certfarm audit verify
certfarm audit verify --head 1041:5e0c2f…`,
		Args: args(0, 0, "nothing"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			v, err := c.VerifyAudit(cmd.Context(), heads)
			if err != nil {
				return err
			}
			if v.Broken != "" {
				return hinted(fmt.Errorf("%s", v.Broken), "who can write into the database could have done it; compare with what was sent away")
			}
			if a.json {
				return a.object(object{Type: "audit-proof", Item: v})
			}
			a.print("%d:%s", v.Lines, v.Head)
			a.say("The audit is whole: %s.", farm.Count(int(v.Lines), "line"))
			return nil
		},
	})
	c.Flags().StringArrayVar(&heads, "head", nil, "hash that was kept elsewhere, NUMBER:HASH; may be repeated")
	return c
}
