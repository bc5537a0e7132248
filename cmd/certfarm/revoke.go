package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/issue"
)

func newRevoke(a *app) *cobra.Command {
	var ask controller.RevokeAsk
	var w watching
	c := a.inFarm(&cobra.Command{
		Use: "revoke SITE", GroupID: groupWork, Short: "Have the CA revoke a certificate that is served no more",
		Long: `Revoke asks every endpoint of a site what it serves, and has the CA revoke a
certificate that none of them does (RFC 8555 §7.6). One that a target serves or
should hold is refused. Where an endpoint is silent nobody can tell, and --force
says that it does not serve it. Nothing goes back to what is revoked.

Where others know the key, use ` + "`certfarm compromise`" + `: it brings a new one first.`,
		Example: "certfarm revoke shop\ncertfarm revoke shop --version 3f2a9c01 --reason cessationOfOperation",
		Args:    args(1, 1, "the name of a site"), ValidArgsFunction: a.completeNames("site"),
		RunE: func(cmd *cobra.Command, given []string) error {
			if _, ok := issue.ReasonNamed(ask.Reason); !ok {
				return usage("there is "+strings.Join(reasons(), ", "), "--reason %s is unknown", ask.Reason)
			}
			said := "Nothing of the certificate is served; the CA is asked to revoke it."
			return a.begin(cmd.Context(), given[0], w, said, func(c *client.Client, farmName string) error {
				r, err := c.Revoke(cmd.Context(), farmName, given[0], ask)
				for _, name := range r.Served.Silent {
					a.say("%s", a.tint(a.err, warn, "! "+name+" is silent: if it serves the certificate when it is back, clients refuse it."))
				}
				return err
			})
		},
	})
	c.Flags().StringVar(&ask.Version, "version", "", "which: the beginning of its fingerprint, or its id (default: the newest that no target should hold)")
	c.Flags().StringVar(&ask.Reason, "reason", "superseded", "why: "+strings.Join(reasons(), ", "))
	c.Flags().BoolVar(&ask.Force, "force", false, "although an endpoint is silent and may serve it")
	_ = c.RegisterFlagCompletionFunc("reason", cobra.FixedCompletions(reasons(), cobra.ShellCompDirectiveNoFileComp))
	w.flags(c)
	return c
}

func reasons() []string {
	var names []string
	for _, r := range issue.Reasons() {
		names = append(names, r.Name)
	}
	return names
}
