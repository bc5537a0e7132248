package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// The groups of commands, as the help shows them.
const (
	groupStart  = "start"
	groupFarm   = "farm"
	groupWork   = "work"
	groupState  = "state"
	groupOthers = "others"
)

// newRoot is the whole tree of commands. Cobra was chosen for its completion of
// commands, flags and names in four shells.
func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "certfarm",
		Short: "Keep the TLS certificates of a load-balanced web farm in step",
		Long: `Certfarm gets certificates from an ACME CA, installs them on every server that
needs them, and counts the work done only when each node, asked by its own
address, serves the new certificate. Otherwise all go back to what they had.`,
		Example: `certfarm serve                       run the controller
certfarm validate farm.yaml          check a farm.yaml, offline
certfarm plan farm.yaml              show what it would change
certfarm apply farm.yaml             change it, and watch the rollout
certfarm get sites                   see what is served
certfarm run --once -f farm.yaml     all of it in one process, for cron`,
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Args:              subcommand,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetUsageTemplate(usageTemplate)
	root.SetHelpTemplate(helpTemplate)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("`"+cmd.CommandPath()+" --help` shows the flags", "%w", err)
	})
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON lines, the last one is the result")
	root.PersistentFlags().BoolVar(&a.noColor, "no-color", false, "no colours (so do NO_COLOR and TERM=dumb)")
	for _, g := range []cobra.Group{
		{ID: groupStart, Title: "Run:"}, {ID: groupFarm, Title: "Say what the farm is:"}, {ID: groupWork, Title: "See and steer:"},
		{ID: groupState, Title: "Keep safe:"}, {ID: groupOthers, Title: "More:"},
	} {
		root.AddGroup(&g)
	}
	root.SetHelpCommandGroupID(groupOthers)
	for _, c := range commands(a) {
		root.AddCommand(c)
	}
	indentExamples(root)
	return root
}

func indentExamples(c *cobra.Command) {
	if c.Example != "" {
		c.Example = "  " + strings.ReplaceAll(c.Example, "\n", "\n  ")
	}
	for _, under := range c.Commands() {
		indentExamples(under)
	}
}

// commands lists every command.
func commands(a *app) []*cobra.Command {
	return []*cobra.Command{
		newLab(a), newServe(a), newRun(a), newSelftest(a), newReceive(a), newAgent(a),
		newValidate(a), newPlan(a), newApply(a), newImport(a), newRetire(a), newSecret(a), newSchema(a), newKinds(a), newSnippet(a), newAdopt(a), newDNS(a),
		newGet(a), newDescribe(a), newEvents(a), newVerify(a), newPreflight(a), newForecast(a), newRenew(a), newReplace(a), newRevoke(a), newCompromise(a), newRollout(a), newFreeze(a), newNode(a), newTarget(a), newNotify(a), newDoctor(a),
		newBackup(a), newRestore(a), newRekey(a), newAccount(a), newToken(a), newExport(a), newAudit(a),
		newCompletion(a), newVersion(a), newDNSHelper(), newNotifyHelper(),
	}
}

// subcommand refuses a word that is no command, and says what may be meant.
func subcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := "`" + cmd.CommandPath() + " --help` lists the commands"
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean `" + cmd.CommandPath() + " " + near[0] + "`?"
	}
	return usage(hint, "there is no command %q", cmd.CommandPath()+" "+args[0])
}

// group is a command that only holds others.
func group(c *cobra.Command, under ...*cobra.Command) *cobra.Command {
	c.Args = subcommand
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		return usage("`"+cmd.CommandPath()+" --help` lists them", "%s needs one of its commands: %s", cmd.CommandPath(), names(under))
	}
	c.AddCommand(under...)
	return c
}

func names(all []*cobra.Command) string {
	var list []string
	for _, c := range all {
		list = append(list, c.Name())
	}
	return strings.Join(list, ", ")
}

// args checks how many words stand behind a command; what says which.
func args(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		hint := "`" + cmd.CommandPath() + " --help` shows examples"
		switch {
		case len(given) < least:
			return usage(hint, "%s needs %s", cmd.CommandPath(), what)
		case len(given) > most && most == 0:
			return usage(hint, "%s takes no words, but was given %q", cmd.CommandPath(), given[0])
		case len(given) > most:
			return usage(hint, "%s takes %s only, but was also given %q", cmd.CommandPath(), what, given[most])
		}
		return nil
	}
}

const helpTemplate = `{{with (or .Long .Short)}}{{. | trimTrailingWhitespaces}}

{{end}}{{.UsageString}}`

// usageTemplate shows examples first: they are what is read.
const usageTemplate = `{{if .HasExample}}Examples:
{{.Example}}

{{end}}Usage:
{{if not .HasAvailableSubCommands}}  {{.UseLine}}{{else}}{{if and .HasParent .HasAvailableLocalFlags}}  {{.UseLine}}
{{end}}  {{.CommandPath}} COMMAND{{end}}
{{$commands := .Commands}}{{if .HasAvailableSubCommands}}{{if .Groups}}{{range $group := .Groups}}
{{.Title}}
{{range $commands}}{{if and (eq .GroupID $group.ID) .IsAvailableCommand}}  {{rpad .Name .NamePadding}}   {{.Short}}
{{end}}{{end}}{{end}}{{else}}
Commands:
{{range $commands}}{{if .IsAvailableCommand}}  {{rpad .Name .NamePadding}}   {{.Short}}
{{end}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}
Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}
{{end}}{{if .HasAvailableInheritedFlags}}
Flags of every command:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}
{{end}}`
