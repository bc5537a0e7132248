package deploytest

import (
	"context"
	"slices"
)

// A T is what a rule tells its verdict to: *testing.T in tests, and a Trial on an
// operator's own machines.
type T interface {
	// Context ends with the rule, or before.
	Context() context.Context
	// Helper says that the caller is of no interest where something fails.
	Helper()
	// Failed reports whether something failed.
	Failed() bool
	Verdict
}

// A Verdict is what a rule may say.
type Verdict interface {
	Errorf(format string, args ...any) // it failed, and goes on
	Fatalf(format string, args ...any) // it failed, and ends
	Skipf(format string, args ...any)  // it is not for this bench, and ends
}

// A Runner is a T with rules of its own below it; R is itself.
type Runner[R any] interface {
	T
	Run(name string, rule func(R)) (ok bool)
}

// Run holds a kind of deployer to the contract, each rule on a fresh bench:
//
//	deploytest.Run(t, func(t *testing.T) deploytest.Bench { … })
func Run[R Runner[R]](t R, fresh func(R) Bench) {
	for _, name := range Rules() {
		t.Run(name, func(t R) { rules[name](t, fresh(t)) })
	}
}

// Rules names the rules of the contract, in order.
func Rules() []string {
	var all []string
	for name := range rules {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}
