package controller

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// An AgentTokenAsk says whom a token lets join. The token itself is made where it is
// shown: only its digest is sent and kept.
type AgentTokenAsk struct {
	Digest string            `json:"digest" doc:"SHA-256 of the token's secret, hex"`
	Node   string            `json:"node,omitempty" doc:"the one node that may join, once"`
	Labels map[string]string `json:"labels,omitempty" doc:"in place of node: machines join as the nodes with these labels"`
	Uses   int               `json:"uses,omitempty" doc:"with labels: how many machines may join"`
	Valid  time.Duration     `json:"valid,omitempty" doc:"in nanoseconds; an hour at most, which is the default"`
}

// An AgentToken is what belongs into a token beside its secret.
type AgentToken struct {
	Pins  []string  `json:"pins" doc:"SHA-256 of the public key of the agents' CA, hex, and of the next, if there is one: what an agent knows the controllers by"`
	Until time.Time `json:"until"`
}

const (
	tokenLife  = time.Hour
	tokenUses  = 1000
	nameFreeIn = time.Hour // silence after which a group token may give a node's name to another machine
)

// NewAgentToken lets one agent join as a node, or several as nodes with labels.
func (c *Controller) NewAgentToken(ctx context.Context, farmName string, ask AgentTokenAsk, by string) (t AgentToken, err error) {
	if err := ask.check(); err != nil {
		return t, err
	}
	if t.Pins, err = c.AgentsPins(ctx); err != nil {
		return t, err
	}
	err = c.Store.Update(ctx, func(tx *store.Tx) error {
		t.Until = tx.Now().Add(cmp.Or(ask.Valid, tokenLife))
		k := store.JoinToken{Digest: ask.Digest, Farm: farmName, Node: ask.Node, Labels: ask.Labels, Uses: max(1, ask.Uses), Until: t.Until, By: by}
		text := "a token lets an agent join as node " + ask.Node
		if ask.Node == "" {
			f, err := tx.Farm(ctx, farmName)
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(f.Nodes, func(n farm.Node) bool { return n.Agent && labelled(n, ask.Labels) }) {
				return &Refusal{"no node with an agent has these labels", "farm.yaml lists every node that may join, with `agent: true` and its labels"}
			}
			text = fmt.Sprintf("a token lets %s join as nodes with %s", farm.Count(ask.Uses, "agent"), labelText(ask.Labels))
		} else if _, err := agentNode(ctx, tx, farmName, ask.Node); err != nil {
			return err
		}
		if _, err := tx.JoinToken(ctx, ask.Digest); err == nil {
			return &Refusal{"there is such a token already", "make another"}
		}
		return errors.Join(tx.PutJoinToken(ctx, k), tell(ctx, tx, farm.Event{
			Farm: farmName, Kind: "agent.token", Node: ask.Node, Actor: by, Text: text + ", until " + t.Until.UTC().Format("15:04 MST"),
		}))
	})
	return t, err
}

func (ask AgentTokenAsk) check() error {
	sum, err := hex.DecodeString(ask.Digest)
	switch {
	case err != nil || len(sum) != 32 || ask.Digest != strings.ToLower(ask.Digest):
		return &Refusal{"the digest is not the SHA-256 of a token, in hex", "`certfarm node token` makes both"}
	case (ask.Node == "") == (len(ask.Labels) == 0):
		return &Refusal{"a token is for one node, or for nodes with labels", ""}
	case ask.Node != "" && ask.Uses > 1:
		return &Refusal{"a token for one node is used once", "say labels for more"}
	case ask.Node == "" && (ask.Uses < 1 || ask.Uses > tokenUses):
		return &Refusal{fmt.Sprintf("a token is used from 1 to %d times", tokenUses), ""}
	case ask.Valid < 0 || ask.Valid > tokenLife:
		return &Refusal{"a token is good for an hour at most", "make it when it is needed"}
	}
	return nil
}

// agentNode is a node that may have an agent.
func agentNode(ctx context.Context, tx *store.Tx, farmName, name string) (farm.Node, error) {
	n, err := tx.Node(ctx, farmName, name)
	if err != nil {
		return n, err
	}
	return n, refuseIf(!n.Agent, "node "+name+" has no agent in farm.yaml", "say `agent: true` there in place of ssh")
}

func labelled(n farm.Node, labels map[string]string) bool {
	for k, v := range labels {
		if n.Labels[k] != v {
			return false
		}
	}
	return true
}

func labelText(labels map[string]string) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		all = append(all, k+"="+labels[k])
	}
	return strings.Join(all, ",")
}

// A JoinAsk is what an agent brings to join.
type JoinAsk struct {
	Digest  string // SHA-256 of its token's secret, hex
	Node    string // what it is called there, if it knows
	CSR     []byte // PKCS #10 DER; only the key matters
	Version string
	Learns  bool // it keeps the pins that come with its certificate
}

// JoinAgent takes an agent in: its key is from now on what its node is known by.
func (c *Controller) JoinAgent(ctx context.Context, ask JoinAsk) (cert AgentCertificate, err error) {
	key, pin, err := readRequest(ask.CSR)
	if err != nil {
		return cert, err
	}
	cas, err := c.authorities(ctx)
	if err != nil {
		return cert, err
	}
	var was string
	err = c.Store.Update(ctx, func(tx *store.Tx) error {
		k, err := tx.JoinToken(ctx, ask.Digest)
		if a, again := joinedBy(ctx, tx, k, pin); again && err == nil {
			cert, err = cas.certify(a, key, c.Now()) // the answer was lost on the way
			return err
		}
		if err := tokenGood(k, err, tx.Now()); err != nil {
			return err
		}
		node, err := nodeFor(ctx, tx, k, ask.Node)
		if err != nil {
			return err
		}
		if was, err = mayJoin(ctx, tx, k.Farm, node, pin); err != nil {
			return err
		}
		k.Uses--
		a := store.Agent{Farm: k.Farm, Node: node, Pin: pin, Joined: tx.Now(), Version: ask.Version}
		if cert, err = cas.certify(a, key, c.Now()); err != nil {
			return err
		}
		a.Until, a.Roots = cert.Until, rootsOf(cert.Pins, ask.Learns)
		e := farm.Event{Farm: k.Farm, Kind: "agent.joined", Node: node, Actor: k.By, Text: "an agent has joined as node " + node + ", with a token of " + k.By}
		if was != "" {
			e.Level, e.Text = farm.Warn, e.Text+", in place of the one before"
		}
		return errors.Join(tx.PutJoinToken(ctx, k), tx.PutAgent(ctx, a), tell(ctx, tx, e))
	})
	c.agents.forget(was)
	return cert, err
}

// joinedBy reports that a token was used by this very key, and is still good.
func joinedBy(ctx context.Context, tx *store.Tx, k store.JoinToken, pin string) (store.Agent, bool) {
	a, err := tx.AgentByPin(ctx, pin)
	return a, err == nil && tx.Now().Before(k.Until) && a.Farm == k.Farm && (k.Node == "" || k.Node == a.Node) && a.Banned == "" && a.Quarantined == ""
}

func tokenGood(k store.JoinToken, err error, now time.Time) error {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return &Turned{TurnedToken, "there is no such token, or it ended"}
	case err != nil:
		return err
	case now.After(k.Until):
		return &Turned{TurnedToken, "the token ended at " + k.Until.UTC().Format("2006-01-02 15:04 MST")}
	case k.Uses < 1:
		return &Turned{TurnedToken, "the token was used"}
	}
	return nil
}

// mayJoin sees that a node may have another agent, and returns the key of the one that
// it had.
func mayJoin(ctx context.Context, tx *store.Tx, farmName, node, pin string) (was string, err error) {
	if _, err := agentNode(ctx, tx, farmName, node); err != nil {
		return "", &Turned{TurnedToken, err.Error()}
	}
	switch other, err := tx.AgentByPin(ctx, pin); {
	case err == nil && (other.Node != node || other.Farm != farmName):
		return "", &Turned{TurnedToken, "another node has this key: make a new one, in a state folder of its own"}
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return "", err
	}
	old, err := tx.Agent(ctx, farmName, node)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return "", nil
	case err != nil:
		return "", err
	case old.Banned != "":
		return "", &Turned{TurnedToken, "node " + node + " is banned by " + old.Banned}
	}
	return old.Pin, nil
}

// nodeFor is the node that a machine joins as: the token's; else its own name, if that
// is one of the token's and free; else the first that is free.
func nodeFor(ctx context.Context, tx *store.Tx, k store.JoinToken, own string) (string, error) {
	if k.Node != "" {
		if own != "" && own != k.Node {
			return "", &Turned{TurnedToken, "the token is for another node"}
		}
		return k.Node, nil
	}
	f, err := tx.Farm(ctx, k.Farm)
	if err != nil {
		return "", err
	}
	heard, err := heardOf(ctx, tx, k.Farm)
	if err != nil {
		return "", err
	}
	var free []string
	for _, n := range f.Nodes {
		if !n.Agent || !labelled(n, k.Labels) || tx.Now().Sub(heard[n.Name]) < nameFreeIn {
			continue
		}
		if n.Name == own {
			return own, nil
		}
		free = append(free, n.Name)
	}
	if len(free) == 0 {
		return "", &Turned{TurnedToken, "every node with " + labelText(k.Labels) + " has an agent already: list more in farm.yaml"}
	}
	// Those that never had an agent first, then the one that was silent for longest.
	return slices.MinFunc(free, func(a, b string) int {
		return cmp.Or(heard[a].Compare(heard[b]), cmp.Compare(a, b))
	}), nil
}

// BanAgent turns away a node's agent, its certificate and its key, for good; off takes
// that back, and a quarantine, too.
func (c *Controller) BanAgent(ctx context.Context, farmName, node, by string, on bool) error {
	return c.agents.change(ctx, c.Store, farmName, node, func(ctx context.Context, tx *store.Tx, a *store.Agent) error {
		e := farm.Event{Farm: farmName, Kind: "agent.unbanned", Node: node, Actor: by, Text: by + " lets the agent of " + node + " in again"}
		if on {
			e.Kind, e.Level, e.Text = "agent.banned", farm.Warn, by+" banned the agent of "+node+": it gets nothing more, and nobody joins as that node"
			a.Banned = by
			return errors.Join(tx.RemoveJoinTokens(ctx, farmName, node), tell(ctx, tx, e))
		}
		if a.Banned == "" && a.Quarantined == "" {
			return &Refusal{"the agent of " + node + " is neither banned nor in quarantine", ""}
		}
		a.Banned, a.Quarantined = "", ""
		a.Session, a.Count, a.Before = "", 0, nil // who asks next is the one
		return tell(ctx, tx, e)
	})
}

// An AgentStatus is what is known of a node's agent.
type AgentStatus struct {
	State   string         `json:"state" enum:"none,joined,up,silent,banned,quarantined"`
	Why     string         `json:"why,omitempty" doc:"who banned it, or why it is in quarantine"`
	Joined  time.Time      `json:"joined,omitzero"`
	Heard   time.Time      `json:"heard,omitzero" doc:"when it last asked for work"`
	Until   time.Time      `json:"until,omitzero" doc:"end of its certificate, which it renews by itself"`
	Version string         `json:"version,omitempty"`
	Pin     string         `json:"pin,omitempty" doc:"SHA-256 of its public key, hex"`
	Clock   *time.Duration `json:"clock,omitempty" doc:"how far its clock is ahead of the controllers', in nanoseconds, to the second, when it last said; not set: it is not known"`
}

// agentStatus judges an agent's row; found says that there is one.
func (c *Controller) agentStatus(a store.Agent, found bool, now time.Time) *AgentStatus {
	if !found {
		return &AgentStatus{State: "none"}
	}
	s := &AgentStatus{State: "up", Joined: a.Joined, Heard: c.agents.seen(a), Until: a.Until, Version: a.Version, Pin: a.Pin, Clock: a.Ahead}
	switch {
	case a.Banned != "":
		s.State, s.Why = "banned", a.Banned
	case a.Quarantined != "":
		s.State, s.Why = "quarantined", a.Quarantined
	case s.Heard.IsZero():
		s.State = "joined"
	case now.Sub(s.Heard) > agentSilent:
		s.State = "silent"
	}
	return s
}

// agentOn is what is known of the agent of a node that should have one.
func (c *Controller) agentOn(rows []store.Agent, node string, now time.Time) *AgentStatus {
	for _, a := range rows {
		if a.Node == node {
			return c.agentStatus(a, true, now)
		}
	}
	return c.agentStatus(store.Agent{}, false, now)
}

// agentStatuses are the agents of a farm's nodes that have one in farm.yaml, by node.
func (c *Controller) agentStatuses(ctx context.Context, tx *store.Tx, farmName string, nodes []farm.Node) (map[string]*AgentStatus, error) {
	rows, err := tx.AgentsOn(ctx, farmName, nodeNames(nodes))
	if err != nil {
		return nil, err
	}
	byNode := map[string]store.Agent{}
	for _, a := range rows {
		byNode[a.Node] = a
	}
	all := map[string]*AgentStatus{}
	for _, n := range nodes {
		if n.Agent {
			a, found := byNode[n.Name]
			all[n.Name] = c.agentStatus(a, found, tx.Now())
		}
	}
	return all, nil
}

// A Wish is what one target of a node should serve, for the node's own readiness.
type Wish struct {
	Target    string
	Endpoints []farm.Endpoint
	Names     []string
	Sets      [][]farm.Leaf // one of them, each whole; without chains and keys
}

// AgentWishes are what the targets on an agent's node should serve; one that nothing
// was brought to yet has no sets. While a rollout runs that is the old and the new:
// no node leaves its balancer since it is a step ahead of the others, or behind them.
func (c *Controller) AgentWishes(ctx context.Context, a store.Agent) (all []Wish, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		places, err := tx.Places(ctx, a.Farm, "")
		if err != nil {
			return err
		}
		for _, p := range places {
			if p.Target.Node != a.Node || p.Released {
				continue
			}
			w, err := wishOf(ctx, tx, p)
			if err != nil {
				return err
			}
			all = append(all, w)
		}
		return nil
	})
	return all, err
}

func wishOf(ctx context.Context, tx *store.Tx, p farm.Place) (Wish, error) {
	w := Wish{Target: p.Target.Name, Endpoints: p.Target.Endpoints}
	sets := [][]string{p.Desired}
	running, err := tx.RunningRollouts(ctx, p.Farm, p.Target.Site)
	if err != nil {
		return w, err
	}
	for _, r := range running {
		i := slices.IndexFunc(r.Steps, func(s farm.Step) bool { return s.Target == p.Target.Name })
		if i < 0 {
			continue
		}
		sets = append(sets, []string{r.To.ID})
		for _, f := range r.Steps[i].From {
			sets = append(sets, []string{f.ID})
		}
	}
	for _, ids := range sets {
		var set []farm.Leaf
		for _, id := range ids {
			v, err := tx.Version(ctx, p.Farm, id)
			if err != nil {
				return w, err
			}
			w.Names = v.Names
			for _, l := range v.Leaves {
				l.Chain, l.Key = nil, farm.KeyRef{}
				set = append(set, l)
			}
		}
		if len(set) > 0 {
			w.Sets = append(w.Sets, set)
		}
	}
	return w, nil
}
