package main

import (
	"context"
	"fmt"

	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/farm"
)

// widestWhy is how much is shown of what went wrong; the wide form shows all.
const widestWhy = 80

// newestRollouts is how many rollouts are listed.
const newestRollouts = 20

func listRollouts(ctx context.Context, c *client.Client, farmName string) (list, error) {
	all, err := c.Rollouts(ctx, farmName, "", newestRollouts)
	l := list{head: []string{"ID", "SITE", "OUTCOME", "TARGETS", "BEGAN", "TOOK", "WHY", "IN FULL"}, wide: 7, items: all}
	for _, r := range all {
		l.names = append(l.names, r.ID)
	}
	l.rows = func(u *ui) (rows [][]cell) {
		for _, r := range all {
			verified := 0
			for _, s := range r.Steps {
				if s.State == farm.Verified {
					verified++
				}
			}
			took := "–"
			if !r.Ended.IsZero() {
				took = span(r.Ended.Sub(r.Created))
			}
			word, t := outcomeWord(r)
			rows = append(rows, []cell{
				{text: r.ID}, {text: r.Site}, {word, t}, {text: fmt.Sprintf("%d/%d", verified, len(r.Steps))},
				{text: u.when(r.Created)}, {text: took}, {text: cut(dash(r.Why), widestWhy)}, {text: dash(r.Why)},
			})
		}
		return rows
	}
	return l, err
}

func outcomeWord(r farm.Rollout) (string, tone) {
	switch {
	case r.Outcome == farm.Running && r.Paused:
		return "paused", warn
	case r.Outcome == farm.Running && r.Back != "":
		return "going back", bad
	case r.Outcome == farm.Running:
		return "running", busy
	}
	return string(r.Outcome), map[int]tone{exitDone: good, exitPartly: warn, exitFailed: bad}[outcome(r)]
}
