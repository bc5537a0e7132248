package deploytest

import (
	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
)

func discardStaged(t T, b Bench) {
	b.watch(t, b.Target)
	old := b.install(t, b.Target)
	before, reloads := b.tree(t, b.Target), b.ran(b.Reload)
	r := b.Target.stage(t, 2, bundle(t))
	for range 2 {
		must(t, b.Target.Deployer.Discard(t.Context(), r))
	}
	b.Target.holds(t, old)
	b.same(t, before, b.tree(t, b.Target))
	if b.Reload != "" && b.ran(b.Reload) != reloads {
		t.Errorf("it was reloaded")
	}
}

func discardDone(t T, b Bench) {
	old, next := b.install(t, b.Target), bundle(t)
	r := b.Target.stage(t, 2, next)
	b.Target.activate(t, r)
	if b.Empty == nil && b.keysOf(b.tree(t, b.Target), old) != 1 {
		t.Errorf("the version before is not kept")
	}
	must(t, b.Target.Deployer.Discard(t.Context(), r))
	b.Target.holds(t, next)
	if b.keysOf(b.tree(t, b.Target), old) != 0 {
		t.Errorf("the key of the version before is still there")
	}
}

func discardOld(t T, b Bench) {
	b.install(t, b.Target)
	second, third := bundle(t), bundle(t)
	r2 := b.Target.stage(t, 2, second)
	b.Target.activate(t, r2)
	r3 := b.Target.stage(t, 3, third)
	b.Target.activate(t, r3)
	must(t, b.Target.Deployer.Discard(t.Context(), r2))
	b.Target.holds(t, third)
	b.Target.restore(t, r3)
	b.Target.holds(t, second)
}

func nothingPilesUp(t T, b Bench) {
	b.install(t, b.Target)
	b.install(t, b.Target)
	most := len(b.tree(t, b.Target))
	for epoch := range int64(6) {
		b.Target.stage(t, 2+epoch, bundle(t)) // never activated, never discarded
		if epoch%2 == 0 {
			b.install(t, b.Target)
		}
	}
	b.install(t, b.Target)
	if tree := b.tree(t, b.Target); len(tree) > most {
		t.Errorf("there were %d files, and now there are %q", most, names(tree))
	}
}

func twoLeaves(t T, b Bench) {
	if b.Double.Deployer == nil {
		t.Skipf("not for a kind that holds one leaf")
	}
	b.watch(t, b.Double)
	old := b.set(t)
	r := b.Double.stage(t, 1, old...)
	b.Double.activate(t, r)
	b.Double.holds(t, old...)
	next := b.set(t)
	r = b.Double.stage(t, 2, next[1], next[0]) // in any order
	b.Double.holds(t, old...)
	b.Double.activate(t, r)
	b.Double.holds(t, next...)
	b.Double.restore(t, r)
	b.Double.holds(t, old...)
}

// set is a version with a leaf for each place of Double.
func (b Bench) set(t T) (all []farm.Bundle) {
	t.Helper()
	for _, kind := range b.Double.Keys {
		all = append(all, NewBundle(t, kind))
	}
	return all
}

func leavesMustFit(t T, b Bench) {
	if _, err := b.Target.Deployer.Stage(t.Context(), stageOf(1, bundle(t), bundle(t))); err == nil {
		t.Errorf("two leaves were taken where there is place for one")
	}
	if b.Double.Deployer == nil {
		return
	}
	if _, err := b.Double.Deployer.Stage(t.Context(), stageOf(1, bundle(t))); err == nil {
		t.Errorf("one leaf was taken where there are places for two")
	}
	if _, err := b.Double.Deployer.Stage(t.Context(), stageOf(1, bundle(t), bundle(t))); err == nil {
		t.Errorf("a leaf of another key type was taken")
	}
}

func group(t T, b Bench) {
	b.needsGroup(t)
	old1, old2 := b.install(t, b.Target), b.install(t, b.Second)
	next1, next2 := bundle(t), bundle(t)
	both := []deploy.Receipt{b.Target.stage(t, 2, next1), b.Second.stage(t, 2, next2)}
	tests, reloads := b.ran(b.Test), b.ran(b.Reload)
	b.Target.activate(t, both...)
	b.Target.holds(t, next1)
	b.Second.holds(t, next2)
	b.once(t, tests, reloads)
	tests, reloads = b.ran(b.Test), b.ran(b.Reload)
	b.Second.restore(t, both...)
	b.Target.holds(t, old1)
	b.Second.holds(t, old2)
	b.once(t, tests, reloads)
}

func (b Bench) once(t T, tests, reloads int) {
	t.Helper()
	if b.Test != "" && b.ran(b.Test) != tests+1 || b.Reload != "" && b.ran(b.Reload) != reloads+1 {
		t.Errorf("%d tests and %d reloads for one group", b.ran(b.Test)-tests, b.ran(b.Reload)-reloads)
	}
}

func groupRefused(t T, b Bench) {
	if b.Test == "" {
		t.Skipf("not for a kind without a config test")
	}
	old1, old2 := b.install(t, b.Target), b.install(t, b.Second)
	both := []deploy.Receipt{b.Target.stage(t, 2, bundle(t)), b.Second.stage(t, 2, bundle(t))}
	b.refuse(b.Test, 1)
	if err := b.Target.Deployer.Activate(t.Context(), both); err == nil {
		t.Fatalf("a refusal is no error")
	}
	b.Host.Mend()
	b.Target.holds(t, old1)
	b.Second.holds(t, old2)
}

func (b Bench) needsGroup(t T) {
	t.Helper()
	if b.Second.Deployer == nil {
		t.Skipf("not for a kind whose targets are each a group of their own")
	}
}

func foreignHands(t T, b Bench) {
	b.needsGroup(t)
	old, next := b.install(t, b.Second), bundle(t)
	r := b.Second.stage(t, 2, next)
	b.Target.activate(t, r)
	b.Second.holds(t, next)
	b.Target.restore(t, r)
	b.Second.holds(t, old)
}

func sameAgain(t T, b Bench) {
	b.watch(t, b.Target)
	next := b.install(t, b.Target)
	for _, epoch := range []int64{1, 2} {
		r := b.Target.stage(t, epoch, next)
		b.Target.holds(t, next)
		b.Target.activate(t, r)
		b.Target.holds(t, next)
		b.Target.restore(t, r)
		b.Target.holds(t, next)
		must(t, b.Target.Deployer.Discard(t.Context(), r))
		b.Target.holds(t, next)
	}
}
