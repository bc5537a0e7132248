package controller

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Command is a command of the controller's list.
func (c *Controller) Command(name string) ([]string, error) {
	if argv := c.Commands[name]; len(argv) > 0 {
		return argv, nil
	}
	known := "it has none"
	if len(c.Commands) > 0 {
		known = "it has " + strings.Join(slices.Sorted(maps.Keys(c.Commands)), ", ")
	}
	return nil, fmt.Errorf("the controller's list of commands (--commands-file) has no %q: %s", name, known)
}

// Command is the controller's: its list is not farm.yaml's.
func (u *unstored) Command(name string) ([]string, error) { return u.c.Command(name) }
