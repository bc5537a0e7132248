package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// reading is what of the journal is read.
type reading struct {
	follow      bool
	site, level string
	last        int
}

// most is how many lines the API gives at once.
const most = 1000

func newEvents(a *app) *cobra.Command {
	var r reading
	c := a.inFarm(&cobra.Command{
		Use: "events", GroupID: groupWork, Short: "Read the journal, or follow it",
		Example: "certfarm events\ncertfarm events --follow --site shop\ncertfarm events --level warning --last 100",
		Args:    args(0, 0, "nothing"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if r.level != "" && rank(farm.Level(r.level)) < 0 {
				return usage("there is info, warning and alarm", "--level %s is unknown", r.level)
			}
			if r.last < 1 || r.last > most {
				return usage("", "--last is from 1 to %d", most)
			}
			return a.with(cmd.Context(), func(c *client.Client, farmName string) error { return a.events(cmd.Context(), c, farmName, r) })
		},
	})
	c.Flags().BoolVarP(&r.follow, "follow", "f", false, "go on with what happens, until Ctrl-C")
	c.Flags().StringVar(&r.site, "site", "", "only of this site")
	c.Flags().StringVar(&r.level, "level", "", "only of this level and above: info, warning, alarm")
	c.Flags().IntVar(&r.last, "last", 20, "how many of the last lines")
	_ = c.RegisterFlagCompletionFunc("level", cobra.FixedCompletions([]string{"info", "warning", "alarm"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// rank orders levels; -1 is none of them.
func rank(l farm.Level) int { return slices.Index([]farm.Level{farm.Info, farm.Warn, farm.Alarm}, l) }

func (a *app) events(ctx context.Context, c *client.Client, farmName string, r reading) error {
	ask := store.EventQuery{Site: r.site, Newest: true, Limit: r.last}
	if rank(farm.Level(r.level)) > 0 {
		ask.Limit = most // the last ones of a level are looked for among these
	}
	past, err := c.Events(ctx, farmName, ask)
	if err != nil {
		return err
	}
	after := ""
	if len(past) > 0 {
		after = past[0].ID
	}
	past = slices.DeleteFunc(past, func(e farm.Event) bool { return rank(e.Level) < rank(farm.Level(r.level)) })
	past = past[:min(len(past), r.last)]
	slices.Reverse(past)
	for _, e := range past {
		if err := a.event(farmName, e); err != nil {
			return err
		}
	}
	if !r.follow {
		return nil
	}
	return left(c.Follow(ctx, farmName, store.EventQuery{Site: r.site, After: after}, func(e farm.Event) error {
		if rank(e.Level) < rank(farm.Level(r.level)) {
			return nil
		}
		return a.event(farmName, e)
	}))
}

// event prints a line of the journal.
func (a *app) event(farmName string, e farm.Event) error {
	if a.json {
		return a.object(object{"event", farmName, e})
	}
	about, text := subject(e)
	level := e.Level
	if level == farm.Info {
		level = ""
	}
	line := e.At.Local().Format("2006-01-02 15:04:05")
	a.print("%s  %-7s  %-12s  %s", line, a.tint(a.out, toneOf(e), string(level)), about, a.tint(a.out, toneOf(e), oneLine(text)))
	return nil
}
