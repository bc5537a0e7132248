package farm

import (
	"net"
	"slices"
)

// Readers are the machines that see a target at the same moment when it is made
// live, as far as its endpoints tell: those of a share or a vault. A target on a
// node has none but the node. They are sorted.
func (t Target) Readers() []string {
	if t.Node != "" {
		return nil
	}
	var all []string
	for _, e := range t.Endpoints {
		host, _, err := net.SplitHostPort(e.Address)
		if err != nil {
			host = e.Address
		}
		all = append(all, host)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
