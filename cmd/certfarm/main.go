// Command certfarm keeps every TLS certificate of a load-balanced web farm in
// step. This file only wires; each command has a file of its own, the rules of
// the user interface are in ui.go and the exit codes in exit.go.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"charm.land/lipgloss/v2"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second Ctrl-C ends the program at once
	lipgloss.EnableLegacyWindowsANSI(os.Stdout)
	lipgloss.EnableLegacyWindowsANSI(os.Stderr)
	u := &ui{in: os.Stdin, out: os.Stdout, err: os.Stderr, now: time.Now}
	os.Exit(run(ctx, u, os.Args[1:]))
}

// run obeys a command line and returns the exit code.
func run(ctx context.Context, u *ui, args []string) int {
	root := newRoot(&app{ui: u})
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	u.fail(err)
	return codeOf(err)
}
