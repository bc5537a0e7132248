package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/config"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// A kind is a sort of thing that can be listed. To add one, write its list and
// name it in kinds.
type kind struct {
	name string // plural
	one  string
	list func(ctx context.Context, c *client.Client, farmName string) (list, error)
}

// A list is what was found: names, columns (some only in the wide form), and the
// things themselves for JSON.
type list struct {
	names []string
	head  []string
	rows  func(u *ui) [][]cell
	wide  int // columns from this one on are shown with -o wide only
	items any
}

func kinds() []kind {
	return []kind{
		{"sites", "site", listSites},
		{"targets", "target", listTargets},
		{"nodes", "node", listNodes},
		{"rollouts", "rollout", listRollouts},
		{"replacements", "replacement", listReplacements},
		{"receivers", "receiver", listReceivers},
		{"secrets", "secret", listSecrets},
		{"farms", "farm", listFarms},
	}
}

func kindNamed(name string) (kind, bool) {
	all := kinds()
	i := slices.IndexFunc(all, func(k kind) bool { return k.name == name || k.one == name })
	if i < 0 {
		return kind{}, false
	}
	return all[i], true
}

func kindNames() (all []string) {
	for _, k := range kinds() {
		all = append(all, k.name)
	}
	return all
}

func newGet(a *app) *cobra.Command {
	var output string
	var watch bool
	c := a.inFarm(&cobra.Command{
		Use: "get " + strings.Join(kindNames(), "|"), GroupID: groupWork, Short: "List sites, targets, nodes, rollouts, mass replacements, receivers of notifications, secrets or farms",
		Example: `certfarm get sites
certfarm get sites --watch
certfarm get targets -o wide
certfarm get nodes -o name | xargs -n1 certfarm describe node`,
		Args:      args(1, 1, "one of "+strings.Join(kindNames(), ", ")),
		ValidArgs: kindNames(),
		RunE: func(cmd *cobra.Command, given []string) error {
			k, ok := kindNamed(given[0])
			if !ok {
				hint := "there is " + strings.Join(kindNames(), ", ")
				if near := config.Meant(given[0], kindNames()); near != "" {
					hint = "did you mean " + near + "?"
				}
				return usage(hint, "there are no %q to get", given[0])
			}
			if output == "json" {
				a.json = true
			}
			if !slices.Contains([]string{"", "wide", "json", "name"}, output) {
				return usage("there is wide, json and name", "-o %s is unknown", output)
			}
			if watch && k.name != "sites" {
				return usage("`certfarm events --follow` tells what happens", "--watch is for sites")
			}
			return a.get(cmd.Context(), k, output, watch)
		},
	})
	c.Flags().StringVarP(&output, "output", "o", "", "wide, json or name")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "list again whenever something changes (sites)")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"wide", "json", "name"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) get(ctx context.Context, k kind, output string, watch bool) error {
	if k.name == "farms" {
		c, err := a.connect()
		if err != nil {
			return err
		}
		defer c.Close()
		return a.show(ctx, c, k, "", output)
	}
	return a.with(ctx, func(c *client.Client, name string) error {
		if watch {
			return a.watch(ctx, c, name, func() error { return a.show(ctx, c, k, name, output) })
		}
		return a.show(ctx, c, k, name, output)
	})
}

func (a *app) show(ctx context.Context, c *client.Client, k kind, farmName, output string) error {
	var l list
	err := a.during(k.name+" are read", func() (err error) {
		if l, err = k.list(ctx, c, farmName); len(l.names) == 0 {
			l.items = []string{} // programs iterate over it
		}
		return err
	})
	if err != nil {
		return err
	}
	switch {
	case a.json:
		return a.object(listing{k.name, farmName, l.items})
	case output == "name":
		for _, n := range l.names {
			a.print("%s", n)
		}
		return nil
	case len(l.names) == 0:
		a.say("There are no %s.", k.name)
		return nil
	}
	if k.name == "sites" {
		if f, err := c.FarmFile(ctx, farmName); err == nil && f.Frozen != "" {
			a.say("%s", a.tint(a.err, warn, "! Farm "+farmName+" is frozen by "+f.Frozen+": nothing goes live until `certfarm freeze --off`."))
		}
	}
	if output == "wide" {
		l.wide = 0
	}
	a.table(l.narrow(a.ui))
	return nil
}

// narrow is the table without the columns that only the wide form has.
func (l list) narrow(u *ui) (head []string, rows [][]cell) {
	head, rows = l.head, l.rows(u)
	if l.wide > 0 {
		head = head[:l.wide]
		for i := range rows {
			rows[i] = rows[i][:l.wide]
		}
	}
	return head, rows
}

// watchEvery is how long a list stands while nothing is heard: times in it grow
// old.
const watchEvery = 10 * time.Second

// errAgain ends one round of watching.
var errAgain = errors.New("something happened")

// watch lists again after every event. On a terminal the list is drawn in place.
func (a *app) watch(ctx context.Context, c *client.Client, farmName string, show func() error) error {
	f := &follower{ui: a.ui, source: c, farm: farmName}
	if err := f.begin(ctx); err != nil {
		return err
	}
	for {
		if isTerminal(a.out) && !a.json && !a.dumb() {
			fmt.Fprint(a.out, "\x1b[H\x1b[2J")
		}
		if err := show(); err != nil {
			return err
		}
		round, stop := context.WithTimeout(ctx, watchEvery)
		err := c.Follow(round, farmName, store.EventQuery{After: f.after}, func(e farm.Event) error {
			f.after = e.ID
			return errAgain
		})
		stop()
		switch {
		case ctx.Err() != nil:
			return left(ctx.Err())
		case !errors.Is(err, errAgain) && !errors.Is(err, context.DeadlineExceeded):
			return err
		}
		if !isTerminal(a.out) && !a.json {
			a.print("")
		}
	}
}

// left is no error where the person ended what would never end by itself.
func left(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func syncTone(s string) tone {
	switch s {
	case "in-sync":
		return good
	case "drifted":
		return bad
	}
	return warn
}

func healthTone(s string) tone {
	switch s {
	case "healthy":
		return good
	case "progressing":
		return busy
	case "degraded":
		return bad
	}
	return warn
}

func listSites(ctx context.Context, c *client.Client, farmName string) (list, error) {
	all, err := c.Sites(ctx, farmName)
	l := list{head: []string{"NAME", "SYNC", "HEALTH", "TARGETS", "EXPIRES", "NEXT LOOK", "ATTENTION", "VERSION", "ISSUER", "NAMES"}, wide: 7, items: all}
	for _, s := range all {
		l.names = append(l.names, s.Name)
	}
	l.rows = func(u *ui) (rows [][]cell) {
		for i, s := range all {
			if s.Of != "" && (i == 0 || all[i-1].Of != s.Of) {
				rows = append(rows, siteRow(u, controller.Whole(s.Of, membersOf(all, s.Of))))
			}
			rows = append(rows, siteRow(u, s))
		}
		return rows
	}
	return l, err
}

func siteRow(u *ui, s controller.SiteStatus) []cell {
	return []cell{
		{text: s.Name}, {s.Sync, syncTone(s.Sync)}, {s.Health, healthTone(s.Health)},
		{text: fmt.Sprintf("%d/%d", s.InStep, s.Targets)}, {text: u.when(s.NotAfter)}, {text: u.when(s.Next)},
		{attention(s), warn}, {text: farm.Short(s.Version)}, {text: s.Issuer}, {text: strings.Join(s.Names, ",")},
	}
}

// membersOf are those of the sites that are a node's part of one with strategy per-node.
func membersOf(all []controller.SiteStatus, whole string) []controller.SiteStatus {
	return slices.DeleteFunc(slices.Clone(all), func(s controller.SiteStatus) bool { return s.Of != whole })
}

// attention is the first thing that asks for a person, and how many more do.
func attention(s controller.SiteStatus) string {
	const wide = 60 // describe shows all of it
	switch len(s.Attention) {
	case 0:
		if s.Waits != "" {
			return cut("waits: "+oneLine(s.Waits), wide)
		}
		return "–"
	case 1:
		return cut(oneLine(s.Attention[0]), wide)
	}
	return fmt.Sprintf("%s (and %d more)", cut(oneLine(s.Attention[0]), wide), len(s.Attention)-1)
}

func listTargets(ctx context.Context, c *client.Client, farmName string) (list, error) {
	all, err := c.Targets(ctx, farmName, "")
	l := list{head: []string{"NAME", "SYNC", "SERVES", "WANTS", "LOOKED", "TROUBLE", "NODE", "KIND", "REACH"}, wide: 6, items: all}
	for _, t := range all {
		l.names = append(l.names, t.Name)
	}
	l.rows = func(u *ui) (rows [][]cell) {
		for _, t := range all {
			rows = append(rows, []cell{
				{text: t.Name}, {t.Sync, syncTone(t.Sync)}, {text: shorts(t.Serves)}, {text: shorts(t.Wants)}, {text: u.when(t.Looked)},
				{dash(t.Trouble), warn}, {text: dash(t.Node)}, {text: t.Kind}, {text: t.Reach},
			})
		}
		return rows
	}
	return l, err
}

func shorts(fingerprints []string) string {
	var all []string
	for _, f := range fingerprints {
		all = append(all, farm.Short(f))
	}
	return dash(strings.Join(all, ","))
}

func dash(s string) string {
	if s == "" {
		return "–"
	}
	return oneLine(s)
}

func listNodes(ctx context.Context, c *client.Client, farmName string) (list, error) {
	all, err := c.Nodes(ctx, farmName)
	l := list{head: []string{"NAME", "REACH", "TARGETS", "HELD BY", "AGENT", "ADDRESS", "LABELS"}, wide: 6, items: all}
	for _, n := range all {
		l.names = append(l.names, n.Name)
	}
	l.rows = func(u *ui) (rows [][]cell) {
		for _, n := range all {
			reach := map[string]tone{"up": good, "down": bad, "serves": warn}[n.Reach]
			var labels []string
			for k, v := range n.Labels {
				labels = append(labels, k+"="+v)
			}
			slices.Sort(labels)
			rows = append(rows, []cell{
				{text: n.Name}, {n.Reach, reach}, {text: fmt.Sprintf("%d/%d", n.InStep, n.Targets)}, {dash(n.Held), warn},
				agentCell(u, n.Agent), {text: dash(n.Address)}, {text: dash(strings.Join(labels, ","))},
			})
		}
		return rows
	}
	return l, err
}

func listSecrets(ctx context.Context, c *client.Client, farmName string) (list, error) {
	all, err := c.Secrets(ctx, farmName)
	l := list{head: []string{"NAME", "SET"}, items: all}
	for _, s := range all {
		l.names = append(l.names, s.Name)
	}
	l.rows = func(u *ui) (rows [][]cell) {
		for _, s := range all {
			rows = append(rows, []cell{{text: s.Name}, {text: u.when(s.At)}})
		}
		return rows
	}
	return l, err
}

func listFarms(ctx context.Context, c *client.Client, _ string) (list, error) {
	all, err := c.Farms(ctx)
	l := list{names: all, head: []string{"NAME"}, items: all}
	l.rows = func(*ui) (rows [][]cell) {
		for _, f := range all {
			rows = append(rows, []cell{{text: f}})
		}
		return rows
	}
	return l, err
}
