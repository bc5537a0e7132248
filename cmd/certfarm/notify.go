package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/config"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/notify"
	"github.com/certfarm/certfarm/internal/notify/shout"
)

func newNotify(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use: "notify test|kinds", GroupID: groupWork, Short: "Try the receivers of notifications, and tell which kinds there are",
		Long: `Who is told of what stands in farm.yaml, under notifications. ` + "`certfarm get receivers`" + `
shows how they hear.`,
		Example: `certfarm notify test
certfarm notify test oncall
certfarm notify kinds mail`,
	}, newNotifyTest(a), newNotifyKinds(a))
}

func newNotifyTest(a *app) *cobra.Command {
	return a.inFarm(&cobra.Command{
		Use: "test [RECEIVER]", Short: "Send a message to a receiver, or to all, and wait for what becomes of it",
		Long: `Test sends a message that says that nothing is wrong, from the controller that
answers, to one receiver or to all. It ends with 1 if one did not take it.`,
		Example: `certfarm notify test
certfarm notify test oncall --json`,
		Args: args(0, 1, "at most the name of a receiver"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.with(cmd.Context(), func(c *client.Client, farmName string) error {
				all, err := c.TestReceivers(cmd.Context(), farmName, strings.Join(given, ""))
				if err != nil {
					return err
				}
				return a.showTrials(farmName, all)
			})
		},
	})
}

func (a *app) showTrials(farmName string, all []controller.Trial) error {
	var deaf []string
	var rows [][]cell
	for _, t := range all {
		took := []cell{{t.Receiver, plain}, {t.Kind, faint}, {t.Took.Round(time.Millisecond).String(), faint}, {"it took the message", good}}
		if t.Error != "" {
			took[3] = cell{oneLine(t.Error), bad}
			deaf = append(deaf, t.Receiver)
		}
		rows = append(rows, took)
	}
	if a.json {
		if err := a.object(listing{"trials", farmName, all}); err != nil {
			return err
		}
	} else {
		a.table([]string{"RECEIVER", "KIND", "TOOK", "SAW"}, rows)
	}
	if len(deaf) > 0 {
		return hinted(fmt.Errorf("%s did not take the message", strings.Join(deaf, ", ")), "look at its options in farm.yaml, and give its secret anew with `certfarm secret set`")
	}
	return nil
}

func newNotifyKinds(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "kinds [KIND]", Short: "List the kinds of receivers, or tell what one needs",
		Example: "certfarm notify kinds\ncertfarm notify kinds pagerduty",
		Args:    args(0, 1, "at most the name of a kind"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return receiverKinds(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, given []string) error {
			if len(given) == 0 {
				return a.listReceiverKinds()
			}
			return a.describeReceiverKind(given[0])
		},
	}
}

func receiverKinds() (all []string) {
	for _, k := range notify.Kinds() {
		all = append(all, k.Name)
	}
	return all
}

// A receiverKind is one in JSON.
type receiverKind struct {
	Name    string           `json:"name"`
	About   string           `json:"about"`
	Secrets []notify.Setting `json:"secrets"`
	Options []notify.Setting `json:"options"`
}

func (a *app) listReceiverKinds() error {
	var rows [][]cell
	var found []receiverKind
	for _, k := range notify.Kinds() {
		found = append(found, receiverKind{k.Name, k.Doc, k.Secrets, k.Options})
		rows = append(rows, []cell{{text: k.Name}, {text: k.Doc}})
	}
	if a.json {
		return a.object(listing{"receiver-kinds", "", found})
	}
	a.table([]string{"KIND", "WHAT IT IS"}, rows)
	return nil
}

func (a *app) describeReceiverKind(name string) error {
	k, ok := notify.KindOf(name)
	if !ok {
		hint := "`certfarm notify kinds` lists them"
		if near := config.Meant(name, receiverKinds()); near != "" {
			hint = "did you mean " + near + "?"
		}
		return usage(hint, "there is no kind of receiver %q", name)
	}
	if a.json {
		return a.object(object{"receiver-kind", "", receiverKind{k.Name, k.Doc, k.Secrets, k.Options}})
	}
	a.facts([]fact{{"Kind", k.Name, bold}, {"Is", k.Doc, plain}})
	for _, part := range []struct {
		title string
		all   []notify.Setting
	}{{"Secrets", k.Secrets}, {"Options", k.Options}} {
		var rows [][]cell
		for _, s := range part.all {
			about := s.Doc
			if s.Optional {
				about += " (optional)"
			}
			rows = append(rows, []cell{{text: "  " + s.Name}, {text: oneLine(about)}})
		}
		a.section(part.title, len(rows))
		if len(rows) > 0 {
			a.table([]string{"  NAME", "MEANS"}, rows)
		}
	}
	return nil
}

// listReceivers is `certfarm get receivers`: the ping stands among them.
func listReceivers(ctx context.Context, c *client.Client, farmName string) (list, error) {
	n, err := c.Notifications(ctx, farmName)
	if err != nil {
		return list{}, err
	}
	all := n.Receivers
	if n.Ping != nil {
		all = append(slices.Clone(all), controller.ReceiverState{Hearing: n.Ping.Hearing, Kind: "ping", Gets: []string{"a sign of life every " + n.Ping.Every.String()}})
	}
	l := list{head: []string{"RECEIVER", "KIND", "STATE", "HEARD", "WAITING", "GETS", "WHY"}, wide: 5, items: all}
	for _, r := range all {
		l.names = append(l.names, r.Receiver)
	}
	l.rows = func(u *ui) (rows [][]cell) {
		for _, r := range all {
			state := cell{"hears", good}
			switch {
			case r.Error != "":
				state = cell{fmt.Sprintf("failed %d times", r.Tries), bad}
			case r.Heard.IsZero():
				state = cell{"not tried yet", faint}
			}
			rows = append(rows, []cell{
				{r.Receiver, plain}, {r.Kind, plain}, state, {u.when(r.Heard), faint}, {fmt.Sprint(r.Waiting), plain},
				{strings.Join(r.Gets, "; "), faint}, {oneLine(r.Error), plain},
			})
		}
		return rows
	}
	return l, nil
}

// newNotifyHelper is the process in which the services of receivers of kind shoutrrr are
// spoken to. Only certfarm itself runs it.
func newNotifyHelper() *cobra.Command {
	return &cobra.Command{
		Use: notifyHelper, Hidden: true, Args: args(0, 0, "nothing"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return shout.Main(cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

// notifyHelper is the name of that command.
const notifyHelper = "shout"
