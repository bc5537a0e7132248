package smb

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/certfarm/certfarm/internal/host"
)

// A Node is a share as the host of a node of which nothing but files is reached.
type Node struct{ *Host }

var _ host.Host = Node{}

// Run runs nothing: a share has no commands.
func (n Node) Run(_ context.Context, argv []string, _ []byte) ([]byte, error) {
	return nil, fmt.Errorf("running %q: %s is a share, where no command can be run; reach the node by SSH: %w", argv, n.unc, errors.ErrUnsupported)
}

// Dial opens nothing: a share has no network of its own.
func (n Node) Dial(_ context.Context, _, address string) (net.Conn, error) {
	return nil, fmt.Errorf("connecting to %s from %s: it is a share, which has no network; use path: direct: %w", address, n.unc, errors.ErrUnsupported)
}
