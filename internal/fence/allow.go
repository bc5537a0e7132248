package fence

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// An Act is what is to be done, as far as the fence cares.
type Act int

// The acts.
const (
	Look Act = iota // nothing is changed
	Put             // a version is put beside what is live
	Switch
	Back // what was live is made live again
	Drop // what is not live is taken away
	Make // a key
	Lose // a key
)

// An Ask is a call in the words of the fence.
type Ask struct {
	Act               Act
	ID                string
	Sum               string // of the whole call: two calls of one id must be the same
	Farm, Node        string
	Lane, Owner       string
	Epoch             int64
	Nonce             string
	Kind              string // empty: none is meant
	Names             []string
	KeyTypes          []farm.KeyType
	Places            []string             // what is written to, in words: the kept leaf is remembered by them
	Oldest            time.Time            // NotBefore of the oldest leaf of Put
	Kept              map[string]time.Time // of Switch and Back: what will be the oldest leaf of a place
	Folders           []string             // of files that will be written
	Commands          [][]string           // that will be run
	Malformed, Forged string               // why the call is not one, and why a receipt is not from here; empty: it is
}

// A Class says why a call was refused.
type Class int

// The classes.
const (
	Outside Class = iota // the policy does not allow it
	Stale                // a higher epoch was seen, or the same of another lease
	Early                // the epoch lies more than a day past the node's clock
)

// A Refusal is why a call is not done.
type Refusal struct {
	Class Class
	Why   string
	Add   string // the line of the policy that would allow it; empty: none would
	Alarm bool   // somebody should look: two leases of one epoch, a forged receipt
	Epoch int64  // of Stale: the highest that was seen

	policy string // file that Add goes into; empty: File
}

// Error says why, and what would allow it.
func (r *Refusal) Error() string {
	if r.Add == "" {
		return r.Why
	}
	return r.Why + "; if it may be done, root adds to " + cmp.Or(r.policy, File) + ": " + r.Add
}

// ahead is how far an epoch, which is a time in milliseconds, may lie past the
// node's clock.
const ahead = 24 * time.Hour

// Allow decides whether a call may be done, by what the node remembers. It changes
// nothing; Memory.Begin notes what was allowed.
func (p Policy) Allow(a Ask, m *Memory, now time.Time) error {
	for _, rule := range []func(Ask, *Memory, time.Time) *Refusal{p.whom, p.what, p.which, p.where, p.young, fresh, p.often} {
		if r := rule(a, m, now); r != nil {
			r.policy = p.file
			return r
		}
	}
	return nil
}

// whom asks whether the call is for this node.
func (p Policy) whom(a Ask, _ *Memory, _ time.Time) *Refusal {
	switch {
	case a.Malformed != "":
		return &Refusal{Why: a.Malformed}
	case a.Node != p.Node:
		return &Refusal{Why: fmt.Sprintf("this is node %s, and the call is for %s", p.Node, a.Node), Alarm: true}
	case p.Farm != "" && a.Farm != p.Farm:
		return &Refusal{Why: fmt.Sprintf("the call is of farm %s", a.Farm), Add: "farm: " + a.Farm}
	case a.Forged != "":
		return &Refusal{Why: a.Forged, Alarm: true}
	}
	return nil
}

// what asks for the kind and its commands.
func (p Policy) what(a Ask, _ *Memory, _ time.Time) *Refusal {
	if a.Kind != "" && !slices.Contains(p.Kinds, a.Kind) {
		return &Refusal{Why: "targets of kind " + a.Kind + " are not allowed", Add: "kinds: [" + a.Kind + "]"}
	}
	for _, argv := range a.Commands {
		if err := p.Command(argv); err != nil {
			return err
		}
	}
	return nil
}

// Command refuses what is not on the list.
func (p Policy) Command(argv []string) *Refusal {
	for _, known := range p.Commands {
		if slices.Equal(known, argv) {
			return nil
		}
	}
	return &Refusal{Why: fmt.Sprintf("the command %q is not on the list", argv), Add: fmt.Sprintf("commands: {NAME: %s}", words(argv))}
}

// words is a command as YAML has it.
func words(argv []string) string {
	var all []string
	for _, w := range argv {
		all = append(all, fmt.Sprintf("%q", w))
	}
	return "[" + strings.Join(all, ", ") + "]"
}

// which asks for names and key types.
func (p Policy) which(a Ask, _ *Memory, _ time.Time) *Refusal {
	for _, n := range a.Names {
		if !slices.ContainsFunc(p.Names, func(pattern string) bool { return takes(pattern, n) }) {
			return &Refusal{Why: fmt.Sprintf("certificates for %.260q are not allowed", n), Add: fmt.Sprintf("names: [%.260q]", n)}
		}
	}
	for _, k := range a.KeyTypes {
		if len(p.KeyTypes) > 0 && !slices.Contains(p.KeyTypes, k) {
			return &Refusal{Why: fmt.Sprintf("keys of type %s are not allowed", k), Add: fmt.Sprintf("key_types: [%s]", k)}
		}
	}
	return nil
}

// where asks for the folders.
func (p Policy) where(a Ask, _ *Memory, _ time.Time) *Refusal {
	for _, f := range a.Folders {
		if r := p.Within(f); r != nil {
			r.Add = fmt.Sprintf("folders: [%.260q]", f)
			return r
		}
	}
	return nil
}

// Within refuses a path that is not one of the folders, and not below one.
func (p Policy) Within(name string) *Refusal {
	if path.Clean(name) == name && rooted(name) && slices.ContainsFunc(p.Folders, func(f string) bool { return same(name, f) || below(name, f) }) {
		return nil
	}
	return &Refusal{Why: fmt.Sprintf("%.260q is outside the allowed folders", name), Add: fmt.Sprintf("folders: [%.260q]", path.Dir(path.Clean("/"+name)))}
}

// same reports that two paths are one; on Windows the case of letters says nothing.
func same(a, b string) bool { return fold(a) == fold(b) }

// below reports that name is a path inside folder.
func below(name, folder string) bool { return strings.HasPrefix(fold(name), fold(folder)+"/") }

func fold(name string) string {
	if strings.HasPrefix(name, "/") {
		return name
	}
	return strings.ToLower(name)
}

// young asks that no leaf becomes live that is older than the one that is kept.
func (p Policy) young(a Ask, m *Memory, _ time.Time) *Refusal {
	if p.Older || a.Act == Back { // the way back leads to what the node itself kept
		return nil
	}
	check := func(place string, oldest time.Time) *Refusal {
		kept, known := m.Kept[place]
		if !known || !oldest.Before(kept) {
			return nil
		}
		return &Refusal{Why: fmt.Sprintf("the leaf is of %s, and %s holds one of %s: an older one is not allowed",
			oldest.UTC().Format(time.RFC3339), place, kept.UTC().Format(time.RFC3339)), Add: "older: true"}
	}
	if a.Act == Put {
		for _, place := range a.Places {
			if r := check(place, a.Oldest); r != nil {
				return r
			}
		}
	}
	if a.Act == Switch {
		for place, oldest := range a.Kept {
			if r := check(place, oldest); r != nil {
				return r
			}
		}
	}
	return nil
}

// fresh asks that nobody with a higher epoch was here.
func fresh(a Ask, m *Memory, now time.Time) *Refusal {
	if a.Act == Look {
		return nil
	}
	if limit := now.Add(ahead).UnixMilli(); a.Epoch > limit {
		return &Refusal{Class: Early, Why: fmt.Sprintf("epoch %d lies more than a day past this node's clock, which says %s", a.Epoch, now.UTC().Format(time.RFC3339)), Alarm: true}
	}
	seen, known := m.Lanes[a.Lane]
	if !known {
		seen = Mark{Epoch: m.Floor}
	}
	switch {
	case a.Epoch < seen.Epoch:
		return &Refusal{Class: Stale, Epoch: seen.Epoch, Why: fmt.Sprintf("epoch %d is lower than %d, which %s had here", a.Epoch, seen.Epoch, orSomebody(seen.Owner))}
	case known && a.Epoch == seen.Epoch && a.Nonce != seen.Nonce:
		return &Refusal{Class: Stale, Epoch: seen.Epoch, Alarm: true,
			Why: fmt.Sprintf("epoch %d was here by another lease, of %s: the controllers' database has lost its last commits, or there are two", a.Epoch, orSomebody(seen.Owner))}
	}
	return nil
}

func orSomebody(owner string) string {
	if owner == "" {
		return "somebody"
	}
	return owner
}

// often asks how much there was in the last hour. The way back may be gone twice as
// often: it must not wait for the way forward.
func (p Policy) often(a Ask, m *Memory, now time.Time) *Refusal {
	limit := p.Activations
	if limit == 0 {
		limit = usualActivations
	}
	var had int
	switch a.Act {
	case Switch:
		had = since(m.Switches, now)
	case Back:
		limit, had = 2*limit, since(m.Backs, now)
	case Look, Put, Drop, Make, Lose:
		return nil
	}
	if had < limit {
		return nil
	}
	return &Refusal{Why: fmt.Sprintf("there were %d in the last hour, which is the limit", had), Add: fmt.Sprintf("activations: %d", 2*limit), Alarm: true}
}

// since counts the times of the last hour.
func since(times []time.Time, now time.Time) (n int) {
	for _, t := range times {
		if now.Sub(t) < time.Hour {
			n++
		}
	}
	return n
}
