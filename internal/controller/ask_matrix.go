package controller

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// A MatrixAsk is which part of the matrix of sites and nodes is wanted.
type MatrixAsk struct {
	Like  string // part of a site's name; empty: all
	Order string // store.ByName or store.ByExpiry
	Skip  int    // sites
	Limit int    // sites; 0: 50
	Bare  bool   // rows only, without their targets
	// Sees says which sites are shown; nil: all.
	Sees func(site string) bool
}

// A Matrix is what nodes serve of sites' certificates.
type Matrix struct {
	At    time.Time   `json:"at"`
	Sites int         `json:"sites" doc:"how many there are that match"`
	Nodes []string    `json:"nodes" doc:"the columns: nodes, and the kinds of targets that are on none"`
	Rows  []MatrixRow `json:"rows"`
}

// A MatrixRow is one site.
type MatrixRow struct {
	Site      string       `json:"site"`
	Leaf      string       `json:"leaf,omitempty" doc:"fingerprint of the newest version's first leaf"`
	NotBefore time.Time    `json:"not_before,omitzero"`
	NotAfter  time.Time    `json:"not_after,omitzero"`
	Next      time.Time    `json:"next,omitzero"`
	Failing   bool         `json:"failing"`
	Cells     []MatrixCell `json:"cells" doc:"its targets, by node"`
}

// A MatrixCell is one target.
type MatrixCell struct {
	Node     string        `json:"node"`
	Target   string        `json:"target"`
	Standing farm.Standing `json:"standing"`
	Served   string        `json:"served,omitempty" doc:"fingerprint of the leaf that it was last seen to serve"`
	Looked   time.Time     `json:"looked,omitzero"`
}

// Matrix tells what the nodes serve, a page of sites at a time.
func (c *Controller) Matrix(ctx context.Context, farmName string, ask MatrixAsk) (m Matrix, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		m = Matrix{At: tx.Now(), Nodes: []string{}, Rows: []MatrixRow{}}
		rows, err := m.page(ctx, tx, farmName, ask)
		if err != nil {
			return err
		}
		var sites []string
		at := map[string]int{}
		for i, r := range rows {
			sites, at[r.Site] = append(sites, r.Site), i
			m.Rows = append(m.Rows, MatrixRow{
				Site: r.Site, Leaf: r.Leaf, NotBefore: r.NotBefore, NotAfter: r.NotAfter, Next: r.Next, Failing: r.Failing, Cells: []MatrixCell{},
			})
		}
		if ask.Bare {
			return nil
		}
		cells, err := tx.Cells(ctx, farmName, sites)
		if err != nil {
			return err
		}
		for _, cell := range cells {
			r := &m.Rows[at[cell.Site]]
			r.Cells = append(r.Cells, MatrixCell{
				Node: cmp.Or(cell.Node, cell.Kind), Target: cell.Target, Standing: cell.Standing, Served: cell.Served, Looked: cell.Looked,
			})
		}
		m.columns()
		return nil
	})
	return m, err
}

// page reads the rows that are asked for, and how many there are. Who does not see
// every site has all of them read, and theirs counted.
func (m *Matrix) page(ctx context.Context, tx *store.Tx, farmName string, ask MatrixAsk) (rows []store.Row, err error) {
	limit := cmp.Or(ask.Limit, 50)
	if ask.Sees == nil {
		if m.Sites, err = tx.SiteCount(ctx, farmName, ask.Like); err != nil {
			return nil, err
		}
		return tx.Rows(ctx, farmName, ask.Like, ask.Order, ask.Skip, limit)
	}
	if rows, err = tx.Rows(ctx, farmName, ask.Like, ask.Order, 0, 0); err != nil {
		return nil, err
	}
	rows = slices.DeleteFunc(rows, func(r store.Row) bool { return !ask.Sees(r.Site) })
	m.Sites = len(rows)
	skip := min(ask.Skip, len(rows))
	return rows[skip:min(skip+limit, len(rows))], nil
}

// columns are the nodes that the rows name, by name.
func (m *Matrix) columns() {
	for _, r := range m.Rows {
		for _, c := range r.Cells {
			m.Nodes = append(m.Nodes, c.Node)
		}
	}
	slices.Sort(m.Nodes)
	m.Nodes = slices.Compact(m.Nodes)
}

// A NodeTally is one line about a node, for lists of many.
type NodeTally struct {
	Name      string                `json:"name" doc:"empty: targets that are on no node"`
	Address   string                `json:"address,omitempty"`
	Labels    map[string]string     `json:"labels,omitempty"`
	Way       string                `json:"way,omitempty" enum:"ssh,smb,local,agent,receiver" doc:"how it is reached"`
	Login     string                `json:"login,omitempty" doc:"how the controller comes in: USER@ADDRESS:PORT, or a share"`
	HostKeys  []string              `json:"host_keys,omitempty" doc:"that it is known by, as ssh-keygen shows them"`
	Decides   bool                  `json:"decides" doc:"it has a policy of its own: an agent or a receiver"`
	Agent     *AgentStatus          `json:"agent,omitempty" doc:"of a node that has one in farm.yaml"`
	Asked     *NodeAnswer           `json:"asked,omitempty" doc:"what came when it was last asked; not set: nobody asked yet"`
	Held      string                `json:"held,omitempty" doc:"who holds it: nothing is changed on it"`
	Standings map[farm.Standing]int `json:"standings"`
	Targets   int                   `json:"targets"`
}

// Clock is how far the node's clock is ahead of ours, as its agent said last, or as the
// node did when it was asked; nil: it is not known.
func (t NodeTally) Clock() *time.Duration {
	switch {
	case t.Agent != nil && t.Agent.Clock != nil:
		return t.Agent.Clock
	case t.Asked != nil:
		return t.Asked.Clock
	}
	return nil
}

// ClockOff reports that the node's clock is known to be wrong.
func (t NodeTally) ClockOff() bool { return ClockOff(t.Clock()) }

// NodeTallies lists the farm's nodes by name, with how their targets stand. It reads
// no target.
func (c *Controller) NodeTallies(ctx context.Context, farmName string) (all []NodeTally, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		tallies, err := tx.Tallies(ctx, farmName, true)
		if err != nil {
			return err
		}
		nodes, err := tx.Nodes(ctx, farmName)
		if err != nil {
			return err
		}
		agents, err := tx.Agents(ctx, farmName)
		if err != nil {
			return err
		}
		at := map[string]int{}
		for i, n := range nodes {
			at[n.Name] = i
			one, err := tallyOf(ctx, tx, farmName, n)
			if err != nil {
				return err
			}
			if n.Agent {
				one.Agent = c.agentOn(agents, n.Name, tx.Now())
			}
			all = append(all, one)
		}
		for _, t := range tallies {
			if i, known := at[t.Node]; known {
				all[i].count(t)
			}
		}
		return nil
	})
	return all, err
}

// way is how a node is reached, in one word.
func way(n farm.Node) string {
	switch {
	case n.Agent:
		return "agent"
	case n.SSH != nil && n.SSH.Receiver:
		return "receiver"
	case n.SSH != nil:
		return "ssh"
	case n.SMB != nil:
		return "smb"
	}
	return "local"
}
