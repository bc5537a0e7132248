package web

import (
	"time"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
)

// newest is how many rollouts and events a page shows.
const newest = 100

// A history is a list of rollouts.
type history struct {
	Rollouts []farm.Rollout `json:"rollouts"`
}

// rollouts are the newest, of all sites.
func (s *server) rollouts(q *question) (any, error) {
	q.cli = "certfarm get rollouts"
	all, err := s.Rollouts(q.ctx(), q.farm, "", newest)
	return history{access.Keep(q.lens, all, func(r farm.Rollout) string { return r.Site })}, err
}

// Count is how many steps are in a state that is as good as they get.
func (history) Count(r farm.Rollout) (n int) {
	for _, s := range r.Steps {
		if s.State == farm.Verified {
			n++
		}
	}
	return n
}

// Table is a line a rollout.
func (h history) Table() [][]string {
	all := [][]string{{"rollout", "site", "reason", "created", "ended", "outcome", "verified", "targets", "why"}}
	for _, r := range h.Rollouts {
		all = append(all, []string{r.ID, r.Site, r.Reason, stamp(r.Created), stamp(r.Ended), string(r.Outcome), text(h.Count(r)), text(len(r.Steps)), r.Why})
	}
	return all
}

// A course is a rollout with what it waits for.
type course struct {
	farm.Rollout
	Busy controller.Progress `json:"busy"`
}

// rollout is one rollout, its waves side by side.
func (s *server) rollout(q *question) (any, error) {
	r, err := s.Rollout(q.ctx(), q.farm, q.PathValue("rollout"))
	if err != nil {
		return nil, err
	}
	q.title, q.cli = "Rollout of "+r.Site, "certfarm rollout status "+r.ID
	c := course{Rollout: r}
	if r.Outcome == farm.Running {
		busy, err := s.Progress(q.ctx(), q.farm, r.Site)
		if err != nil {
			return nil, err
		}
		c.Busy = busy[0]
	}
	return c, nil
}

// Of are the steps of one wave.
func (c course) Of(wave int) (all []farm.Step) {
	for _, s := range c.Steps {
		if s.Wave == wave {
			all = append(all, s)
		}
	}
	return all
}

// Waiting reports that a wave waits for a person.
func (c course) Waiting(w farm.Wave) bool {
	return w.Approve && w.Approved == "" && c.Outcome == farm.Running && c.Back == ""
}

// A stage is a part of a step's way, and whether it is behind it.
type stage struct{ Name, Class string }

// Track is a step's way in four parts.
func (course) Track(s farm.Step) []stage {
	way := []farm.State{farm.Planned, farm.Staged, farm.Active, farm.Verified}
	names := []string{"stage", "activate", "verify", "soak"}
	at := map[farm.State]int{farm.Staged: 1, farm.Active: 2, farm.Verified: 3}[s.State]
	all := make([]stage, 0, len(way))
	for i := range way {
		class := ""
		switch {
		case s.State == farm.Restored || s.State == farm.Stuck || s.Doing == farm.DoRestore:
			class = "back"
		case i < at || s.State == farm.Verified:
			class = "done"
		case i == at && s.Doing != "":
			class = "now"
		}
		all = append(all, stage{names[i], class})
	}
	return all
}

// Took is how long the rollout took, or has taken.
func (c course) Took() string {
	end := c.Ended
	if end.IsZero() {
		end = time.Now()
	}
	return end.Sub(c.Created).Round(time.Second).String()
}
