package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/snippet"
)

func newSnippet(a *app) *cobra.Command {
	var ask controller.SnippetAsk
	var dns bool
	c := a.inFarm(&cobra.Command{
		Use: "snippet SITE --server NAME|--dns", GroupID: groupFarm, Short: "Print the rule or records by which a site's names are proven",
		Long: `Snippet prints what an operator puts into a server or into DNS so that the CA's
questions about a site are answered: with its names, addresses and thumbprint,
where to put it, and what to beware of.

Servers: ` + strings.Join(snippet.Servers(), ", ") + `.`,
		Example: `certfarm snippet shop --server nginx
certfarm snippet shop --server haproxy --via gateway --controller 10.0.0.5:8402
certfarm snippet shop --dns
certfarm snippet sudoers web1
certfarm snippet policy web1 > policy.yaml`,
		Args: args(1, 1, "the name of a site"), ValidArgsFunction: a.completeNames("site"),
		RunE: func(cmd *cobra.Command, given []string) error {
			if dns == (ask.Server != "") {
				return usage("certfarm snippet "+given[0]+" --server nginx, or --dns", "snippet needs --server or --dns")
			}
			return a.snippet(cmd.Context(), given[0], "sites", func(ctx context.Context, c *client.Client, farmName string) (snippet.Snippet, error) {
				if dns {
					return c.SnippetDNS(ctx, farmName, given[0])
				}
				return c.Snippet(ctx, farmName, given[0], ask)
			})
		},
	})
	f := c.Flags()
	f.StringVar(&ask.Server, "server", "", "the server that the rule is for")
	f.StringVar(&ask.Via, "via", "", "who answers: "+strings.Join(farm.Vias, ", ")+" (default: as farm.yaml says)")
	f.StringSliceVar(&ask.Controllers, "controller", nil, "where controllers answer challenges, host:port (default: controllers in farm.yaml)")
	f.BoolVar(&dns, "dns", false, "print the DNS records instead")
	for flag, words := range map[string][]string{"server": snippet.Servers(), "via": farm.Vias} {
		_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
	}
	c.AddCommand(
		a.nodeSnippet("sudoers", "Print the sudoers rule that a node needs", (*client.Client).Sudoers),
		a.nodeSnippet("policy", "Print the policy that a node needs which decides for itself", (*client.Client).NodePolicy),
		newAgentUnit(a),
		a.nodeSnippet("receiver", "Print the line of authorized_keys for a node's receiver", (*client.Client).NodeReceiver),
	)
	return c
}

// nodeSnippet is a command that prints what is put on a node.
func (a *app) nodeSnippet(word, short string, get func(*client.Client, context.Context, string, string) (snippet.Snippet, error)) *cobra.Command {
	return a.inFarm(&cobra.Command{
		Use: word + " NODE", Short: short, Example: "certfarm snippet " + word + " web1",
		Args: args(1, 1, "the name of a node"), ValidArgsFunction: a.completeNames("node"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.snippet(cmd.Context(), given[0], "nodes", func(ctx context.Context, c *client.Client, farmName string) (snippet.Snippet, error) {
				return get(c, ctx, farmName, given[0])
			})
		},
	})
}

// snippet prints what a question about a site or a node gave. The text can be put
// into a file as it is: all that is not of the server is a comment.
func (a *app) snippet(ctx context.Context, name, kind string, get func(context.Context, *client.Client, string) (snippet.Snippet, error)) error {
	return a.with(ctx, func(c *client.Client, farmName string) error {
		s, err := get(ctx, c, farmName)
		if err != nil {
			return a.meant(ctx, c, kind, farmName, name, err)
		}
		if a.json {
			return a.object(object{"snippet", farmName, s})
		}
		a.print("%s", strings.TrimRight(s.String(), "\n"))
		return nil
	})
}
