package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// Heard is what an agent says of itself each time it asks for calls. A session is one
// process; its questions are counted, and no number comes twice.
type Heard struct {
	Session string
	Count   int64
	Version string
	At      time.Time // by its own clock; an earlier Certfarm does not say
}

const (
	writtenEvery = 20 * time.Second // how often it is written that an agent is there
	heardGrace   = 5 * time.Second  // a question that comes late by less is one that was under way
	sessionsKept = 8
)

// hear is what one question makes of an agent's row. There is one process with a key:
// a session that another took the place of, or a number that was used, means that two
// have it. A question that was under way while its process ended, or that went over
// another controller, may come late: strict says that there was one already.
func hear(a store.Agent, h Heard, at time.Time, strict bool) (_ store.Agent, odd bool, clone string) {
	late := func(since time.Time) bool { return !strict && at.Sub(since) < heardGrace }
	switch {
	case a.Session == h.Session && h.Count == a.Count:
		clone = "two processes ask in one session: the machine was copied while it ran"
	case a.Session == h.Session && h.Count < a.Count:
		if odd = late(a.Seen); !odd {
			clone = "two processes ask in one session: the machine was copied while it ran"
		}
	case a.Session == h.Session:
		a.Count = h.Count
	case slices.Contains(a.Before, h.Session):
		if odd = late(a.Taken); !odd {
			clone = "two machines have its key and ask by turns"
		}
	default:
		a = begun(a, h, at)
	}
	if at.After(a.Seen) {
		a.Seen = at
	}
	a.Version, a.Ahead = h.Version, aheadBy(h.At, at)
	return a, odd, clone
}

// aheadBy is how far an agent's clock is ahead of ours, to the second; nil: it did not
// say.
func aheadBy(said, at time.Time) *time.Duration {
	if said.IsZero() {
		return nil
	}
	ahead := said.Sub(at).Truncate(time.Second)
	return &ahead
}

// begun is an agent's row when a session of its own takes the place of the one before.
func begun(a store.Agent, h Heard, at time.Time) store.Agent {
	if a.Session != "" {
		a.Before = append(a.Before, a.Session)
		a.Before = slices.Clone(a.Before[max(0, len(a.Before)-sessionsKept):])
	}
	a.Session, a.Count, a.Taken = h.Session, h.Count, at
	return a
}

// A hearing is one question of an agent, and what this controller heard of it before
// and has not written.
type hearing struct {
	agent  store.Agent
	before knownAgent
	now    Heard
	at     time.Time
	strict bool
}

// HearAgent notes that an agent asked. Most of it is only kept in mind; it is written
// when it is new, odd, or was not for a while. An agent of which there are two is
// turned away.
func (c *Controller) HearAgent(ctx context.Context, a store.Agent, h Heard) error {
	now := c.Now()
	g, usual := c.agents.note(a, h, now)
	if usual {
		return nil
	}
	row, err := c.agents.hears.run(ctx, g)
	if err != nil {
		return err
	}
	c.agents.learn(row.agent, now)
	c.agents.wrote(row.agent.Pin, now, row.odd)
	if row.agent.Quarantined != "" {
		return &Turned{TurnedAway, "node " + a.Node + " is in quarantine: " + row.agent.Quarantined}
	}
	return nil
}

// note keeps in mind what was heard, and reports whether that is all.
func (a *agents) note(row store.Agent, h Heard, now time.Time) (hearing, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	k, ok := a.byPin[row.Pin]
	if !ok {
		k = &knownAgent{row: row, read: now}
		a.byPin[row.Pin] = k
	}
	next := k.heard.Session == h.Session && h.Count > k.heard.Count
	if next && now.Sub(k.written) < writtenEvery {
		k.heard, k.at = h, now
		return hearing{}, true
	}
	g := hearing{agent: row, before: *k, now: h, at: now, strict: k.odd}
	if next || k.heard.Session != h.Session {
		k.heard, k.at = h, now
	}
	return g, false
}

func (a *agents) wrote(pin string, now time.Time, odd bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if k, ok := a.byPin[pin]; ok {
		k.written, k.odd = now, k.odd || odd
	}
}

// A heardRow is what came of a hearing.
type heardRow struct {
	agent store.Agent
	odd   bool
}

// hearAll writes what was heard of several agents.
func (c *Controller) hearAll(ctx context.Context, all []hearing) (rows []heardRow, err error) {
	err = c.Store.Update(ctx, func(tx *store.Tx) error {
		rows = make([]heardRow, len(all))
		for i, g := range all {
			if rows[i], err = c.hearOne(ctx, tx, g); err != nil {
				return err
			}
		}
		return nil
	})
	return rows, err
}

func (c *Controller) hearOne(ctx context.Context, tx *store.Tx, g hearing) (r heardRow, err error) {
	is, err := tx.Agent(ctx, g.agent.Farm, g.agent.Node)
	if err != nil || is.Pin != g.agent.Pin {
		return heardRow{agent: g.agent}, unlessGone(err) // another joined in its place: it is told the next time
	}
	was := is.Seen
	if b := g.before; b.heard.Session == is.Session && b.heard.Count > is.Count {
		is, _, _ = hear(is, b.heard, b.at, false) // it was only kept in mind
	}
	var clone string
	is, r.odd, clone = hear(is, g.now, g.at, g.strict)
	if clone != "" && is.Quarantined == "" {
		is.Quarantined = clone
		if err := tell(ctx, tx, farm.Event{
			Farm: is.Farm, Kind: "agent.quarantined", Level: farm.Alarm, Node: is.Node,
			Text: "the agent of " + is.Node + " is in quarantine, and gets nothing more: " + clone,
			Hint: "end the copy; then join anew (`certfarm node token " + is.Node + "`), or `certfarm node unban " + is.Node + "` if nobody else can have the key",
		}); err != nil {
			return r, err
		}
	}
	if is.Quarantined == "" && g.at.Sub(was) > agentSilent {
		if err := c.agentBack(ctx, tx, is, was, g.at); err != nil {
			return r, err
		}
	}
	r.agent = is
	return r, tx.PutAgent(ctx, is)
}

// agentBack tells that an agent is heard of for the first time, or again, and has the
// sites on its node looked at, and their keys asked for: what it missed is brought there
// at once.
func (c *Controller) agentBack(ctx context.Context, tx *store.Tx, a store.Agent, was, now time.Time) error {
	e := farm.Event{Farm: a.Farm, Kind: "agent.heard", Node: a.Node, Text: "the agent of " + a.Node + " asks for the first time"}
	if !was.IsZero() {
		e.Text = fmt.Sprintf("the agent of %s is back after %s", a.Node, now.Sub(was).Round(time.Second))
	}
	if err := tell(ctx, tx, e); err != nil {
		return err
	}
	places, err := tx.Places(ctx, a.Farm, "")
	if err != nil {
		return err
	}
	looked := map[string]bool{}
	for _, p := range places {
		if p.Target.Node != a.Node || p.Released || looked[p.Target.Site] {
			continue
		}
		looked[p.Target.Site] = true
		if err := errors.Join(arm(ctx, tx, a.Farm, "look", p.Target.Site, tx.Now()), askAgain(ctx, tx, a.Farm, p.Target.Site)); err != nil {
			return err
		}
	}
	return nil
}

// heardOf is when each node's agent was last heard of; of one that is banned, now: its
// name is never free.
func heardOf(ctx context.Context, tx *store.Tx, farmName string) (map[string]time.Time, error) {
	agents, err := tx.Agents(ctx, farmName)
	heard := map[string]time.Time{}
	for _, a := range agents {
		heard[a.Node] = later(a.Joined, a.Seen)
		if a.Banned != "" {
			heard[a.Node] = tx.Now()
		}
	}
	return heard, err
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
