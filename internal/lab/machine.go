package lab

import (
	"fmt"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/config"
)

// A Machine is a part of a lab that can be made to fail: a Node, a Reader, a Vault.
type Machine interface {
	// Name is what faults and farm.yaml call it.
	Name() string
	// HTTPSAddr is host:port where it serves the site; empty: it serves nobody.
	HTTPSAddr() string
	// Faults lists the faults that it knows.
	Faults() []Kind
	// Set makes it misbehave from now on, in place of any fault before.
	Set(f Fault) error
	// Close ends it and waits for all that it started.
	Close() error
}

// knows says that a machine has no such fault, and which it has.
func knows(m Machine, k Kind) error {
	all := m.Faults()
	if k == NoFault || slices.Contains(all, k) {
		return nil
	}
	var names []string
	for _, k := range all {
		names = append(names, string(k))
	}
	return fmt.Errorf("%s does not know the fault %s; there are %s", m.Name(), k, strings.Join(names, ", "))
}

// Faults lists the faults that the node knows. What a real server does with its
// certificates cannot be changed from outside.
func (n *Node) Faults() []Kind {
	all := []Kind{SSHDown, Down, Hangs, DiskFull, WrongKey, BadReload, DiesOnReload, WrongChain, DiesForGood}
	s := n.c.software
	if s == nil {
		return all
	}
	return slices.DeleteFunc(all, func(k Kind) bool {
		switch k {
		case WrongChain:
			return s.real()
		case DiesOnReload, DiesForGood: // HAProxy is never reloaded
			return s.product == haproxy
		}
		return false
	})
}

// Parts lists what of the lab can be made to fail, in the order of its farm.yaml.
func (m *Machines) Parts() []Machine {
	var all []Machine
	for _, n := range m.Nodes {
		all = append(all, n)
	}
	for _, r := range m.Readers {
		all = append(all, r)
	}
	if m.Vault != nil {
		all = append(all, m.Vault)
	}
	return all
}

// Part returns the machine of a name. The error names the closest there is.
func (m *Machines) Part(name string) (Machine, error) {
	var names []string
	for _, p := range m.Parts() {
		if p.Name() == name {
			return p, nil
		}
		names = append(names, p.Name())
	}
	hint := fmt.Sprintf("there are %s to %s", names[0], names[len(names)-1])
	if m.Layout.Mixed {
		hint = "there are " + listed(names)
	}
	if near := config.Meant(name, names); near != "" && len(names) > 1 {
		hint += fmt.Sprintf("; did you mean %s?", near)
	}
	return nil, fmt.Errorf("the lab has no node %q; %s", name, hint)
}

// Check says whether the lab has the machines, and the machines the faults.
func (m *Machines) Check(faults map[string]Fault) error {
	for name, f := range faults {
		p, err := m.Part(name)
		if err != nil {
			return err
		}
		if err := knows(p, f.Kind); err != nil {
			return err
		}
	}
	return nil
}
