package main

import (
	"context"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/adopt"
	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/controller"
)

func newAdopt(a *app) *cobra.Command {
	var ask controller.AdoptAsk
	var file string
	c := a.inFarm(&cobra.Command{
		Use: "adopt NODE", GroupID: groupFarm, Short: "Write the lines for certificates that a node serves already",
		Long: `Adopt finds the certificate files that the running servers of a node use (nginx,
Apache, HAProxy, lighttpd, Tomcat), reads them, asks the node by handshakes what it
serves, and prints the lines for farm.yaml: sites by the names of the certificates,
targets with their paths, and endpoints. Comments say what could not be told, what
is served otherwise than configured, and who else renews the files. Nothing is
changed.

The controller does it over the node's line. With -f it is done in this process,
for a farm.yaml that is not applied yet and need have no sites; its secrets are
read in place, as {file: …} and {env: …}.`,
		Example: `certfarm adopt web1 > web1.yaml
certfarm adopt web1 -f farm.yaml
certfarm adopt web1 --server nginx --config /opt/nginx/nginx.conf`,
		Args: args(1, 1, "the name of a node"), ValidArgsFunction: a.completeNames("node"),
		RunE: func(cmd *cobra.Command, given []string) error {
			if ask.Config != "" && ask.Server == "" {
				return usage("add --server nginx", "--config needs --server")
			}
			if file != "" {
				return a.adoptHere(cmd.Context(), file, given[0], ask)
			}
			return a.with(cmd.Context(), func(c *client.Client, farmName string) error {
				r, err := c.Adopt(cmd.Context(), farmName, given[0], ask)
				if err != nil {
					return a.meant(cmd.Context(), c, "nodes", farmName, given[0], err)
				}
				return a.showAdopted(farmName, r)
			})
		},
	})
	f := c.Flags()
	f.StringVarP(&file, "file", "f", "", "do it in this process, with this farm.yaml")
	f.StringVar(&ask.Server, "server", "", "only this server: nginx, apache, haproxy, lighttpd or tomcat (default: all that run)")
	f.StringVar(&ask.Config, "config", "", "its configuration on the node (default: as its process says)")
	_ = c.RegisterFlagCompletionFunc("server", cobra.FixedCompletions([]string{"nginx", "apache", "haproxy", "lighttpd", "tomcat"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// adoptHere looks at the node without a controller.
func (a *app) adoptHere(ctx context.Context, file, node string, ask controller.AdoptAsk) error {
	text, err := a.readFile(file, maxFarmFile)
	if err != nil {
		return err
	}
	config, lines := controller.Real(nil, nil, slog.New(slog.DiscardHandler))
	defer lines.Close()
	if config.Commands, err = a.commands(""); err != nil {
		return err
	}
	r, err := controller.New(config).AdoptFrom(ctx, text, file, node, ask)
	if err != nil {
		return err
	}
	return a.showAdopted("", r)
}

// showAdopted prints the lines to standard output, and what else there is to say to
// standard error: the lines can go into a file as they are.
func (a *app) showAdopted(farmName string, r adopt.Report) error {
	code := exitDone
	if r.YAML == "" {
		code = exitPartly
	}
	if a.json {
		if err := a.object(object{"adopted", farmName, r}); err != nil {
			return err
		}
		return quiet(code)
	}
	if r.YAML != "" {
		a.print("%s", strings.TrimRight(r.YAML, "\n"))
	}
	for _, n := range r.Notes {
		a.say("! %s", oneLine(n))
	}
	if r.YAML == "" {
		a.say("no certificate file was found on %s that could be adopted", r.Node)
	}
	if len(r.Next) > 0 {
		a.say("")
		a.say("What to do now:")
	}
	for _, n := range r.Next {
		a.say("  - %s", oneLine(n))
	}
	return quiet(code)
}
