// Package deploytest is the contract that every deployer keeps.
package deploytest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/hosttest"
)

// A Target is a deployer and the paths that its server reads: chain and key of
// each leaf, which may be the same.
type Target struct {
	Deployer deploy.Deployer
	Keys     []farm.KeyType
	Live     [][2]string
}

// A Bench is a fresh node with empty targets of one reload group.
type Bench struct {
	Host   *hosttest.Faulty
	Target Target
	Second Target // of the same group; without a deployer: each target is a group of its own
	Double Target // with two leaves
	// Empty makes the targets of a vault or a service as new. Such a kind has no live
	// paths, so what the contract says of files is nothing it could keep or break:
	// bytes changed on their way to a disk, and the copy of the version before. Its
	// calls go through Host.Run. Nil: the kind writes files.
	Empty  func(t T)
	Test   string // the command that tests, as one line; empty: the kind has none
	Reload string
	// Plain are files that a person put at the target's live paths before we
	// came; nil where a kind takes over nothing.
	Plain func(t T, of Target, b farm.Bundle)
	// Bare says that the server runs without a certificate: a first installation goes
	// back to nothing, and needs no placeholder.
	Bare bool
	// Open takes chain and key, PEM, out of a live file; nil: the files are PEM.
	Open func(data []byte) (chain, key []byte, err error)
	// Stride cuts steps after every so many calls only, for a kind whose engine is cut
	// after each of them in another test. 0: after each.
	Stride int
}

var rules = map[string]func(T, Bench){
	"an empty target holds nothing":                            emptyHoldsNothing,
	"staging changes nothing live":                             stagingChangesNothing,
	"activating makes the staged certificate live":             activatingMakesLive,
	"every step may be repeated":                               repeatable,
	"restoring what was never activated changes nothing":       restoreUnactivated,
	"restoring a first installation leaves a placeholder":      restoreFirst,
	"after a placeholder it can be installed again":            installAfterPlaceholder,
	"a refused test leaves what was live":                      refusedTest,
	"a refused reload leaves what was live":                    refusedReload,
	"a config that is broken already is found by staging":      brokenBefore,
	"plain files are taken over and given back":                plainFiles,
	"an activation cut anywhere can be finished":               cutAndFinish,
	"an activation cut anywhere can be undone":                 cutAndUndo,
	"a first activation cut anywhere can be undone":            cutFirst,
	"taking over plain files cut anywhere can be undone":       cutPlain,
	"a restoration cut anywhere can be finished":               cutRestore,
	"a staging cut anywhere changes nothing and may be again":  cutStage,
	"a full disk leaves nothing and changes nothing":           fullDisk,
	"bytes changed on the way are found by staging":            changedBytes,
	"a key that is not the leaf's is refused by staging":       wrongKey,
	"a receipt holds no key":                                   noKey,
	"discarding what was only staged leaves what is live":      discardStaged,
	"discarding after success erases the version before":       discardDone,
	"discarding an old receipt leaves the way back of the new": discardOld,
	"nothing piles up":                                         nothingPilesUp,
	"a version may have two leaves":                            twoLeaves,
	"the leaves must fit the places":                           leavesMustFit,
	"a group is tested and reloaded once":                      group,
	"a group goes back as a whole":                             groupRefused,
	"a receipt serves in the hands of another of the group":    foreignHands,
	"the same version may be staged when it is live":           sameAgain,
	"forgetting old keys leaves what is current":               forgetOld,
	"forgetting cut anywhere may be repeated":                  cutForget,
	"a hanging node ends with the context":                     hanging,
}

func emptyHoldsNothing(t T, b Bench) { b.Target.holds(t) }

func stagingChangesNothing(t T, b Bench) {
	old := b.install(t, b.Target)
	b.Target.stage(t, 2, bundle(t))
	b.Target.holds(t, old)
}

func activatingMakesLive(t T, b Bench) {
	b.watch(t, b.Target)
	b.install(t, b.Target)
	b.Target.holds(t, b.install(t, b.Target))
}

func repeatable(t T, b Bench) {
	b.watch(t, b.Target)
	old, next := b.install(t, b.Target), bundle(t)
	b.Target.stage(t, 2, next)
	r := b.Target.stage(t, 2, next)
	for range 2 {
		b.Target.activate(t, r)
		b.Target.holds(t, next)
	}
	for range 2 {
		b.Target.restore(t, r)
		b.Target.holds(t, old)
	}
	b.Target.activate(t, r)
	b.Target.holds(t, next)
	for range 2 {
		must(t, b.Target.Deployer.Discard(t.Context(), r))
		b.Target.holds(t, next)
	}
}

func restoreUnactivated(t T, b Bench) {
	old := b.install(t, b.Target)
	b.Target.restore(t, b.Target.stage(t, 2, bundle(t)))
	b.Target.holds(t, old)
}

func restoreFirst(t T, b Bench) {
	r := b.Target.stage(t, 1, bundle(t))
	b.Target.activate(t, r)
	b.Target.restore(t, r)
	b.backToNone(t)
	if !b.Bare {
		b.whole(t, b.Target)
	}
}

func installAfterPlaceholder(t T, b Bench) {
	r := b.Target.stage(t, 1, bundle(t))
	b.Target.activate(t, r)
	b.Target.restore(t, r)
	must(t, b.Target.Deployer.Discard(t.Context(), r))
	b.backToNone(t)
	b.Target.holds(t, b.install(t, b.Target))
}

// backToNone checks what a first installation goes back to.
func (b Bench) backToNone(t T) {
	t.Helper()
	if b.Bare {
		b.Target.holds(t)
		return
	}
	b.Target.holdsPlaceholder(t)
}

func refusedTest(t T, b Bench)   { b.refused(t, b.Test) }
func refusedReload(t T, b Bench) { b.refused(t, b.Reload) }

func (b Bench) refused(t T, command string) {
	if command == "" {
		t.Skipf("not for a kind that runs no such command")
	}
	b.watch(t, b.Target)
	old := b.install(t, b.Target)
	r := b.Target.stage(t, 2, bundle(t))
	refusals := 1 // what was live is taken again
	if command == b.Test {
		refusals = 9
	}
	b.refuse(command, refusals)
	before := b.ran(b.Reload)
	if err := b.Target.Deployer.Activate(t.Context(), []deploy.Receipt{r}); err == nil {
		t.Fatalf("a refusal is no error")
	}
	if command == b.Test && b.ran(b.Reload) != before {
		t.Errorf("it was reloaded although the test refused")
	}
	b.Host.Mend()
	b.Target.holds(t, old)
}

// refuse makes a command fail as often.
func (b Bench) refuse(command string, times int) {
	b.Host.Refuse = func(call string) error {
		if call == "run "+command && times > 0 {
			times--
			return &host.ExitError{Argv: strings.Fields(command), Status: 1}
		}
		return nil
	}
}

func (b Bench) ran(command string) (n int) {
	for _, c := range b.Host.Calls() {
		if c == "run "+command {
			n++
		}
	}
	return n
}

func brokenBefore(t T, b Bench) {
	if b.Test == "" {
		t.Skipf("not for a kind without a config test")
	}
	old := b.install(t, b.Target)
	before := b.tree(t, b.Target)
	b.refuse(b.Test, 1)
	if _, err := b.Target.Deployer.Stage(t.Context(), stageOf(2, bundle(t))); err == nil {
		t.Fatalf("a broken config passed")
	}
	b.Host.Mend()
	b.Target.holds(t, old)
	b.same(t, before, b.tree(t, b.Target))
}

func plainFiles(t T, b Bench) {
	if b.Plain == nil {
		t.Skipf("not for a kind that takes over nothing")
	}
	old, next := bundle(t), bundle(t)
	b.Plain(t, b.Target, old)
	b.watch(t, b.Target)
	b.Target.holds(t, old)
	r := b.Target.stage(t, 1, next)
	b.Target.holds(t, old)
	b.Target.activate(t, r)
	b.Target.holds(t, next)
	b.Target.restore(t, r)
	b.Target.holds(t, old)
}

func changedBytes(t T, b Bench) {
	if b.Empty != nil {
		t.Skipf("not for a kind that writes no files")
	}
	old := b.install(t, b.Target)
	before := b.tree(t, b.Target)
	b.Host.Alter = func(_ string, data []byte) []byte {
		changed := bytes.Clone(data)
		changed[len(changed)/2] ^= 1
		return changed
	}
	if _, err := b.Target.Deployer.Stage(t.Context(), stageOf(2, bundle(t))); err == nil {
		t.Fatalf("changed bytes passed")
	}
	b.Host.Mend()
	b.Target.holds(t, old)
	b.same(t, before, b.tree(t, b.Target))
}

func wrongKey(t T, b Bench) {
	mixed := bundle(t)
	mixed.Key = bundle(t).Key
	_, err := b.Target.Deployer.Stage(t.Context(), stageOf(1, mixed))
	if !errors.Is(err, encode.ErrMismatch) {
		t.Fatalf("got %v", err)
	}
	other := bundle(t)
	other.Names = []string{"shop.example.net"}
	if _, err = b.Target.Deployer.Stage(t.Context(), stageOf(1, other)); err == nil {
		t.Fatalf("a leaf that does not cover its names passed")
	}
}

func noKey(t T, b Bench) {
	next := bundle(t)
	r := b.Target.stage(t, 1, next)
	lines := strings.Split(string(next.Key.Reveal()), "\n")
	for _, hidden := range []string{"PRIVATE KEY", lines[1]} {
		if strings.Contains(string(r.Note), hidden) {
			t.Fatalf("the receipt holds the key")
		}
	}
}

func hanging(t T, b Bench) {
	r := b.Target.stage(t, 1, bundle(t))
	b.Host.Hang = true
	ctx, cancel := context.WithTimeout(t.Context(), 1)
	defer cancel()
	steps := []error{
		second(b.Target.Deployer.Inspect(ctx)),
		second(b.Target.Deployer.Stage(ctx, stageOf(2, bundle(t)))),
		b.Target.Deployer.Restore(ctx, []deploy.Receipt{r}),
	}
	if b.Empty == nil { // a vault has nothing to discard, and need not be asked
		steps = append(steps, b.Target.Deployer.Discard(ctx, r))
	}
	for _, err := range steps {
		if !errors.Is(err, host.ErrUnreachable) {
			t.Errorf("got %v", err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func bundle(t T) farm.Bundle { return NewBundle(t, farm.EC256) }

func stageOf(epoch int64, bs ...farm.Bundle) deploy.Stage {
	return deploy.Stage{Site: "shop", Names: Names, Bundles: bs, Epoch: epoch}
}

func (of Target) stage(t T, epoch int64, bs ...farm.Bundle) deploy.Receipt {
	t.Helper()
	r, err := of.Deployer.Stage(t.Context(), stageOf(epoch, bs...))
	must(t, err)
	return r
}

func (of Target) activate(t T, rs ...deploy.Receipt) {
	t.Helper()
	must(t, of.Deployer.Activate(t.Context(), rs))
}

func (of Target) restore(t T, rs ...deploy.Receipt) {
	t.Helper()
	must(t, of.Deployer.Restore(t.Context(), rs))
}

func (b Bench) install(t T, of Target) farm.Bundle {
	t.Helper()
	next := bundle(t)
	of.activate(t, of.stage(t, 1, next))
	return next
}

// holds checks what Inspect says.
func (of Target) holds(t T, want ...farm.Bundle) {
	t.Helper()
	got, err := of.Deployer.Inspect(t.Context())
	must(t, err)
	var leaves []string
	for _, b := range want {
		leaves = append(leaves, b.Leaf)
	}
	if !slices.Equal(got.Leaves, leaves) || got.Mismatch || got.Placeholder {
		t.Fatalf("holds %+v, want %.8q", got, leaves)
	}
}

func (of Target) holdsPlaceholder(t T) {
	t.Helper()
	got, err := of.Deployer.Inspect(t.Context())
	must(t, err)
	if !got.Placeholder || len(got.Leaves) > 0 || got.Mismatch {
		t.Fatalf("holds %+v, want the placeholder", got)
	}
}
