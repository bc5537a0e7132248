package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/prove/http01"
)

func newAccount(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use: "account rollover ISSUER", GroupID: groupState, Short: "Give the account at a CA a new key",
		Example: "certfarm account rollover letsencrypt",
	}, a.inFarm(&cobra.Command{
		Use: "rollover ISSUER", Short: "Give the account at a CA a new key",
		Long: `Rollover makes a new key for the account at an issuer and has the CA take it in
place of the old one (RFC 8555 §7.3.5); the account stays the same. Where nodes
answer challenges by a static rule (via: stateless), the rule has the key's
thumbprint: then the first call makes the key and says which sites need the new
rule, ` + "`certfarm snippet`" + ` prints it, and a later call, which finds it on every node, has
the CA change the key.`,
		Example: "certfarm account rollover letsencrypt",
		Args:    args(1, 1, "the name of an issuer"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.with(cmd.Context(), func(c *client.Client, farmName string) error {
				r, err := c.RollOver(cmd.Context(), farmName, given[0])
				if err != nil {
					return err
				}
				return a.showRollover(farmName, r)
			})
		},
	}))
}

func (a *app) showRollover(farmName string, r controller.Rollover) error {
	code := exitDone
	if !r.Done {
		code = exitPartly
	}
	if a.json {
		if err := a.object(object{"rollover", farmName, r}); err != nil {
			return err
		}
		return quiet(code)
	}
	if r.Done {
		a.print("The account at %s has the new key; its thumbprint is %s.", r.Issuer, r.Thumbprint)
		return nil
	}
	a.print("The new key of the account at %s has the thumbprint %s.", r.Issuer, r.Thumbprint)
	a.print("Static rules for the old one are still in use: put the new one on every node (`certfarm snippet SITE --server …`) for %s, and say this again.", strings.Join(r.Sites, ", "))
	a.section("Not right yet", len(r.Findings))
	for _, s := range http01.Summarise(r.Findings) {
		a.print("  %s", a.tint(a.out, warn, "! "+oneLine(s.String())))
	}
	return quiet(code)
}
