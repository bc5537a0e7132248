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

// KeysOf are the public keys of bundles, as Forget takes them.
func KeysOf(t T, all ...farm.Bundle) (keys []string) {
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
	stranger := KeysOf(t, bundle(t))
	if got, err := f.Forget(t.Context(), stranger); err != nil || len(got.Versions) > 0 {
		t.Errorf("an empty place forgets %v, %v", got.Versions, err)
	}
	old, next := b.install(t, b.Target), b.install(t, b.Target)
	if got, err := f.Forget(t.Context(), KeysOf(t, old, next)); err == nil {
		t.Errorf("the current key is among them, and it forgets %v", got.Versions)
	}
	b.Target.holds(t, next)
	if got, err := f.Forget(t.Context(), stranger); err != nil || len(got.Versions) > 0 {
		t.Errorf("a key that was never there: forgets %v, %v", got.Versions, err)
	}
	for range 2 {
		must(t, second(f.Forget(t.Context(), KeysOf(t, old))))
		b.Target.holds(t, next)
	}
	b.Target.holds(t, b.install(t, b.Target))
}

func cutForget(t T, b Bench) {
	f := b.forgetter(t)
	b.each(t, func() (func() error, func()) {
		old, next := b.install(t, b.Target), b.install(t, b.Target)
		return func() error { return second(f.Forget(t.Context(), KeysOf(t, old))) }, func() {
			b.Target.holds(t, next)
			must(t, second(f.Forget(t.Context(), KeysOf(t, old))))
			b.Target.holds(t, next)
		}
	})
}
