package web

import (
	"time"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
)

// newest is how many rollouts a page shows at once.
const newest = 50

// A history is a list of rollouts.
type history struct {
	Site     string         `json:"-"` // only of this one
	Before   string         `json:"-"` // id
	Rollouts []farm.Rollout `json:"rollouts"`
	next     string         // id before which the next page begins; empty: there is none
}

// rollouts are the newest, of all sites or of one.
func (s *server) rollouts(q *question) (any, error) {
	v := q.URL.Query()
	h := history{Site: v.Get("site"), Before: v.Get("before")}
	q.still = h.Before != ""
	q.cli = "certfarm get rollouts"
	all, err := s.RolloutsAfter(q.ctx(), q.farm, h.Site, h.Before, newest)
	if len(all) == newest {
		h.next = all[newest-1].ID
	}
	for _, r := range access.Keep(q.lens, all, func(r farm.Rollout) string { return r.Site }) {
		h.Rollouts = append(h.Rollouts, r.Shown())
	}
	return h, err
}

// Older is the query of the next page; empty: there is none.
func (h history) Older() string {
	if h.next == "" {
		return ""
	}
	return queryOf(map[string]string{"site": h.Site, "before": h.next})
}

// Newest is the query of the first page.
func (h history) Newest() string { return queryOf(map[string]string{"site": h.Site}) }

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
	Busy   controller.Progress `json:"busy"`
	Frozen string              `json:"frozen,omitempty"` // who stopped all activations
}

// rollout is one rollout, its waves side by side.
func (s *server) rollout(q *question) (any, error) {
	c, err := s.course(q, q.PathValue("rollout"))
	if err != nil {
		return nil, err
	}
	q.title, q.cli = "Rollout of "+c.Site, "certfarm rollout status "+c.ID
	return c, nil
}

func (s *server) course(q *question, id string) (c course, err error) {
	r, err := s.Rollout(q.ctx(), q.farm, id)
	c.Rollout = r.Shown()
	if err != nil || r.Outcome != farm.Running {
		return c, err
	}
	if c.Frozen, err = s.Frozen(q.ctx(), q.farm); err != nil {
		return c, err
	}
	busy, err := s.Progress(q.ctx(), q.farm, r.Site)
	if err == nil {
		c.Busy = busy[0]
	}
	return c, err
}

// Table is a line a step.
func (c course) Table() [][]string {
	all := [][]string{{"wave", "target", "state", "doing", "attempt", "staged", "activated", "verified", "error"}}
	for _, s := range c.Steps {
		all = append(all, []string{text(s.Wave + 1), s.Target, string(s.State), string(s.Doing), text(s.Attempt), stamp(s.Staged), stamp(s.Activated), stamp(s.Verified), s.Error})
	}
	return all
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

// Later reports that a step waits, and when it goes on.
func (course) Later(s farm.Step) bool { return s.Doing == "" && s.Again.After(time.Now()) }

// Took is how long the rollout took, or has taken.
func (c course) Took() string {
	end := c.Ended
	if end.IsZero() {
		end = time.Now()
	}
	return end.Sub(c.Created).Round(time.Second).String()
}
