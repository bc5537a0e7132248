package lab_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lab"
)

// The table of faults: what each must end as, and what is served then. In each
// story the fault strikes web2, or the node that is named.
func TestEveryFaultEndsAsItMust(t *testing.T) {
	for _, c := range []struct {
		fault   string
		outcome farm.Outcome
		state   farm.State // of the node that is struck
		others  string     // what the others serve afterwards: old or new
		struck  string     // what the struck node serves: old, new or nothing
		reloads bool       // whether the others may have been reloaded
	}{
		{"web2=ssh-down", farm.RolledBack, farm.Failed, "old", "old", false},
		{"web2=down", farm.DonePartly, farm.Absent, "new", "nothing", true},
		{"web2=hangs", farm.RolledBack, farm.Failed, "old", "old", false},
		{"web2=disk-full", farm.RolledBack, farm.Failed, "old", "old", false},
		{"web2=wrong-key", farm.RolledBack, farm.Failed, "old", "old", false},
		{"web2=bad-reload", farm.RolledBack, farm.Restored, "old", "old", true},
		{"web2=dies-on-reload", farm.RolledBack, farm.Restored, "old", "old", true},
		{"web2=wrong-chain", farm.RolledBack, farm.Restored, "old", "old", true},
		{"web2=dies-for-good", farm.RolledBackPart, farm.Stuck, "old", "nothing", true},
	} {
		t.Run(c.fault, func(t *testing.T) {
			t.Parallel()
			l, old := upAndServing(t)
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			node, fault, err := lab.ParseFault(c.fault)
			if err != nil {
				t.Fatal(err)
			}
			ran := map[string]int{}
			for _, n := range l.Nodes {
				ran[n.Name()] = reloads(n)
			}
			began := time.Now()
			got, err := l.Rehearse(ctx, map[string]lab.Fault{node: fault})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s after %s: %s", got.Rollout.Outcome, time.Since(began).Round(time.Millisecond), got.Rollout.Why)
			if got.Rollout.Outcome != c.outcome {
				t.Errorf("ended as %s, want %s: %s", got.Rollout.Outcome, c.outcome, got.Rollout.Why)
			}
			if !strings.Contains(got.Rollout.Why, node) {
				t.Errorf("the node is not named: %s", got.Rollout.Why)
			}
			for i, w := range got.After {
				want := c.others
				if w.Node == node {
					want = c.struck
				}
				if is := kind(w, old); is != want {
					t.Errorf("%s serves %s, want %s (%v)", w.Node, is, want, w)
				}
				if n := reloads(l.Nodes[i]) - ran[w.Node]; !c.reloads && n != 0 {
					t.Errorf("%s was reloaded %d times, though nothing went live", w.Node, n)
				}
			}
			for _, s := range got.Rollout.Steps {
				if strings.HasSuffix(s.Target, "@"+node) && s.State != c.state {
					t.Errorf("%s is %s, want %s (%s)", s.Target, s.State, c.state, s.Error)
				}
			}
		})
	}
}

// A node that was silent everywhere is brought up to date by itself when it is
// back, without a new order.
func TestANodeThatComesBackIsBroughtUpToDate(t *testing.T) {
	t.Parallel()
	l, _ := upAndServing(t)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	got, err := l.Rehearse(ctx, map[string]lab.Fault{"web3": {Kind: lab.Down, For: 6 * time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	if got.Rollout.Outcome != farm.DonePartly {
		t.Fatalf("ended as %s: %s", got.Rollout.Outcome, got.Rollout.Why)
	}
	issued := l.CA.Stats().Certificates
	if err := l.Healed(ctx, got.Rollout.To.ID); err != nil {
		t.Fatal(err)
	}
	if now := l.CA.Stats().Certificates; fmt.Sprint(now) != fmt.Sprint(issued) {
		t.Errorf("the CA issued %v, and before the node came back %v", now, issued)
	}
}

func upAndServing(t *testing.T) (l *lab.Lab, serves string) {
	t.Helper()
	l, err := lab.Start(t.Context(), lab.Options{Layout: lab.Layout{Dir: t.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	first, err := l.First(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if first.Rollout.Outcome != farm.Done {
		t.Fatalf("version 1 ended as %s: %s", first.Rollout.Outcome, first.Rollout.Why)
	}
	for _, w := range first.After {
		if w.Serves == "" || w.Serves != first.After[0].Serves {
			t.Fatalf("not every node serves version 1: %v", first.After)
		}
	}
	return l, first.After[0].Serves
}

func kind(w lab.Witness, old string) string {
	switch w.Serves {
	case "":
		return "nothing"
	case old:
		return "old"
	}
	return "new"
}

// reloads counts how often webd was told to reload or start on a node.
func reloads(n *lab.Node) (count int) {
	for _, line := range n.Ran() {
		if strings.Contains(line, "reload") || strings.Contains(line, "start") {
			count++
		}
	}
	return count
}
