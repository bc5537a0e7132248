// Package install makes the agent a service of its machine: a unit of systemd, or a
// service of Windows. It decides first and does afterwards: what has to be done is a
// list of steps that can be shown, and where nothing has to be done the list says so. All
// of it may be repeated.
package install

import (
	"context"
	"errors"

	"github.com/certfarm/certfarm/internal/agent"
	"github.com/certfarm/certfarm/internal/snippet"
)

// Name is what the service is called.
const Name = "certfarm-agent"

// An Ask is how the agent is to run. On Windows only Program, State, Policy and Ready
// count: a service is kept from nothing else there.
type Ask = snippet.AgentUnitAsk

// A Step is one thing to do.
type Step struct {
	What string // for people: "write /etc/systemd/system/certfarm-agent.service"
	do   func(context.Context) error
}

// Do does it. What was done already may be done again.
func (s Step) Do(ctx context.Context) error { return s.do(ctx) }

// A Plan is what makes the agent a service, or no service any more.
type Plan struct {
	Steps []Step
	Rest  []string // what is left for a person afterwards
}

// ErrNotAllowed says that only an administrator of the machine can carry out a plan.
var ErrNotAllowed = errors.New("only an administrator of this machine can make a service of the agent")

// joined reports that the machine is the agent of a node, so that there is something to
// run.
func joined(state string) bool {
	_, err := agent.LoadIdentity(state)
	return !errors.Is(err, agent.ErrNotJoined)
}

// lacks is what a person still has to do before the agent can do anything.
func lacks(a Ask, start string) (rest []string) {
	if !joined(a.State) {
		rest = append(rest, "join: certfarm agent join --server https://host:8404 --state "+a.State+" < token, then "+start)
	}
	return rest
}
