// Package provetest is the contract of prove.Solver, executable. Every solver
// passes it with one call of Run.
package provetest

import (
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/prove"
)

// A Suite is a solver to be tested and the world that it acts on.
type Suite struct {
	// New makes a solver that knows nothing, on the same world each time, as
	// after a restart.
	New func(t *testing.T) prove.Solver
	// Challenge makes the n-th challenge, for any name; two of them may be for
	// the same name.
	Challenge func(n int) farm.Challenge
	// Seen reports whether a CA that asks for the challenge would see its answer.
	Seen func(t *testing.T, c farm.Challenge) bool
	// Within is how long a solver may need to be ready; 0: it is at once.
	Within time.Duration
}

// Run runs the suite.
func Run(t *testing.T, s Suite) {
	t.Run("present, ready, clean up", s.life)
	t.Run("every call may be repeated", s.repeat)
	t.Run("clean up in another process", s.restart)
	t.Run("clean up without a receipt", s.lostReceipt)
	t.Run("clean up of what was never there", s.nothing)
	t.Run("clean up takes no other answer", s.neighbour)
	t.Run("nonsense is refused", s.nonsense)
}

func (s Suite) life(t *testing.T) {
	c := s.Challenge(1)
	r := s.present(t, s.New(t), c)
	must(t, "clean up", s.New(t).CleanUp(t.Context(), c, r))
	s.wantSeen(t, c, false)
}

func (s Suite) repeat(t *testing.T) {
	c, solver := s.Challenge(2), s.New(t)
	s.present(t, solver, c)
	r := s.present(t, solver, c)
	for range 2 {
		must(t, "clean up", solver.CleanUp(t.Context(), c, r))
		s.wantSeen(t, c, false)
	}
}

func (s Suite) restart(t *testing.T) {
	c := s.Challenge(3)
	r := s.present(t, s.New(t), c)
	if ready, err := s.New(t).Ready(t.Context(), c, r); err != nil || !ready {
		t.Errorf("another process finds it not ready: %v, %v", ready, err)
	}
	must(t, "clean up", s.New(t).CleanUp(t.Context(), c, r))
	s.wantSeen(t, c, false)
}

func (s Suite) lostReceipt(t *testing.T) {
	c := s.Challenge(4)
	s.present(t, s.New(t), c)
	must(t, "clean up", s.New(t).CleanUp(t.Context(), c, nil))
	s.wantSeen(t, c, false)
}

func (s Suite) nothing(t *testing.T) {
	must(t, "clean up", s.New(t).CleanUp(t.Context(), s.Challenge(5), nil))
}

func (s Suite) neighbour(t *testing.T) {
	c, other, solver := s.Challenge(6), s.Challenge(7), s.New(t)
	other.Name = c.Name // two certificates for one name, at the same time
	r := s.present(t, solver, c)
	otherReceipt := s.present(t, solver, other)
	s.wantSeen(t, c, true)
	must(t, "clean up", solver.CleanUp(t.Context(), c, r))
	s.wantSeen(t, c, false)
	s.wantSeen(t, other, true)
	must(t, "clean up", solver.CleanUp(t.Context(), other, otherReceipt))
}

// nonsense is what a CA might send to write elsewhere (CVE-2026-40611).
func (s Suite) nonsense(t *testing.T) {
	for _, token := range []string{"", "short", "../../../../../../etc/passwd", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa/../x", "aaaaaaaaaaaaaaaaaaaaaaaaaaa\n"} {
		c := s.Challenge(8)
		if c.Token = token; c.Type == farm.HTTP01 { // of dns-01 the value is a digest: the one that there is stays right
			c.Value = token + ".x"
		}
		if _, err := s.New(t).Present(t.Context(), c); err == nil {
			t.Errorf("the token %q is accepted", token)
		}
	}
	for _, value := range []string{"", "x", "v=spf1 -all", "\n"} {
		c := s.Challenge(8)
		c.Value = value
		if _, err := s.New(t).Present(t.Context(), c); err == nil {
			t.Errorf("the value %q is accepted", value)
		}
	}
}

// present puts an answer up and waits until it is ready.
func (s Suite) present(t *testing.T, solver prove.Solver, c farm.Challenge) prove.Receipt {
	t.Helper()
	r, err := solver.Present(t.Context(), c)
	must(t, "present", err)
	if r == nil {
		t.Fatal("present gave no receipt")
	}
	ask := time.NewTicker(max(s.Within/20, time.Millisecond))
	defer ask.Stop()
	for end := time.Now().Add(s.Within); ; <-ask.C {
		ready, err := solver.Ready(t.Context(), c, r)
		must(t, "ready", err)
		if ready {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("it is not ready within %s", s.Within)
		}
	}
	s.wantSeen(t, c, true)
	return r
}

func (s Suite) wantSeen(t *testing.T, c farm.Challenge, want bool) {
	t.Helper()
	if got := s.Seen(t, c); got != want {
		t.Errorf("the answer for %s is seen: %v, want %v", c.Name, got, want)
	}
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
