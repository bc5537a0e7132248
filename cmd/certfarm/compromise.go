package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/controller"
)

func newCompromise(a *app) *cobra.Command {
	var ask controller.CompromiseAsk
	var w watching
	var yes bool
	c := a.inFarm(&cobra.Command{
		Use: "compromise SITE", GroupID: groupWork, Short: "Leave a key that others know: a new one everywhere, the old one revoked and erased",
		Long: `Compromise is for a site whose private key others know, or may. It orders a
certificate with a new key at once and brings it to every target, past
maintenance windows and approvals, but within the CA's limits; a freeze and a held
node still hold. What fails is tried again and never put back. When no endpoint
serves an old certificate any more, all of them are revoked (keyCompromise), and
the old keys are erased: here, and the copies on the nodes. Every key that the
site ever had counts as known, since they lay side by side.

It goes on in the controller, however long a node is away; the same command again
watches it. With --revoke-now the old certificates are revoked at once: clients
refuse what is served until the new one is there.`,
		Example: "certfarm compromise shop --reason 'backup of web2 was stolen'\ncertfarm compromise shop --revoke-now",
		Args:    args(1, 1, "the name of a site"), ValidArgsFunction: a.completeNames("site"),
		RunE: func(cmd *cobra.Command, given []string) error {
			if err := a.sureToRevoke(ask.RevokeNow, yes); err != nil {
				return err
			}
			return a.begin(cmd.Context(), given[0], w, "", func(c *client.Client, farmName string) error {
				r, err := c.Compromise(cmd.Context(), farmName, given[0], ask)
				if err == nil {
					a.tellCompromised(r, ask.RevokeNow)
				}
				return err
			})
		},
	})
	c.Flags().StringVar(&ask.Reason, "reason", "", "what happened, for the journal")
	c.Flags().BoolVar(&ask.RevokeNow, "revoke-now", false, "revoke at once, though clients then refuse what is served")
	c.Flags().BoolVar(&yes, "yes", false, "with --revoke-now, do not ask")
	w.flags(c)
	return c
}

// sureToRevoke asks before what is served is revoked.
func (a *app) sureToRevoke(now, yes bool) error {
	switch {
	case !now || yes:
		return nil
	case !isTerminal(a.in):
		return usage("add --yes", "--revoke-now takes the site from its clients until the new certificate is there")
	case a.ask("Clients will refuse the site until the new certificate is there. Revoke now?"):
		return nil
	}
	return &exit{exitFailed, errors.New("nothing was done"), ""}
}

// tellCompromised says what was begun; who joins what is under way begins nothing.
func (a *app) tellCompromised(r controller.Compromised, now bool) {
	when := "when nothing serves it"
	if now {
		when = "now"
	}
	if r.Joined {
		a.say("This is under way already; it goes on. What is old is revoked %s.", when)
	} else {
		a.say("A certificate with a new key is ordered; what is old is revoked %s.", when)
	}
	if len(r.Sites) > 1 {
		a.say("%s", a.tint(a.err, warn, "! The same key is used by "+strings.Join(r.Sites[1:], ", ")+": there it goes, too."))
	}
}
