package drain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/host"
)

// Command is a balancer behind a command of the controller's list, which is called
// as
//
//	ARGV out NODE     take no new connections to the node
//	ARGV back NODE    take them again
//	ARGV state NODE   writes `in`, `out` or `held`, and after out, if it knows, the
//	                  number of connections that are left: `out 12`
//
// A command that would take out the last node of a pool should end with a status
// other than 0. Its words may be repeated.
type Command struct {
	Run  host.Runner
	List string   // its name in the list
	Argv []string // what the list says
	Node string
}

// commandTime is how long one call may take.
const commandTime = time.Minute

// Name tells it from all others.
func (c Command) Name() string { return c.Node + " by command " + c.List }

// State asks the command.
func (c Command) State(ctx context.Context) (State, error) {
	s, _, err := c.state(ctx)
	return s, err
}

// Open asks the command; one that does not count has none.
func (c Command) Open(ctx context.Context) (int, error) {
	_, n, err := c.state(ctx)
	return n, err
}

// Out calls the command.
func (c Command) Out(ctx context.Context) error {
	_, err := c.call(ctx, "out")
	return err
}

// Back calls the command.
func (c Command) Back(ctx context.Context) error {
	_, err := c.call(ctx, "back")
	return err
}

func (c Command) state(ctx context.Context) (s State, open int, err error) {
	text, err := c.call(ctx, "state")
	if err != nil {
		return Held, 0, err
	}
	word, count, counted := strings.Cut(strings.TrimSpace(text), " ")
	s, known := map[string]State{"in": In, "out": Out, "held": Held}[word]
	if counted {
		open, err = strconv.Atoi(count)
	}
	if !known || err != nil || open < 0 {
		return Held, 0, fmt.Errorf("command %s, state of %s: it wrote %.100q, where in, out, out NUMBER or held was wanted", c.List, c.Node, text)
	}
	return s, open, nil
}

func (c Command) call(ctx context.Context, verb string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, commandTime, fmt.Errorf("it did not end within %s", commandTime))
	defer cancel()
	output, err := c.Run.Run(ctx, slices.Concat(c.Argv, []string{verb, c.Node}), nil)
	if err == nil {
		return string(output), nil
	}
	if exit, ran := errors.AsType[*host.ExitError](err); ran {
		err = fmt.Errorf("it ended with status %d", exit.Status) // its own text has the words of the list
	}
	if len(output) > 0 {
		err = fmt.Errorf("%w; it wrote %.300q", err, strings.TrimSpace(string(output)))
	}
	return "", fmt.Errorf("command %s, %s of %s: %w", c.List, verb, c.Node, err)
}
