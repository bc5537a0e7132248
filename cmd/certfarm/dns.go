package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/net/idna"

	"github.com/certfarm/certfarm/internal/config"
	"github.com/certfarm/certfarm/internal/prove/dns01"
	"github.com/certfarm/certfarm/internal/prove/dns01/provider"
)

func newDNS(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use: "dns providers [NAME]", GroupID: groupFarm, Short: "Tell which DNS providers there are, and what they need",
		Example: "certfarm dns providers\ncertfarm dns providers cloudflare",
	}, &cobra.Command{
		Use: "providers [NAME]", Short: "List the DNS providers, or tell what one needs",
		Long: `Providers lists what can write the TXT records of dns-01: rfc2136, builtin and
exec are Certfarm's own, the others are APIs of DNS hosters. With a name it tells
the settings that go under options and secrets in farm.yaml.`,
		Example: "certfarm dns providers\ncertfarm dns providers cloudflare",
		Args:    args(0, 1, "at most the name of a provider"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return providerNames(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, given []string) error {
			if len(given) == 0 {
				return a.listProviders()
			}
			return a.describeProvider(given[0])
		},
	})
}

func providerNames() (all []string) {
	for _, p := range provider.All() {
		all = append(all, p.Name)
	}
	return all
}

// A dnsProvider is one in JSON.
type dnsProvider struct {
	Name     string       `json:"name"`
	About    string       `json:"about"`
	Docs     string       `json:"docs,omitempty"`
	Forgets  bool         `json:"forgets"`
	Settings []dnsSetting `json:"settings,omitempty"`
}

type dnsSetting struct {
	Name     string `json:"name"`
	About    string `json:"about"`
	Default  string `json:"default,omitempty"`
	Secret   bool   `json:"secret"`
	Required bool   `json:"required"`
}

func (a *app) listProviders() error {
	var rows [][]cell
	var found []dnsProvider
	for _, p := range provider.All() {
		found = append(found, dnsProvider{Name: p.Name, About: p.About, Docs: p.Docs, Forgets: p.Forgets})
		rows = append(rows, []cell{{text: p.Name}, {text: p.About}})
	}
	if a.json {
		return a.object(listing{"providers", "", found})
	}
	a.table([]string{"PROVIDER", "WHAT IT IS"}, rows)
	return nil
}

func (a *app) describeProvider(name string) error {
	all := provider.All()
	i := slices.IndexFunc(all, func(p dns01.Provider) bool { return p.Name == name })
	if i < 0 {
		hint := "`certfarm dns providers` lists them"
		if near := config.Meant(name, providerNames()); near != "" {
			hint = "did you mean " + near + "?"
		}
		return usage(hint, "there is no DNS provider %q", name)
	}
	p := all[i]
	if a.json {
		d := dnsProvider{Name: p.Name, About: p.About, Docs: p.Docs, Forgets: p.Forgets}
		for _, s := range p.Settings {
			d.Settings = append(d.Settings, dnsSetting(s))
		}
		return a.object(object{"provider", "", d})
	}
	cleanUp := "every record is taken away by name and value, also after the controller was killed"
	if p.Forgets {
		cleanUp = "its API forgets which record is whose: after the controller was killed a record may be left, and people are told which"
	}
	a.facts([]fact{{"Provider", p.Name, bold}, {"Is", p.About, plain}, {"Documents", p.Docs, plain}, {"Clean-up", cleanUp, plain}})
	a.settings("Secrets", p, func(s dns01.Setting) bool { return s.Secret })
	a.settings("Options", p, func(s dns01.Setting) bool { return !s.Secret })
	return nil
}

// settings lists those settings of a provider that are wanted.
func (a *app) settings(title string, p dns01.Provider, want func(dns01.Setting) bool) {
	var rows [][]cell
	for _, s := range p.Settings {
		if !want(s) {
			continue
		}
		about := s.About
		if s.Required {
			about += " (required)"
		}
		if s.Default != "" {
			about += fmt.Sprintf(" (default: %s)", s.Default)
		}
		rows = append(rows, []cell{{text: "  " + s.Name}, {text: oneLine(about)}})
	}
	a.section(title, len(rows))
	if len(rows) > 0 {
		a.table([]string{"  NAME", "MEANS"}, rows)
	}
}

// displayed is a name as people read it: in Unicode, with its A-labels where they
// differ. A name that Unicode would make look like another stays as it is.
func displayed(name string) string {
	text, err := idna.Display.ToUnicode(strings.TrimPrefix(name, "*."))
	if err != nil || text == strings.TrimPrefix(name, "*.") {
		return name
	}
	if strings.HasPrefix(name, "*.") {
		text = "*." + text
	}
	return text + " (" + name + ")"
}

func shownNames(names []string) (all []string) {
	for _, n := range names {
		all = append(all, displayed(n))
	}
	return all
}

// newDNSHelper is the process in which a DNS hoster's API is spoken to. Only
// certfarm itself runs it.
func newDNSHelper() *cobra.Command {
	return &cobra.Command{
		Use: dnsHelper, Hidden: true, Args: args(0, 0, "nothing"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return quiet(provider.HelperMain(cmd.Context(), cmd.OutOrStdout()))
		},
	}
}

// dnsHelper is the name of that command.
const dnsHelper = "dns-helper"
