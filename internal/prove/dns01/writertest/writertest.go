// Package writertest is the contract of dns01.Writer, executable. Every writer
// passes it with one call of Run.
package writertest

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/certfarm/certfarm/internal/prove/dns01"
)

// A Suite is a writer to be tested and the zone that it writes to.
type Suite struct {
	Zone string // full, in lower case, without the last dot
	// New makes a writer that knows nothing, for the same zone each time, as after
	// a restart.
	New func(t *testing.T) dns01.Writer
	// Values are the TXT values that the zone has at a name now, in any order.
	Values func(t *testing.T, name string) []string
	// Forgets is set for a writer that can only remove what it has put up itself.
	Forgets bool
}

// Run runs the suite.
func Run(t *testing.T, s Suite) {
	t.Run("put and remove", s.life)
	t.Run("every call may be repeated", s.repeat)
	t.Run("remove in another process", s.restart)
	t.Run("remove what is not there", s.nothing)
	t.Run("other values are untouched", s.neighbours)
	t.Run("two at once at one name", s.atOnce)
	t.Run("names below each other", s.nested)
	t.Run("values of all sorts", s.values)
}

func (s Suite) record(label, value string) dns01.Record {
	return dns01.Record{Zone: s.Zone, Name: dns01.Prefix + label + "." + s.Zone, Value: value}
}

func (s Suite) life(t *testing.T) {
	r, w := s.record("life", "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"), s.New(t)
	must(t, "put", w.Put(t.Context(), r))
	s.want(t, r.Name, r.Value)
	must(t, "remove", w.Remove(t.Context(), r))
	s.want(t, r.Name)
}

func (s Suite) repeat(t *testing.T) {
	r, w := s.record("repeat", "-starts_with_a_hyphen"), s.New(t)
	for range 2 {
		must(t, "put", w.Put(t.Context(), r))
		s.want(t, r.Name, r.Value)
	}
	for range 2 {
		must(t, "remove", w.Remove(t.Context(), r))
		s.want(t, r.Name)
	}
	must(t, "put after remove", w.Put(t.Context(), r))
	s.want(t, r.Name, r.Value)
	must(t, "remove", w.Remove(t.Context(), r))
}

func (s Suite) restart(t *testing.T) {
	if s.Forgets {
		t.Skip("not for a writer that forgets")
	}
	r := s.record("restart", "before")
	must(t, "put", s.New(t).Put(t.Context(), r))
	must(t, "put in another process", s.New(t).Put(t.Context(), r))
	s.want(t, r.Name, r.Value)
	must(t, "remove in another process", s.New(t).Remove(t.Context(), r))
	s.want(t, r.Name)
}

func (s Suite) nothing(t *testing.T) {
	w, there := s.New(t), s.record("nothing", "there")
	must(t, "remove at a name that is not there", w.Remove(t.Context(), s.record("never", "was")))
	must(t, "put", w.Put(t.Context(), there))
	must(t, "remove a value that is not there", w.Remove(t.Context(), s.record("nothing", "not there")))
	must(t, "remove a part of a value", w.Remove(t.Context(), s.record("nothing", "the")))
	must(t, "remove in other letters", w.Remove(t.Context(), s.record("nothing", "There")))
	s.want(t, there.Name, there.Value)
	must(t, "remove", w.Remove(t.Context(), there))
}

func (s Suite) neighbours(t *testing.T) {
	w, one, two := s.New(t), s.record("apex-and-wildcard", "one"), s.record("apex-and-wildcard", "two")
	other := s.record("other", "one")
	for _, r := range []dns01.Record{one, two, other} {
		must(t, "put", w.Put(t.Context(), r))
	}
	s.want(t, one.Name, "one", "two")
	must(t, "remove", w.Remove(t.Context(), one))
	s.want(t, one.Name, "two")
	s.want(t, other.Name, "one")
	for _, r := range []dns01.Record{two, other} {
		must(t, "remove", w.Remove(t.Context(), r))
		s.want(t, r.Name)
	}
}

// atOnce is two controllers, or two orders, that write at the same time.
func (s Suite) atOnce(t *testing.T) {
	values := []string{"a", "b", "c", "d"}
	writers := make([]dns01.Writer, len(values))
	each := func(do func(w dns01.Writer, r dns01.Record) error) {
		var wg sync.WaitGroup
		for i, v := range values {
			wg.Go(func() {
				if err := do(writers[i], s.record("at-once", v)); err != nil {
					t.Errorf("%s: %v", v, err)
				}
			})
		}
		wg.Wait()
	}
	for i := range writers {
		writers[i] = s.New(t)
	}
	each(func(w dns01.Writer, r dns01.Record) error { return w.Put(t.Context(), r) })
	s.want(t, s.record("at-once", "").Name, values...)
	each(func(w dns01.Writer, r dns01.Record) error { return w.Remove(t.Context(), r) })
	s.want(t, s.record("at-once", "").Name)
}

func (s Suite) nested(t *testing.T) {
	w, upper, lower := s.New(t), s.record("nested", "upper"), s.record("lower."+dns01.Prefix+"nested", "lower")
	must(t, "put", w.Put(t.Context(), lower))
	must(t, "put", w.Put(t.Context(), upper))
	must(t, "remove", w.Remove(t.Context(), upper))
	s.want(t, upper.Name)
	s.want(t, lower.Name, "lower")
	must(t, "remove", w.Remove(t.Context(), lower))
}

// values has what dns-persist-01 writes, and what must be quoted.
func (s Suite) values(t *testing.T) {
	w := s.New(t)
	for _, v := range []string{
		"ca.example; accounturi=https://ca.example/acct/1; policy=wildcard",
		`a "quoted" \ value`,
		strings.Repeat("0123456789", 30), // more than one character-string
	} {
		r := s.record("values", v)
		must(t, "put", w.Put(t.Context(), r))
		s.want(t, r.Name, v)
		must(t, "remove", w.Remove(t.Context(), r))
		s.want(t, r.Name)
	}
}

func (s Suite) want(t *testing.T, name string, want ...string) {
	t.Helper()
	got := slices.Sorted(slices.Values(s.Values(t, name)))
	if !slices.Equal(got, want) {
		t.Errorf("at %s: %q, want %q", name, got, want)
	}
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
