package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
)

func newCompromise(a *app) *cobra.Command {
	var ask controller.CompromiseAsk
	var w watching
	var yes, clean bool
	c := a.inFarm(&cobra.Command{
		Use: "compromise SITE|node/NAME|account/ISSUER", GroupID: groupWork, Short: "Leave a key that others know: a new one everywhere, the old one revoked and erased",
		Long: `Compromise is for a site whose private key others know, or may. It orders a
certificate with a new key at once and brings it to every target, past
maintenance windows and approvals, but within the CA's limits; a freeze and a held
node still hold. What fails is tried again and never put back. When no endpoint
serves an old certificate any more, all of them are revoked (keyCompromise), and
the old keys are erased: here, and the copies on the nodes. Every key that the
site ever had counts as known, since they lay side by side.

It goes on in the controller, however long a node is away; the same command again
watches it. With --revoke-now the old certificates are revoked at once: clients
refuse what is served until the new one is there.

With node/NAME every site whose key lay on that node goes this way, and what else
stood there is named. The node is held meanwhile, so that no new key comes into the
same hands; --clean says that it is clean again, or another machine.

With account/ISSUER it is the key of the account at a CA: the CA is told of another
key, or, if it will not have that, the account is ended and another opened; then
the proofs of names that it trusts are withdrawn.`,
		Example: "certfarm compromise shop --reason 'backup of web2 was stolen'\ncertfarm compromise shop --revoke-now\ncertfarm compromise node/web2\ncertfarm compromise account/letsencrypt",
		Args:    args(1, 1, "a site, node/NAME or account/ISSUER"), ValidArgsFunction: a.completeNames("site"),
		RunE: func(cmd *cobra.Command, given []string) error {
			if issuer, is := strings.CutPrefix(given[0], "account/"); is {
				return a.compromiseAccount(cmd.Context(), issuer, ask)
			}
			if node, is := strings.CutPrefix(given[0], "node/"); is {
				if err := a.sureToRevoke(ask.RevokeNow, yes); err != nil {
					return err
				}
				return a.compromiseNode(cmd.Context(), node, controller.NodeCompromiseAsk{CompromiseAsk: ask, Clean: clean})
			}
			given[0] = strings.TrimPrefix(given[0], "site/")
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
	c.Flags().BoolVar(&clean, "clean", false, "with node/NAME, it is clean again and gets the new keys, too")
	w.flags(c)
	return c
}

func (a *app) compromiseAccount(ctx context.Context, issuer string, ask controller.CompromiseAsk) error {
	return a.with(ctx, func(c *client.Client, farmName string) error {
		r, err := c.CompromiseAccount(ctx, farmName, issuer, ask)
		if err != nil {
			return err
		}
		if a.json {
			return a.object(object{"account-compromise", farmName, r})
		}
		a.print("The account %s at %s gets another key at once; its thumbprint is %s.", r.Account, r.Issuer, r.Thumbprint)
		if len(r.Static) > 0 {
			a.print("%s", a.tint(a.out, warn, "! Static rules need the new thumbprint, else renewals fail (`certfarm snippet SITE --server …`): "+some(r.Static, mostShown)))
		}
		if len(r.Pinned) > 0 {
			a.print("If the CA makes us open another account, the records of %s must name it: `certfarm snippet SITE --dns`.", some(r.Pinned, mostShown))
		}
		a.print("It goes on by itself: `certfarm events` tells what becomes of it.")
		return nil
	})
}

func (a *app) compromiseNode(ctx context.Context, node string, ask controller.NodeCompromiseAsk) error {
	return a.with(ctx, func(c *client.Client, farmName string) error {
		r, err := c.CompromiseNode(ctx, farmName, node, ask)
		if err != nil {
			return a.meant(ctx, c, "nodes", farmName, node, err)
		}
		if a.json {
			return a.object(object{"node-compromise", farmName, r})
		}
		if len(r.Sites) > 0 {
			a.print("New keys are on their way for %s: %s.", farm.Count(len(r.Sites), "site"), some(r.Sites, mostShown))
		} else {
			a.print("No key of a site lay on %s.", node)
		}
		if r.Held {
			a.print("%s is held: nothing is brought there until `certfarm node release %s`. What is old is revoked then, or now with --revoke-now.", node, node)
		}
		a.section("For you to change", len(r.Credentials))
		for _, one := range r.Credentials {
			a.print("  %s: %s", one.What, one.Advice)
		}
		return nil
	})
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
