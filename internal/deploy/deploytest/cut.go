package deploytest

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
)

// maxCalls is how many calls one step may take before a test gives up.
const maxCalls = 150

// watch checks after every call from now on that the live paths hold complete,
// matching pairs. Before the first installation nothing need be there.
func (b Bench) watch(t T, of Target) {
	t.Helper()
	began := false
	b.Host.After = func() {
		var wrong []error
		there := 0
		for _, pair := range of.Live {
			chain, key, err := b.read(t, pair)
			if err == nil {
				there++
			}
			_, mismatch := encode.Pair(chain, key)
			wrong = append(wrong, err, mismatch)
		}
		began = began || there == len(of.Live)
		if err := errors.Join(wrong...); began && err != nil {
			t.Errorf("after %v: no matching pairs at %s: %v", last(b.Host.Calls()), of.Live, err)
		}
	}
}

func last(calls []string) string {
	if len(calls) == 0 {
		return "nothing"
	}
	return calls[len(calls)-1]
}

// whole checks that the live paths hold matching pairs now.
func (b Bench) whole(t T, of Target) {
	t.Helper()
	for _, pair := range of.Live {
		chain, key, err := b.read(t, pair)
		if _, mismatch := encode.Pair(chain, key); mismatch != nil {
			t.Errorf("no matching pair at %s (%v, %v)", pair, err, mismatch)
		}
	}
}

// read is what the live paths of a leaf hold, PEM.
func (b Bench) read(t T, pair [2]string) (chain, key []byte, err error) {
	t.Helper()
	chain, err1 := b.Host.Linked.Read(t.Context(), pair[0])
	if b.Open != nil && err1 == nil {
		return b.Open(chain)
	}
	key, err2 := b.Host.Linked.Read(t.Context(), pair[1])
	return chain, key, errors.Join(err1, err2)
}

// each runs prepare, cuts step after each of its calls in turn, before the call
// and after it with the answer lost, and then lets check go on. With a stride the
// two begin at different calls.
func (b Bench) each(t T, prepare func() (step func() error, check func())) {
	t.Helper()
	stride := max(b.Stride, 1)
	for _, lost := range []bool{false, true} {
		first := 0
		if lost {
			first = stride / 2
		}
		for n := first; ; n += stride {
			step, check := prepare()
			b.Host.DieAfter(n, lost)
			err := step()
			b.Host.Mend()
			check()
			if t.Failed() {
				t.Fatalf("cut after %d calls (answer lost: %v)", n, lost)
			}
			if err == nil {
				break // n was past the last call
			}
			if n >= maxCalls {
				t.Fatalf("more than %d calls", maxCalls)
			}
		}
	}
}

func one(r deploy.Receipt) []deploy.Receipt { return []deploy.Receipt{r} }

func cutAndFinish(t T, b Bench) {
	b.watch(t, b.Target)
	b.each(t, func() (func() error, func()) {
		b.install(t, b.Target)
		next := bundle(t)
		r := b.Target.stage(t, 2, next)
		return func() error { return b.Target.Deployer.Activate(t.Context(), one(r)) }, func() {
			b.Target.activate(t, r)
			b.Target.holds(t, next)
		}
	})
}

func cutAndUndo(t T, b Bench) {
	b.watch(t, b.Target)
	b.each(t, func() (func() error, func()) {
		old := b.install(t, b.Target)
		r := b.Target.stage(t, 2, bundle(t))
		return func() error { return b.Target.Deployer.Activate(t.Context(), one(r)) }, func() {
			b.Target.restore(t, r)
			b.Target.holds(t, old)
			must(t, b.Target.Deployer.Discard(t.Context(), r))
			b.Target.holds(t, old)
		}
	})
}

func cutFirst(t T, b Bench) {
	b.each(t, func() (func() error, func()) {
		b.clear(t, b.Target)
		r := b.Target.stage(t, 1, bundle(t))
		return func() error { return b.Target.Deployer.Activate(t.Context(), one(r)) }, func() {
			b.Target.restore(t, r)
			if in, err := b.Target.Deployer.Inspect(t.Context()); err != nil || len(in.Leaves) > 0 || in.Mismatch {
				t.Errorf("holds %+v (%v)", in, err)
			}
			must(t, b.Target.Deployer.Discard(t.Context(), r))
			b.Target.holds(t, b.install(t, b.Target))
		}
	})
}

func cutPlain(t T, b Bench) {
	if b.Plain == nil {
		t.Skipf("not for a kind that takes over nothing")
	}
	b.each(t, func() (func() error, func()) {
		b.Host.After = nil
		b.clear(t, b.Target)
		old := bundle(t)
		b.Plain(t, b.Target, old)
		b.watch(t, b.Target)
		r := b.Target.stage(t, 1, bundle(t))
		return func() error { return b.Target.Deployer.Activate(t.Context(), one(r)) }, func() {
			b.Target.restore(t, r)
			b.Target.holds(t, old)
			must(t, b.Target.Deployer.Discard(t.Context(), r))
			b.Target.holds(t, old)
			b.Target.holds(t, b.install(t, b.Target))
		}
	})
}

func cutRestore(t T, b Bench) {
	b.watch(t, b.Target)
	b.each(t, func() (func() error, func()) {
		old := b.install(t, b.Target)
		r := b.Target.stage(t, 2, bundle(t))
		b.Target.activate(t, r)
		return func() error { return b.Target.Deployer.Restore(t.Context(), one(r)) }, func() {
			b.Target.restore(t, r)
			b.Target.holds(t, old)
		}
	})
}

func cutStage(t T, b Bench) {
	b.watch(t, b.Target)
	old := b.install(t, b.Target)
	b.each(t, func() (func() error, func()) {
		next := bundle(t)
		return func() error {
				_, err := b.Target.Deployer.Stage(t.Context(), stageOf(2, next))
				return err
			}, func() {
				b.Target.holds(t, old)
				r := b.Target.stage(t, 3, next)
				must(t, b.Target.Deployer.Discard(t.Context(), r))
				b.Target.holds(t, old)
			}
	})
}

func fullDisk(t T, b Bench) {
	b.watch(t, b.Target)
	for _, first := range []bool{true, false} {
		var old []farm.Bundle
		if !first {
			old = append(old, b.install(t, b.Target))
		}
		before := b.tree(t, b.Target)
		for n := 1; ; n++ {
			b.Host.FullAt = n
			r, err := b.Target.Deployer.Stage(t.Context(), stageOf(2, bundle(t)))
			b.Host.Mend()
			b.Target.holds(t, old...)
			if err == nil {
				must(t, b.Target.Deployer.Discard(t.Context(), r))
			}
			b.same(t, before, b.tree(t, b.Target))
			if err == nil {
				break
			}
			if n == maxCalls {
				t.Fatalf("it never ends")
			}
		}
	}
}

// tree is every file and link on the host that has to do with a target: below
// the folders of its live paths, and below every folder that links lead to.
func (b Bench) tree(t T, of Target) map[string]string {
	t.Helper()
	tree := map[string]string{}
	for _, pair := range of.Live {
		for _, name := range pair {
			b.walk(t, path.Dir(name), tree)
			if to, err := b.Host.Linked.Readlink(t.Context(), name); err == nil {
				b.walk(t, path.Dir(path.Dir(to)), tree)
			}
		}
	}
	return tree
}

func (b Bench) walk(t T, folder string, tree map[string]string) {
	t.Helper()
	entries, err := b.Host.Linked.List(t.Context(), folder)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	must(t, err)
	for _, e := range entries {
		name := path.Join(folder, e.Name)
		switch {
		case e.Mode.IsDir():
			b.walk(t, name, tree)
		case e.Mode&fs.ModeSymlink != 0:
			tree[name], err = b.Host.Linked.Readlink(t.Context(), name)
			must(t, err)
		default:
			data, err := b.Host.Linked.Read(t.Context(), name)
			must(t, err)
			tree[name] = string(data)
		}
	}
}

func (b Bench) same(t T, before, after map[string]string) {
	t.Helper()
	if !maps.Equal(before, after) {
		t.Errorf("there was %q, now there is %q", names(before), names(after))
	}
}

func names(tree map[string]string) []string { return slices.Sorted(maps.Keys(tree)) }

// clear makes a target as new.
func (b Bench) clear(t T, of Target) {
	t.Helper()
	if b.Empty != nil {
		b.Empty(t)
		return
	}
	for name := range b.tree(t, of) {
		must(t, b.Host.Linked.Remove(t.Context(), name))
	}
}

// keysOf counts the files of a tree that hold the private key of a bundle.
func (b Bench) keysOf(tree map[string]string, c farm.Bundle) (n int) {
	secret := bytes.TrimSpace(c.Key.Reveal())
	for _, text := range tree {
		if b.Open != nil {
			_, key, err := b.Open([]byte(text))
			if err != nil {
				continue // a link, say
			}
			text = string(key)
		}
		if strings.Contains(text, string(secret)) {
			n++
		}
	}
	return n
}
