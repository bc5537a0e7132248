package controller

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/store"
)

// wordAsked + node has the NodeAnswer that came when it was last asked.
const wordAsked = "asked "

// A NodeAnswer is what came of asking a node whether it can be reached.
type NodeAnswer struct {
	At    time.Time      `json:"at"`
	OK    bool           `json:"ok"`
	Saw   string         `json:"saw" doc:"what was seen, or what went wrong"`
	Clock *time.Duration `json:"clock,omitempty" doc:"how far the node's clock is ahead of the controller's, in nanoseconds, to the second; not set: it is not known"`
}

// ClockOff reports that a clock is known to be so far ahead that it is wrong.
func ClockOff(ahead *time.Duration) bool { return ahead != nil && ahead.Abs() > skewTold }

// A NodeDetail is everything about a node.
type NodeDetail struct {
	NodeTally
	Fences []Fence      `json:"fences" doc:"its targets by what keeps a stale controller out of them"`
	Cells  []store.Cell `json:"targets_shown" doc:"its targets, what is not as it should be first"`
}

// cellsShown is how many targets of a node are shown at once.
const cellsShown = 100

// NodeDetail tells everything about a node.
func (c *Controller) NodeDetail(ctx context.Context, farmName, name string) (d NodeDetail, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		n, err := tx.Node(ctx, farmName, name)
		if err != nil {
			return err
		}
		if d.NodeTally, err = tallyOf(ctx, tx, farmName, n); err != nil {
			return err
		}
		if n.Agent {
			agents, err := tx.Agents(ctx, farmName)
			if err != nil {
				return err
			}
			d.Agent = c.agentOn(agents, name, tx.Now())
		}
		kinds, err := tx.KindsOn(ctx, farmName, name)
		if err != nil {
			return err
		}
		for _, k := range kinds {
			d.Fences = append(d.Fences, Fence{Class: c.fenceOf(k.Kind, n), Kind: k.Kind, Targets: k.Targets})
		}
		tallies, err := tx.TalliesOn(ctx, farmName, name)
		if err != nil {
			return err
		}
		for _, t := range tallies {
			d.count(t)
		}
		d.Cells, err = tx.CellsOn(ctx, farmName, name, farm.Standings, cellsShown)
		return err
	})
	return d, err
}

// tallyOf is what is known of a node, its targets left out.
func tallyOf(ctx context.Context, tx *store.Tx, farmName string, n farm.Node) (t NodeTally, err error) {
	t = NodeTally{Name: n.Name, Address: n.Address, Labels: n.Labels, Way: way(n), Login: login(n), Decides: decides(n), Standings: map[farm.Standing]int{}}
	if n.SSH != nil {
		for _, k := range n.SSH.HostKeys {
			t.HostKeys = append(t.HostKeys, fingerprint(k))
		}
	}
	if t.Held, err = tx.Word(ctx, farmName, wordHeld+n.Name); err != nil {
		return t, err
	}
	text, err := tx.Word(ctx, farmName, wordAsked+n.Name)
	if err != nil || text == "" {
		return t, err
	}
	if err := json.Unmarshal([]byte(text), &t.Asked); err != nil {
		return t, fmt.Errorf("what node %s answered: %w", n.Name, err)
	}
	return t, nil
}

func (t *NodeTally) count(some store.Tally) {
	if some.Standing == farm.Released {
		return
	}
	t.Standings[some.Standing] += some.Targets
	t.Targets += some.Targets
}

// login is how the controller comes in at a node, in words.
func login(n farm.Node) string {
	switch {
	case n.SSH != nil:
		return fmt.Sprintf("%s@%s:%d", n.SSH.User, n.Address, cmp.Or(n.SSH.Port, 22))
	case n.SMB != nil:
		return n.SMB.Share
	}
	return ""
}

// fingerprint is a host key as ssh-keygen shows it; one that cannot be read, as it
// stands in farm.yaml.
func fingerprint(line string) string {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return line
	}
	return key.Type() + " " + ssh.FingerprintSHA256(key)
}

// AskNodes asks the named nodes now whether they can be reached, and what their clocks
// say; none: all. What they answer is kept until they are asked again.
func (c *Controller) AskNodes(ctx context.Context, farmName string, names ...string) error {
	nodes, err := c.nodesNamed(ctx, farmName, names)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	answers := make([]NodeAnswer, len(nodes))
	var all []inquiry
	for i, n := range nodes {
		all = append(all, inquiry{area: "node", name: n.Name, ask: func(ctx context.Context) (heard, error) {
			h, err := c.reachNode(ctx, farmName, n)
			answers[i].Clock = h.clock
			return h, err
		}})
	}
	for i, r := range askAll(ctx, all) {
		answers[i].At, answers[i].OK, answers[i].Saw = c.Now(), r.Verdict != CheckupFailed, r.Saw
	}
	return c.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		for i, n := range nodes {
			text, err := json.Marshal(answers[i])
			if err != nil {
				return err
			}
			if err := tx.SetWord(ctx, farmName, wordAsked+n.Name, string(text)); err != nil {
				return err
			}
		}
		return nil
	})
}

// nodesNamed are the nodes with these names; none: all of the farm.
func (c *Controller) nodesNamed(ctx context.Context, farmName string, names []string) (nodes []farm.Node, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		if len(names) == 0 {
			nodes, err = tx.Nodes(ctx, farmName)
			return err
		}
		for _, name := range names {
			n, err := tx.Node(ctx, farmName, name)
			if err != nil {
				return err
			}
			nodes = append(nodes, n)
		}
		return nil
	})
	return nodes, err
}

// clockOf asks a machine for its clock: how far it is ahead of ours, to the second. It
// is nil where that cannot be known: no command is run through sudo for it, which
// would tell root of a command that is not allowed, and date(1) with %s is POSIX's
// (POSIX.1-2024) alone.
func clockOf(ctx context.Context, n farm.Node, h host.Host) *time.Duration {
	if n.SMB != nil || n.Become != "" || n.Shell != "" && n.Shell != "posix" {
		return nil
	}
	began := time.Now()
	out, err := h.Run(ctx, []string{"date", "-u", "+%s"}, nil)
	between := began.Add(time.Since(began) / 2)
	seconds, parsed := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if errors.Join(err, parsed) != nil {
		return nil
	}
	ahead := time.Unix(seconds, 0).Add(time.Second / 2).Sub(between).Truncate(time.Second) // it said its second's beginning
	return &ahead
}
