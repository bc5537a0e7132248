package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/api"
	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/store"
)

func newToken(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use: "token create|list|revoke", GroupID: groupState, Short: "Make and revoke the tokens of the API and the dashboard",
		Long: `A token lets a program or a person in over TCP (serve --listen): commands with
--url, scripts, and the login of the dashboard. It has roles, may be good for one
farm or for sites with certain tags only, and expires. It is shown once; the
controller keeps its SHA-256 alone.

Roles: viewer sees, operator renews, pauses and brings back, approver lets waves
begin, editor applies farm.yaml, puller takes certificates with their keys away,
scraper reads /metrics, admin does everything.`,
		Example: `certfarm token create monitor --role viewer
certfarm token create prometheus --role scraper --expires 365d
certfarm token create shop-ci --role operator --tags shop --expires 30d
certfarm token list
certfarm token revoke shop-ci`,
	}, newTokenCreate(a), newTokenList(a), newTokenRevoke(a))
}

func newTokenCreate(a *app) *cobra.Command {
	var roles, tags []string
	var only, expires string
	c := a.asks(&cobra.Command{
		Use: "create NAME", Short: "Make a token, and show it once",
		Long: `Create makes a token and shows it, once, on standard output. With several roles it
may do what any of them may. With --tags it sees and changes only sites with one of
these tags; what concerns a whole farm (apply, freeze, secrets) it may not do.`,
		Example: `certfarm token create monitor --role viewer
certfarm token create shop-ci --role operator --only shop --tags shop,blog --expires 30d
certfarm token create ci --role editor --json | jq -r .item.token`,
		Args: args(1, 1, "a name for the token"),
		RunE: func(cmd *cobra.Command, given []string) error {
			life, err := days("--expires", expires)
			if err != nil {
				return err
			}
			if life > access.LongestToken {
				return usage("a new one can be made at any time", "--expires %s is more than 3650 days", expires)
			}
			ask := api.TokenAsk{Name: given[0], Life: int64(life / time.Second)}
			for _, r := range roles {
				ask.Grants = append(ask.Grants, store.Grant{Role: r, Farm: only, Tags: tags})
			}
			if err := access.CheckGrants(ask.Grants); err != nil {
				return usage("for example --role viewer", "%w", err)
			}
			return a.createToken(cmd.Context(), ask)
		},
	})
	f := c.Flags()
	f.StringSliceVar(&roles, "role", nil, "what it may do: viewer, operator, approver, editor, puller, scraper, admin; several with commas")
	f.StringVar(&only, "only", "", "only in this farm")
	f.StringSliceVar(&tags, "tags", nil, "only for sites with one of these tags")
	f.StringVar(&expires, "expires", "90d", "how long it is good for: 12h, 30d; 3650d at most")
	return c
}

func (a *app) createToken(ctx context.Context, ask api.TokenAsk) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	k, err := c.CreateToken(ctx, ask)
	if err != nil {
		return err
	}
	if a.json {
		return a.object(object{Type: "token", Item: k})
	}
	a.print("%s", k.Token)
	a.say("Token %s (%s) is good until %s. This is shown once: keep it now.", k.Name, access.Words(k.Grants), date(k.Expires))
	return nil
}

func newTokenList(a *app) *cobra.Command {
	return a.asks(&cobra.Command{
		Use: "list", Short: "List the tokens, and when each was last used", Args: args(0, 0, "nothing"),
		Example: "certfarm token list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			all, err := c.Tokens(cmd.Context())
			if err != nil {
				return err
			}
			return a.listTokens(all)
		},
	})
}

func (a *app) listTokens(all []store.APIToken) error {
	if a.json {
		return a.object(listing{Type: "tokens", Items: all})
	}
	if len(all) == 0 {
		a.say("There is no token yet: `certfarm token create NAME --role viewer` makes one.")
		return nil
	}
	var rows [][]cell
	for _, k := range all {
		expires := cell{a.when(k.Expires), plain}
		if !a.now().Before(k.Expires) {
			expires.tone = bad
		}
		rows = append(rows, []cell{{k.Name, plain}, {access.Words(k.Grants), plain}, expires, {a.since(k.Used), plain}, {k.By, plain}})
	}
	a.table([]string{"NAME", "MAY", "EXPIRES", "USED", "MADE BY"}, rows)
	return nil
}

// since says how long ago something was.
func (a *app) since(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return span(max(0, a.now().Sub(t))) + " ago"
}

func newTokenRevoke(a *app) *cobra.Command {
	return a.asks(&cobra.Command{
		Use: "revoke NAME", Short: "End a token at once, and log out the browsers that came with it", Args: args(1, 1, "the name of a token"),
		ValidArgsFunction: a.completeTokens(), Example: "certfarm token revoke shop-ci",
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.RevokeToken(cmd.Context(), given[0]); err != nil {
				return hinted(fmt.Errorf("revoke: %w", err), "`certfarm token list` shows what there is")
			}
			return a.done("token", map[string]any{"name": given[0], "revoked": true}, "Token %s is revoked: it opens nothing any more.", given[0])
		},
	})
}

// completeTokens offers the names of tokens as a command's first word.
func (a *app) completeTokens() completion {
	offer := a.complete(func(ctx context.Context, c *client.Client) (names []string, err error) {
		all, err := c.Tokens(ctx)
		for _, k := range all {
			names = append(names, k.Name)
		}
		return names, err
	})
	return func(cmd *cobra.Command, given []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		if len(given) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return offer(cmd, given, toComplete)
	}
}
