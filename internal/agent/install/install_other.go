//go:build !linux && !windows

package install

import "errors"

var errUnknown = errors.New("how services run on this system is not known: have its own supervisor run `certfarm agent run`")

// Allowed reports whether this process may carry a plan out; see ErrNotAllowed.
func Allowed() error { return nil }

// Install is what makes the agent a service.
func Install(Ask) (Plan, error) { return Plan{}, errUnknown }

// Uninstall is what takes the service away. The agent's key and the policy stay.
func Uninstall() (Plan, error) { return Plan{}, errUnknown }
