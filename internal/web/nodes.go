package web

import (
	"strings"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/snippet"
)

// fleet are the nodes of a farm.
type fleet struct {
	Nodes []controller.NodeTally `json:"nodes"`
}

// nodes are the machines, and how what is on them stands.
func (s *server) nodes(q *question) (any, error) {
	q.cli = "certfarm get nodes -o wide"
	all, err := s.NodeTallies(q.ctx(), q.farm)
	return fleet{all}, err
}

// Table is a line a node.
func (f fleet) Table() [][]string {
	all := [][]string{{"node", "address", "way", "host_keys", "own_policy", "agent", "asked", "reached", "clock_seconds", "held", "targets", "in_sync"}}
	for _, n := range f.Nodes {
		line := []string{n.Name, n.Address, n.Way, strings.Join(n.HostKeys, " "), yes(n.Decides), "", "", "", "", n.Held, text(n.Targets), text(n.Standings[farm.InSync])}
		if n.Agent != nil {
			line[5] = n.Agent.State
		}
		if a := n.Asked; a != nil {
			line[6], line[7] = stamp(a.At), yes(a.OK)
		}
		if ahead := n.Clock(); ahead != nil {
			line[8] = text(int(ahead.Seconds()))
		}
		all = append(all, line)
	}
	return all
}

func yes(is bool) string {
	if is {
		return "yes"
	}
	return "no"
}

// Kinds are the standings of a node's targets, what needs a person first.
func (fleet) Kinds(n controller.NodeTally) (all []farm.Standing) {
	for _, s := range farm.Standings {
		if n.Standings[s] > 0 {
			all = append(all, s)
		}
	}
	return all
}

// A machine is everything about a node.
type machine struct {
	fleet `json:"-"`
	controller.NodeDetail
}

// node is one machine.
func (s *server) node(q *question) (any, error) {
	name := q.PathValue("node")
	q.title, q.cli = name, "certfarm describe node "+name
	d, err := s.NodeDetail(q.ctx(), q.farm, name)
	return machine{NodeDetail: d}, err
}

// Table is a line a target.
func (m machine) Table() [][]string {
	all := [][]string{{"target", "site", "kind", "standing", "serves", "looked"}}
	for _, c := range m.Cells {
		all = append(all, []string{c.Target, c.Site, c.Kind, string(c.Standing), c.Served, stamp(c.Looked)})
	}
	return all
}

// A copied is something to be copied to a machine.
type copied struct {
	Node string `json:"node"`
	snippet.Snippet
}

// policy is what a node needs to decide for itself.
func (s *server) policy(q *question) (any, error) {
	name := q.PathValue("node")
	q.title, q.cli = "Policy of "+name, "certfarm snippet policy "+name
	p, err := s.NodePolicy(q.ctx(), q.farm, name)
	return copied{name, p}, err
}

// The buttons of nodes.

func (s *server) askNode(q *question) (string, error) {
	name := q.PathValue("node")
	return farmPath(q.farm, "nodes", name), s.AskNodes(q.ctx(), q.farm, name)
}

func (s *server) askNodes(q *question) (string, error) {
	return farmPath(q.farm, "nodes"), s.AskNodes(q.ctx(), q.farm)
}

func freeze(on bool) func(*server, *question) (string, error) {
	return func(s *server, q *question) (string, error) {
		return farmPath(q.farm), s.Freeze(q.ctx(), q.farm, q.caller.Name, on)
	}
}

func hold(on bool) func(*server, *question) (string, error) {
	return func(s *server, q *question) (string, error) {
		return farmPath(q.farm, "nodes"), s.Hold(q.ctx(), q.farm, q.PathValue("node"), q.caller.Name, on)
	}
}
