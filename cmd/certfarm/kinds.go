package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/config"
	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/target"
)

func newKinds(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "kinds [NAME]", GroupID: groupFarm, Short: "List the kinds of target, or tell the options of one",
		Long: `Kinds tells in which ways certificates can be installed, offline. With a name it
tells the kind's options with their defaults, its secrets, and its fence: what
keeps a controller that lost its lease from changing something late.

  fenced        the place itself refuses an older writer
  conditional   a change goes through only over what was seen before
  unfenced      commands run under a deadline; a new owner waits it out and looks`,
		Example: "certfarm kinds\ncertfarm kinds nginx\ncertfarm kinds ccs --json",
		Args:    args(0, 1, "the name of a kind"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return target.All().Names(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, given []string) error {
			if len(given) == 0 {
				return a.listKinds(target.All())
			}
			k, err := kindOfTarget(target.All(), given[0])
			if err != nil {
				return err
			}
			return a.tellKind(k.Describe())
		},
	}
}

// kindOfTarget finds a kind by name.
func kindOfTarget(all deploy.Kinds, name string) (deploy.Kind, error) {
	k, ok := all[name]
	if ok {
		return k, nil
	}
	hint := "`certfarm kinds` lists them"
	if near := config.Meant(name, all.Names()); near != "" {
		hint = "did you mean " + near + "?"
	}
	return k, usage(hint, "there is no kind %q of target", name)
}

func (a *app) listKinds(all deploy.Kinds) error {
	var items []deploy.Description
	var rows [][]cell
	for _, name := range all.Names() {
		d := all[name].Describe()
		items = append(items, d)
		rows = append(rows, []cell{{text: d.Name}, {text: d.Fence}, {text: d.Doc}})
	}
	if a.json {
		return a.object(listing{Type: "kinds", Items: items})
	}
	a.table([]string{"KIND", "FENCE", "IS"}, rows)
	return nil
}

func (a *app) tellKind(d deploy.Description) error {
	if a.json {
		return a.object(object{Type: "kind", Item: d})
	}
	where := "on a node"
	if d.Nodeless {
		where = "not on a node: its nodes in farm.yaml are those that read it"
	}
	trial := "`certfarm target test` and `certfarm selftest` try it beside what is live"
	if !d.Trial {
		trial = "`certfarm target test` can reach it and look, and nothing more"
	}
	a.facts([]fact{{"Kind", d.Name, bold}, {"Is", d.Doc, plain}, {"Stands", where, plain}, {"Fence", d.Fence, plain}, {"Trial", strings.ReplaceAll(trial, "`", ""), plain}})
	a.section("Options", len(d.Options))
	for _, o := range d.Options {
		a.tellSetting(o.Name, o.Doc, "default: "+dash(o.Text()))
	}
	a.section("Secrets", len(d.Secrets))
	for _, s := range d.Secrets {
		must := "required"
		if s.Optional {
			must = "optional"
		}
		a.tellSetting(s.Name, s.Doc, must)
	}
	return nil
}

// tellSetting tells one setting: what it is called, what it may be left at, and what
// it means below.
func (a *app) tellSetting(name, doc, left string) {
	a.print("  %s   %s", a.tint(a.out, bold, name), a.tint(a.out, faint, left))
	width, _ := size(a.out)
	for _, line := range wrapped(doc, width-6) {
		a.print("      %s", line)
	}
}

// wrapped is a text in lines of so many letters at most, if its words allow.
func wrapped(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
