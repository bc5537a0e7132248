package drain

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/certfarm/certfarm/internal/deploy/haproxyctl"
)

// HAProxy is a server of a HAProxy backend (1.8 or newer), over its admin socket.
type HAProxy struct {
	Line            haproxyctl.Line
	On              string // where the HAProxy is, for people
	Backend, Server string
	Last            bool // it may be taken out where no other server takes connections
}

// NewHAProxy is a server that is written BACKEND/SERVER. On is where the HAProxy is,
// for people.
func NewHAProxy(line haproxyctl.Line, on, server string) HAProxy {
	h := HAProxy{Line: line, On: on}
	h.Backend, h.Server, _ = strings.Cut(server, "/")
	return h
}

// Name tells it from all others.
func (h HAProxy) Name() string { return h.Backend + "/" + h.Server + " of HAProxy on " + h.On }

// The bits of srv_admin_state and the values of srv_op_state (management.txt,
// "show servers state") that matter here.
const (
	forcedMaint    = 0x01 // `set server … state maint`, or disabled in the configuration
	inheritedMaint = 0x02 // a server that it tracks is
	forcedDrain    = 0x08 // `set server … state drain`
	inheritedDrain = 0x10
	resolveMaint   = 0x20 // its name does not resolve
	hostnameMaint  = 0x40 // its name was changed and does not resolve
	heldBits       = forcedMaint | inheritedMaint | inheritedDrain | resolveMaint | hostnameMaint

	opStarting, opRunning = 1, 2
)

// A row is a server in the reply to `show servers state`.
type row struct {
	backend, id string // numbers
	name        string
	op          int
	admin       int
	weight      int
}

// takes reports that the server takes connections.
func (r row) takes() bool {
	return (r.op == opRunning || r.op == opStarting) && r.admin&(heldBits|forcedDrain) == 0 && r.weight > 0
}

// State says how the server stands.
func (h HAProxy) State(ctx context.Context) (State, error) {
	us, _, err := h.rows(ctx)
	switch {
	case err != nil:
		return Held, err
	case us.admin&heldBits != 0:
		return Held, nil
	case us.admin&forcedDrain != 0:
		return Out, nil
	}
	return In, nil
}

// Out drains the server. That another takes connections is asked before and after:
// who drains the other one at the same moment sees it, too, and both come back.
func (h HAProxy) Out(ctx context.Context) error {
	us, others, err := h.rows(ctx)
	if err != nil {
		return err
	}
	alone := us.takes() && others == 0
	if alone && !h.Last {
		return h.last()
	}
	if err := h.set(ctx, "drain"); err != nil || !us.takes() || h.Last {
		return err
	}
	if _, others, err = h.rows(ctx); err != nil || others > 0 {
		return err
	}
	return errors.Join(h.last(), h.set(ctx, "ready"))
}

func (h HAProxy) last() error {
	return fmt.Errorf("no other server of backend %s takes connections, and without this one the site would be down: bring another one up, or say last: true", h.Backend)
}

// Open counts the connections of the server, with what waits for one.
func (h HAProxy) Open(ctx context.Context) (int, error) {
	us, _, err := h.rows(ctx)
	if err != nil {
		return 0, err
	}
	reply, err := h.Line.Ask(ctx, "show stat "+us.backend+" 4 "+us.id+"\n") // 4: servers
	if err != nil {
		return 0, err
	}
	table, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(reply, "# "))).ReadAll()
	if err != nil || len(table) < 2 {
		return 0, fmt.Errorf("HAProxy's statistics of %s cannot be read: %.200q", h.Name(), reply)
	}
	open := 0
	for i, column := range table[0] {
		if column == "scur" || column == "qcur" {
			n, err := strconv.Atoi(table[1][i])
			if err != nil {
				return 0, fmt.Errorf("HAProxy's statistics of %s: %s is %q", h.Name(), column, table[1][i])
			}
			open += n
		}
	}
	return open, nil
}

// Back ends the drain.
func (h HAProxy) Back(ctx context.Context) error { return h.set(ctx, "ready") }

func (h HAProxy) set(ctx context.Context, state string) error {
	reply, err := h.Line.Ask(ctx, "set server "+h.Backend+"/"+h.Server+" state "+state+"\n")
	if err == nil && reply != "" {
		err = fmt.Errorf("HAProxy refused: %.200s", reply)
	}
	return err
}

// rows is our server, and how many others of its backend take connections.
func (h HAProxy) rows(ctx context.Context) (us row, others int, err error) {
	reply, err := h.Line.Ask(ctx, "show servers state "+h.Backend+"\n")
	if err != nil {
		return us, 0, err
	}
	all, err := parse(reply)
	if err != nil {
		return us, 0, fmt.Errorf("backend %s of HAProxy on %s: %w", h.Backend, h.On, err)
	}
	found := false
	for _, r := range all {
		switch {
		case r.name == h.Server:
			us, found = r, true
		case r.takes():
			others++
		}
	}
	if !found {
		return us, 0, fmt.Errorf("backend %s of HAProxy on %s has no server %s: write BACKEND/SERVER as haproxy.cfg names them", h.Backend, h.On, h.Server)
	}
	return us, others, nil
}

// parse reads the reply to `show servers state`: a version, the names of the
// columns, a line for each server.
func parse(reply string) (all []row, err error) {
	version, rest, _ := strings.Cut(reply, "\n")
	head, rest, _ := strings.Cut(rest, "\n")
	if strings.TrimSpace(version) != "1" || !strings.HasPrefix(head, "# ") {
		return nil, fmt.Errorf("HAProxy does not show its servers: %.200q", reply)
	}
	at := map[string]int{}
	for i, column := range strings.Fields(head)[1:] {
		at[column] = i
	}
	for line := range strings.Lines(rest) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		r, err := read(words, at)
		if err != nil {
			return nil, fmt.Errorf("%w: %.200q", err, line)
		}
		all = append(all, r)
	}
	return all, nil
}

var errColumns = errors.New("HAProxy shows its servers in a way that is not known")

func read(words []string, at map[string]int) (r row, err error) {
	for column, to := range map[string]*string{"be_id": &r.backend, "srv_id": &r.id, "srv_name": &r.name} {
		i, ok := at[column]
		if !ok || i >= len(words) {
			return r, errColumns
		}
		*to = words[i]
	}
	for column, to := range map[string]*int{"srv_op_state": &r.op, "srv_admin_state": &r.admin, "srv_uweight": &r.weight} {
		i, ok := at[column]
		if !ok || i >= len(words) {
			return r, errColumns
		}
		if *to, err = strconv.Atoi(words[i]); err != nil {
			return r, errColumns
		}
	}
	return r, nil
}
