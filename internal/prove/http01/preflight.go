package http01

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/certfarm/certfarm/internal/farm"
)

// An Ask is one question for every name, at each of its addresses and at each
// node.
type Ask struct {
	Site        string // for the commands in remedies
	Names       []string
	Token, Want string          // from Question, on the board (or the nodes) already; or from StatelessQuestion
	How         farm.Validation // what answers; the zero value: a gateway
	// Nodes answer behind the balancer. They are asked where the way is one in
	// which nodes answer and the balancer does not answer by itself (How.Front).
	Nodes     []NodeAddress
	Resolvers map[string][]string // zone ("." for the rest) to DNS servers, host:port; none: the system's
	Port      int                 // where the CA asks; 0: 80, as every public CA does
	Timeout   time.Duration       // for one name at one address; 0: 10 s
	// Public says that the CA asks from the internet: what is seen at a private
	// address is then not what it will see.
	Public bool
	// Dial opens the connections; nil: directly from this machine.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// A NodeAddress is where one node serves the names.
type NodeAddress struct {
	Name    string
	Address string // host or IP
	Port    int    // 0: How.Port, or else the CA's
	Drained bool   // it takes no traffic now, so no CA is sent to it
}

// A Finding is what came of asking for one name at one place: a cell of the matrix
// that people are shown.
type Finding struct {
	Check   string `json:"check,omitzero" enum:"http-01,dns-01,dns-persist-01,caa" doc:"what was asked"`
	Name    string `json:"name"`
	Node    string `json:"node,omitzero" doc:"the node that was asked; none: an address that DNS gives for the name"`
	Address string `json:"address,omitzero" doc:"IP that was asked, or the DNS name that the finding is about; none was found where there is none"`
	Verdict Sort   `json:"verdict" enum:"right,wrong,cannot tell"`
	Saw     string `json:"saw" doc:"what was seen, fit to be shown"`
	Remedy  string `json:"remedy,omitzero" doc:"what to do, in words; none where it is right"`
}

// Sort says how an answer was.
type Sort string

// The sorts of answers.
const (
	Right   Sort = "right"
	Wrong   Sort = "wrong"       // another answer than ours was received
	Unclear Sort = "cannot tell" // none was received: the CA may see more than we do
)

// Limits of asking.
const (
	cells     = 32       // at a time
	redirects = 10       // as Let's Encrypt
	maxAnswer = 16 << 10 // bytes read of an answer
	shown     = 100      // bytes shown of one
	patience  = 10 * time.Second
	silences  = 2 // answers in a row that a target may be silent for
)

// Preflight asks each name at each of its A and AAAA addresses and at each node
// for the token, as a CA does: on port 80, without a proxy, following at most 10
// redirects to ports 80 and 443, taking any certificate there. It finds only what
// can be seen from here: a CA asks from several places. The findings come in the
// order of the names, for each its addresses and then the nodes.
func Preflight(ctx context.Context, a Ask) []Finding {
	r := newRound(a)
	r.lookUp(ctx)
	var g errgroup.Group
	g.SetLimit(cells)
	for i, c := range r.cells {
		if c.target != nil {
			g.Go(func() error {
				r.cells[i].finding = r.ask(ctx, c)
				return nil
			})
		}
	}
	_ = g.Wait() // what goes wrong is a finding
	r.client.CloseIdleConnections()
	findings := make([]Finding, len(r.cells))
	for i, c := range r.cells {
		findings[i] = c.finding
	}
	return suspect(findings, r.own)
}

// A cell is one question of the matrix, and then its finding.
type cell struct {
	name    string
	target  *target // nil: the finding is known without asking
	finding Finding
}

// A target is a server that is asked for several names.
type target struct {
	node      string // empty: an address of a name
	addresses []netip.Addr
	port      int
	drained   bool
	state     reach
}

func (a Ask) withDefaults() Ask {
	a.Port = cmp.Or(a.Port, 80)
	a.Timeout = cmp.Or(a.Timeout, patience)
	a.How.Via = cmp.Or(a.How.Via, farm.Gateway)
	if a.Dial == nil {
		a.Dial = (&net.Dialer{}).DialContext
	}
	if a.How.Via == farm.Gateway || a.How.Front {
		a.Nodes = nil
	}
	return a
}

// lookUp finds the addresses of all names and nodes, and lays out the cells.
func (r *round) lookUp(ctx context.Context) {
	rows, nodes := make([][]cell, len(r.Names)), make([]cell, len(r.Nodes))
	var g errgroup.Group
	g.SetLimit(cells)
	for i, n := range r.Nodes {
		g.Go(func() error {
			nodes[i] = r.node(ctx, n)
			return nil
		})
	}
	for i, name := range r.Names {
		g.Go(func() error {
			rows[i] = r.row(ctx, name)
			return nil
		})
	}
	_ = g.Wait() // what goes wrong is a cell
	shared := map[netip.Addr]*target{}
	for i, row := range rows {
		for _, c := range row {
			if c.target != nil { // names at one balancer share what is known of it
				first := c.target.addresses[0]
				shared[first] = cmp.Or(shared[first], c.target)
				c.target = shared[first]
			}
			r.cells = append(r.cells, c)
		}
		for _, c := range nodes {
			if wildcard(r.Names[i]) {
				break
			}
			c.name, c.finding.Name = r.Names[i], r.Names[i]
			r.cells = append(r.cells, c)
		}
	}
}

// row is a name's own addresses.
func (r *round) row(ctx context.Context, name string) []cell {
	if wildcard(name) {
		return []cell{{finding: Finding{Name: name, Verdict: Unclear, Saw: "a wildcard", Remedy: "wildcards are proven by DNS, not over HTTP"}}}
	}
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	addresses, err := r.book.addresses(ctx, name)
	if len(addresses) == 0 {
		return []cell{{finding: diagnose(ctx, r.book.client, name, err)}}
	}
	var row []cell
	for _, address := range addresses {
		row = append(row, cell{name: name, target: &target{addresses: []netip.Addr{address}, port: r.Port}})
	}
	return row
}

// node is a node's cell, of which each name has one.
func (r *round) node(ctx context.Context, n NodeAddress) cell {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	addresses, err := r.book.addresses(ctx, n.Address)
	if len(addresses) > 0 {
		return cell{target: &target{node: n.Name, addresses: addresses, port: cmp.Or(n.Port, r.How.Port, r.Port), drained: n.Drained}}
	}
	saw := "no address"
	if err != nil {
		saw = show(err.Error())
	}
	return cell{finding: Finding{
		Node: n.Name, Verdict: Unclear, Saw: saw,
		Remedy: fmt.Sprintf("the address %s of the node cannot be looked up: mend it in farm.yaml or in DNS", show(n.Address)),
	}}
}

func wildcard(name string) bool { return strings.HasPrefix(name, "*.") }
