package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/renew"
	"github.com/certfarm/certfarm/internal/store"
)

// turnEvery is how often a controller to which agents come sees whether their CA is to
// be followed by another.
const turnEvery = time.Minute

// AgentsCA is how the CA of the agents is: one for all farms.
type AgentsCA struct {
	Pin     string    `json:"pin,omitempty" doc:"SHA-256 of its public key, hex; not set: there is no CA yet, since no agent was to join"`
	Made    time.Time `json:"made,omitzero"`
	Ends    time.Time `json:"ends,omitzero"`
	Next    string    `json:"next,omitempty" doc:"pin of the one that follows it, of which the agents are being told"`
	Since   time.Time `json:"since,omitzero" doc:"when that was made"`
	By      time.Time `json:"by,omitzero" doc:"when the next one signs at the latest; before, once every agent knows of it"`
	Agents  int       `json:"agents" doc:"of all farms that may come, counted while another CA follows"`
	Unaware []string  `json:"unaware,omitempty" doc:"farm/node of the agents that do not know of the next one yet; they are told when they renew their certificate"`
}

// authority is what is decided by.
func (a AgentsCA) authority(cas *authorities) renew.Authority {
	return renew.Authority{Made: a.Made, Ends: a.Ends, Next: a.Since, Past: len(cas.past) > 0, Unaware: len(a.Unaware)}
}

// turnAgentsCA does what is to be done about the CA of the agents: makes the first, has
// another follow it in time, and forgets it at the end. Whoever comes first does it.
func (c *Controller) turnAgentsCA(ctx context.Context) error {
	due := false
	err := c.Store.View(ctx, func(tx *store.Tx) error {
		cas, is, err := c.agentsCAState(ctx, tx)
		due = err == nil && (cas == nil || renew.TurnCA(is.authority(cas), tx.Now()) != renew.KeepCA)
		return err
	})
	if err != nil || !due {
		return err
	}
	return c.Store.Update(ctx, func(tx *store.Tx) error {
		cas, is, err := c.agentsCAState(ctx, tx)
		if err != nil {
			return err
		}
		if cas == nil {
			first, err := newAgentsCA(tx.Now())
			if err != nil {
				return err
			}
			return c.putAgentsCAs(ctx, tx, &authorities{signs: first})
		}
		return c.turn(ctx, tx, cas, is, renew.TurnCA(is.authority(cas), tx.Now()), "certfarm")
	})
}

// turn does one thing about the CA of the agents, and tells every farm that has agents.
func (c *Controller) turn(ctx context.Context, tx *store.Tx, cas *authorities, is AgentsCA, do renew.Turnover, by string) (err error) {
	e := farm.Event{Kind: "agents.rollover", Actor: by}
	switch do {
	case renew.MakeCA:
		if cas.next, err = newAgentsCA(tx.Now()); err != nil {
			return err
		}
		e.Text = fmt.Sprintf("the CA of the agents is followed by another, %s: agents are told of it when they renew their certificate, within half a day", farm.Short(cas.next.pin()))
		e.Hint = "`certfarm node ca` shows which do not know of it yet"
	case renew.SwitchCA:
		cas.past = append(cas.past, cas.signs.cert)
		cas.signs, cas.next = cas.next, nil
		e.Kind, e.Text = "agents.rolled", fmt.Sprintf("the CA of the agents is %s now, and the key of the one before is erased", farm.Short(cas.signs.pin()))
		if len(is.Unaware) > 0 {
			e.Level = farm.Warn
			e.Text += fmt.Sprintf("; %d of %d agents were not heard of meanwhile and must join anew: %s", len(is.Unaware), is.Agents, firstOf(is.Unaware))
			e.Hint = "`certfarm node token NODE` for each of them"
		}
	case renew.ForgetCA:
		cas.past = nil
		return c.putAgentsCAs(ctx, tx, cas)
	case renew.KeepCA:
		return nil
	}
	if err := c.putAgentsCAs(ctx, tx, cas); err != nil {
		return err
	}
	return tellAgents(ctx, tx, e)
}

// tellAgents tells an event to every farm that has agents.
func tellAgents(ctx context.Context, tx *store.Tx, e farm.Event) error {
	farms, err := tx.Farms(ctx)
	if err != nil {
		return err
	}
	for _, f := range farms {
		agents, err := tx.Agents(ctx, f)
		if err != nil {
			return err
		}
		if e.Farm = f; len(agents) > 0 {
			err = tell(ctx, tx, e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// firstOf names some of many.
func firstOf(names []string) string {
	const most = 10
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:most], ", ") + ", …"
}

// agentsCAState reads the CAs and what the agents know of them; nil: there is no CA yet.
func (c *Controller) agentsCAState(ctx context.Context, tx *store.Tx) (cas *authorities, is AgentsCA, err error) {
	if cas, err = c.agentsCAs(ctx, tx); err != nil || cas == nil {
		return cas, is, err
	}
	is.Pin, is.Made, is.Ends = cas.signs.pin(), cas.signs.made(), cas.signs.cert.NotAfter
	if cas.next == nil {
		return cas, is, nil
	}
	is.Next, is.Since = cas.next.pin(), cas.next.made()
	farms, err := tx.Farms(ctx)
	if err != nil {
		return cas, is, err
	}
	for _, f := range farms {
		if err := is.ask(ctx, tx, f); err != nil {
			return cas, is, err
		}
	}
	is.By = renew.SwitchBy(is.authority(cas))
	return cas, is, nil
}

// ask sees which of a farm's agents know the next CA. One whose node farm.yaml gives no
// agent any more may not come.
func (a *AgentsCA) ask(ctx context.Context, tx *store.Tx, farmName string) error {
	agents, err := tx.Agents(ctx, farmName)
	if err != nil || len(agents) == 0 {
		return err
	}
	nodes, err := tx.Nodes(ctx, farmName)
	if err != nil {
		return err
	}
	has := map[string]bool{}
	for _, n := range nodes {
		has[n.Name] = n.Agent
	}
	for _, one := range agents {
		if one.Banned != "" || !has[one.Node] {
			continue
		}
		a.Agents++
		if !slices.Contains(one.Roots, a.Next) {
			a.Unaware = append(a.Unaware, farmName+"/"+one.Node)
		}
	}
	return nil
}

// AgentsCA tells how the CA of the agents is. Nothing is made.
func (c *Controller) AgentsCA(ctx context.Context) (is AgentsCA, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		_, is, err = c.agentsCAState(ctx, tx)
		return err
	})
	return is, err
}

// RollOverAgentsCA has another CA follow that of the agents before its time. With now it
// signs at once, whoever knows of it: those that do not must join anew.
func (c *Controller) RollOverAgentsCA(ctx context.Context, by string, now bool) (is AgentsCA, err error) {
	err = c.Store.Update(ctx, func(tx *store.Tx) error {
		cas, was, err := c.agentsCAState(ctx, tx)
		switch {
		case err != nil:
			return err
		case cas == nil:
			return &Refusal{"there is no CA of agents yet", "it is made when the first agent is to join"}
		case cas.next != nil && !now:
			return &Refusal{"the CA of the agents is being followed by another already: " + agentsWait(was), "`certfarm node ca` shows how far it is; `--now` does not wait for the rest"}
		}
		if cas.next == nil {
			if err := c.turn(ctx, tx, cas, was, renew.MakeCA, by); err != nil {
				return err
			}
		}
		if cas, was, err = c.agentsCAState(ctx, tx); err == nil && now {
			err = c.turn(ctx, tx, cas, was, renew.SwitchCA, by)
		}
		if err == nil {
			_, is, err = c.agentsCAState(ctx, tx)
		}
		return err
	})
	c.agents.reread()
	return is, err
}

// agentsWait says what the next CA waits for.
func agentsWait(a AgentsCA) string {
	if len(a.Unaware) == 0 {
		return "all agents know of it, and it signs within the hour"
	}
	return fmt.Sprintf("%d of %d agents do not know of it yet", len(a.Unaware), a.Agents)
}

// ofAgentsCA judges the CA of the agents; nothing is said of one that is not needed.
func ofAgentsCA(a AgentsCA, now time.Time) []CheckupResult {
	if a.Pin == "" {
		return nil
	}
	r := CheckupResult{Area: "agents", Name: "CA", Verdict: CheckupOK, Saw: "ends " + a.Ends.UTC().Format(time.DateOnly) + "; another follows it by itself, two years before"}
	switch {
	case a.Next == "" && now.After(a.Ends.Add(-caFollowed)):
		r.Verdict, r.Saw = CheckupWarning, "ends "+a.Ends.UTC().Format(time.DateOnly)+", and no other follows it yet"
		r.Hint = "it is made when an agent comes, or a token for one is made: does `certfarm serve --agents` run?"
	case a.Next != "":
		r.Saw = fmt.Sprintf("another follows it since %s; %s; it signs at %s at the latest", stamp(a.Since), agentsWait(a), stamp(a.By))
		if len(a.Unaware) > 0 && now.Sub(a.Since) > agentLife {
			r.Verdict, r.Hint = CheckupWarning, "these must ask before then, or join anew: "+firstOf(a.Unaware)
		}
	}
	return []CheckupResult{r}
}

// caFollowed is how long before its end another is there, and a little less.
const caFollowed = agentsCALife/5 - 24*time.Hour

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
