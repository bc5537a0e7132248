package controller

import (
	"context"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// A NodeStatus is one line about a node.
type NodeStatus struct {
	Name    string            `json:"name"`
	Address string            `json:"address"`
	Labels  map[string]string `json:"labels,omitempty"`
	Reach   string            `json:"reach" enum:"up,serves,down,unknown" doc:"the worst of its targets: serves is up, but not for deployment"`
	Held    string            `json:"held,omitempty" doc:"who holds it: nothing is changed on it"`
	Targets int               `json:"targets"`
	InStep  int               `json:"in_step" doc:"targets seen to serve what they should"`
	Trouble []string          `json:"trouble,omitempty"`
	Agent   *AgentStatus      `json:"agent,omitempty" doc:"of a node that has one in farm.yaml"`
}

// A TargetStatus is one line about a target.
type TargetStatus struct {
	Name      string          `json:"name"`
	Site      string          `json:"site"`
	Node      string          `json:"node,omitempty"`
	Kind      string          `json:"kind"`
	Sync      string          `json:"sync" enum:"in-sync,drifted,unknown,released"`
	Reach     string          `json:"reach" enum:"up,serves,down,unknown"`
	Wants     []string        `json:"wants,omitempty" doc:"fingerprints of the leaves that it should serve"`
	Serves    []string        `json:"serves,omitempty" doc:"fingerprints of the leaves that it was last seen to serve"`
	Looked    time.Time       `json:"looked,omitzero"`
	Trouble   string          `json:"trouble,omitempty"`
	Endpoints []farm.Endpoint `json:"endpoints"`
}

// Targets lists the targets of a site, or of all sites, by name.
func (c *Controller) Targets(ctx context.Context, farmName, site string) ([]TargetStatus, error) {
	return c.TargetsAfter(ctx, farmName, site, "", 0)
}

// TargetsAfter lists the targets of a site, or of all sites, whose names come after one,
// at most limit (0: all).
func (c *Controller) TargetsAfter(ctx context.Context, farmName, site, after string, limit int) (all []TargetStatus, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		places, err := tx.PlacesAfter(ctx, farmName, site, after, limit)
		if err != nil {
			return err
		}
		all, err = targetStatuses(ctx, tx, farmName, places)
		return err
	})
	return all, err
}

// TargetsOn lists the targets of some nodes, by name.
func (c *Controller) TargetsOn(ctx context.Context, farmName string, nodes ...string) (all []TargetStatus, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		places, err := tx.PlacesOn(ctx, farmName, nodes)
		if err != nil {
			return err
		}
		all, err = targetStatuses(ctx, tx, farmName, places)
		return err
	})
	return all, err
}

// Nodes lists up to limit of the farm's nodes (0: all) whose names come after the given
// one, by name. It reads no target but those that are not as they should be.
func (c *Controller) Nodes(ctx context.Context, farmName, after string, limit int) (all []NodeStatus, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		nodes, err := tx.NodesAfter(ctx, farmName, after, limit)
		if err != nil {
			return err
		}
		all, err = c.nodeStatuses(ctx, tx, farmName, nodes)
		return err
	})
	return all, err
}

// NodeStatus tells of one node.
func (c *Controller) NodeStatus(ctx context.Context, farmName, name string) (n NodeStatus, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		node, err := tx.Node(ctx, farmName, name)
		if err != nil {
			return err
		}
		all, err := c.nodeStatuses(ctx, tx, farmName, []farm.Node{node})
		if err == nil {
			n = all[0]
		}
		return err
	})
	return n, err
}

// nodeStatuses are a line for each of some nodes.
func (c *Controller) nodeStatuses(ctx context.Context, tx *store.Tx, farmName string, nodes []farm.Node) ([]NodeStatus, error) {
	agents, err := c.agentStatuses(ctx, tx, farmName, nodes)
	if err != nil {
		return nil, err
	}
	at, names := map[string]*NodeStatus{}, nodeNames(nodes)
	all := make([]NodeStatus, len(nodes))
	for i, n := range nodes {
		all[i] = NodeStatus{Name: n.Name, Address: n.Address, Labels: n.Labels, Reach: reachWord(farm.ReachUnknown), Agent: agents[n.Name]}
		if all[i].Held, err = tx.Word(ctx, farmName, wordHeld+n.Name); err != nil {
			return nil, err
		}
		at[n.Name] = &all[i]
	}
	tallies, err := tx.TalliesOn(ctx, farmName, names...)
	if err != nil {
		return nil, err
	}
	for _, t := range tallies {
		at[t.Node].count(t)
	}
	places, err := tx.PlacesOn(ctx, farmName, names, troubled...)
	for _, p := range places {
		at[p.Target.Node].add(p.Reach, p.Trouble())
	}
	return all, err
}

func nodeNames(nodes []farm.Node) (all []string) {
	for _, n := range nodes {
		all = append(all, n.Name)
	}
	return all
}

func targetStatuses(ctx context.Context, tx *store.Tx, farmName string, places []farm.Place) (all []TargetStatus, err error) {
	known := map[string]map[string]farm.Version{} // by site
	for _, p := range places {
		if known[p.Target.Site] == nil {
			if known[p.Target.Site], err = versionsOf(ctx, tx, farmName, p.Target.Site); err != nil {
				return nil, err
			}
		}
		all = append(all, targetStatus(p, known[p.Target.Site]))
	}
	return all, nil
}

func versionsOf(ctx context.Context, tx *store.Tx, farmName, site string) (map[string]farm.Version, error) {
	all, err := everHeld(ctx, tx, farmName, site)
	byID := map[string]farm.Version{}
	for _, v := range all {
		byID[v.ID] = v
	}
	return byID, err
}

func targetStatus(p farm.Place, versions map[string]farm.Version) TargetStatus {
	t := TargetStatus{
		Name: p.Target.Name, Site: p.Target.Site, Node: p.Target.Node, Kind: p.Target.Kind,
		Sync: "drifted", Reach: reachWord(p.Reach), Looked: p.Looked, Trouble: p.Trouble(), Endpoints: p.Target.Endpoints,
	}
	for _, id := range p.Desired {
		t.Wants = append(t.Wants, versions[id].Fingerprints()...)
	}
	for _, s := range p.Sights {
		for _, f := range s.Fingerprint {
			if !slices.Contains(t.Serves, f) {
				t.Serves = append(t.Serves, f)
			}
		}
	}
	switch {
	case p.Released:
		t.Sync, t.Trouble = "released", "gone from farm.yaml and left alone until `certfarm retire "+t.Name+"`"
	case len(p.Desired) == 0 || len(p.Sights) == 0:
		t.Sync = "unknown"
	case inStep(p, versions):
		t.Sync = "in-sync"
	}
	return t
}

func reachWord(r farm.Reach) string {
	if r == farm.ReachUnknown {
		return "unknown"
	}
	return string(r)
}

// count counts some of a node's targets in.
func (s *NodeStatus) count(t store.Tally) {
	switch t.Standing {
	case farm.Released:
		return
	case farm.InSync:
		s.InStep += t.Targets
		s.add(farm.ReachUp, "")
	}
	s.Targets += t.Targets
}

// add keeps the worst reach of a node's targets, and what troubles them.
func (s *NodeStatus) add(r farm.Reach, trouble string) {
	worse := []string{reachWord(farm.ReachUnknown), reachWord(farm.ReachUp), reachWord(farm.ReachHalf), reachWord(farm.ReachDown)}
	if slices.Index(worse, reachWord(r)) > slices.Index(worse, s.Reach) {
		s.Reach = reachWord(r)
	}
	if trouble != "" {
		s.Trouble = append(s.Trouble, trouble)
	}
}
