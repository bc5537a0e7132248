package deploytest

import (
	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
)

// forgetter is the target's deployer as one of a place that keeps earlier versions.
func (b Bench) forgetter(t T) deploy.Forgetter {
	t.Helper()
	f, ok := b.Target.Deployer.(deploy.Forgetter)
	if !ok {
		t.Skipf("not for a kind that keeps no earlier versions by itself")
	}
	return f
}

// keysOf are the public keys of bundles, as Forget takes them.
func keysOf(t T, all ...farm.Bundle) (keys []string) {
	t.Helper()
	for _, b := range all {
		leaf, err := encode.Leaf(b.Chain)
		must(t, err)
		keys = append(keys, farm.Fingerprint(leaf.RawSubjectPublicKeyInfo))
	}
	return keys
}

func forgetOld(t T, b Bench) {
	f := b.forgetter(t)
	got, err := f.Forget(t.Context(), keysOf(t, bundle(t)))
	if must(t, err); len(got.Versions) > 0 {
		t.Errorf("an empty place forgets %v", got.Versions)
	}
	old, next := b.install(t, b.Target), b.install(t, b.Target)
	if got, err := f.Forget(t.Context(), keysOf(t, old, next)); err == nil {
		t.Errorf("the current key is among them, and it forgets %v", got.Versions)
	}
	b.Target.holds(t, next)
	if got, err = f.Forget(t.Context(), keysOf(t, bundle(t))); err != nil || len(got.Versions) > 0 {
		t.Errorf("a key that was never there: forgets %v, %v", got.Versions, err)
	}
	for range 2 {
		_, err := f.Forget(t.Context(), keysOf(t, old))
		must(t, err)
		b.Target.holds(t, next)
	}
	b.Target.holds(t, b.install(t, b.Target))
}

func cutForget(t T, b Bench) {
	f := b.forgetter(t)
	b.each(t, func() (func() error, func()) {
		old, next := b.install(t, b.Target), b.install(t, b.Target)
		return func() error { return second(f.Forget(t.Context(), keysOf(t, old))) }, func() {
			b.Target.holds(t, next)
			must(t, second(f.Forget(t.Context(), keysOf(t, old))))
			b.Target.holds(t, next)
		}
	})
}
