// Command bench measures what Certfarm promises about its speed, and prints one
// line a figure:
//
//	bench NAME value=… floor=… ratio=… goal=… ok|short
//
// Its invariant: every figure stands beside a floor that was measured in the same
// run, on the same machine and against the same peers, so that a slow machine
// changes both. A figure that falls short is said and fails nothing.
//
//	go run ./bench [-cpuprofile FILE] [-v] [issue|rollout|mass|idle|claim|plan|preflight|responder|agents|pages …]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/heap"
)

// A measurer measures some figures. What it writes lies below dir, which all share.
type measurer struct {
	name string
	run  func(ctx context.Context, dir string) ([]figure, error)
}

// measurers lists all there is; to add one, write its file and name it here.
var measurers = []measurer{
	{"issue", measureIssue},
	{"rollout", measureRollout},
	{"mass", measureMass},
	{"idle", measureIdle},
	{"claim", measureClaim},
	{"plan", measurePlan},
	{"preflight", measurePreflight},
	{"responder", measureResponder},
	{"pages", measurePages},
	{"agents", measureAgents},
}

func main() {
	heap.Allow(heap.Room) // as certfarm serve does; the floors have it, too
	if path := os.Getenv(idleVariable); path != "" {
		if err := idle(path); err != nil {
			fmt.Fprintln(os.Stderr, "bench: idle controller:", err)
			os.Exit(1)
		}
		return
	}
	if spec := os.Getenv(agentsVariable); spec != "" {
		if err := runAgents(spec); err != nil {
			fmt.Fprintln(os.Stderr, "bench: agents:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	profile := flag.String("cpuprofile", "", "write a CPU profile to this file")
	verbose := flag.Bool("v", false, "also print what the figures are made of")
	flag.Parse()
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return fmt.Errorf("profile: %w", err)
		}
		defer func() { _ = f.Close() }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return fmt.Errorf("profile: %w", err)
		}
		defer pprof.StopCPUProfile()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	for _, name := range flag.Args() {
		if !slices.ContainsFunc(measurers, func(m measurer) bool { return m.name == name }) {
			return fmt.Errorf("nothing measures %q", name)
		}
	}
	dir, err := os.MkdirTemp("", "certfarm-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	var errs []error
	for _, m := range measurers {
		if flag.NArg() == 0 || slices.Contains(flag.Args(), m.name) {
			errs = append(errs, measure(ctx, m, dir, *verbose))
		}
	}
	return errors.Join(errs...)
}

// measure prints what a measurer finds.
func measure(ctx context.Context, m measurer, dir string, verbose bool) error {
	figures, err := m.run(ctx, dir)
	if err != nil {
		return fmt.Errorf("measure %s: %w", m.name, err)
	}
	for _, f := range figures {
		fmt.Println(f)
		if verbose && len(f.notes) > 0 {
			fmt.Println("      " + strings.Join(f.notes, "\n      "))
		}
	}
	return nil
}
