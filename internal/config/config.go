// Package config reads farm.yaml: text in, a farm.Farm out with every default
// filled in and every selector resolved to names.
//
//	text ─ tree.go ─→ YAML nodes ─ decode.go ─→ words.go ─ resolve*.go ─→ farm.Farm
//	            └──────────┴── say(place, problem, hint) ──┴──→ Mistakes
//
// Its invariant: what Parse returns without an error refers to nothing that is
// not there, holds no secret, and can be rolled out by the policy it carries.
// Every mistake is told at once, with its line, and no mistake ever shows a
// secret. The package reads no file, no clock and no network: kinds of targets
// and ways to validate come from above as values.
package config

import (
	_ "time/tzdata" // zones of windows mean the same on every machine

	"github.com/certfarm/certfarm/internal/farm"
)

// A Vocabulary is what a farm.yaml may say that this package does not know by
// itself.
type Vocabulary struct {
	Kinds         map[string]Kind     // of targets, by name
	DNS           map[string]Provider // of TXT records, by name
	Receivers     map[string]Provider // kinds of receivers of notifications, by name
	StartTLS      []string            // protocols that a probe can upgrade; none: starttls is refused
	InlineSecrets bool                // `{file: …}` and `{env: …}` may stand in place: `run --once -f` and `lab` only
	// Impossible says why the windows of a site leave its certificates no way to be
	// renewed in time; empty: they do not. Nil: nobody asks.
	Impossible func(farm.Site) string
	// Unaffordable says why the members of a per-node site cannot all have a
	// certificate within an issuer's limits, and what to do instead; empty: they can.
	// Nil: nobody asks.
	Unaffordable func(members []farm.Site, i farm.Issuer) (why, hint string)
}

// A Kind is one way to install certificates, as far as farm.yaml goes.
type Kind struct {
	// NoUndo reports that canonical options make a target that cannot go back, and so
	// is changed last; nil: none does.
	NoUndo   func(options []byte) bool
	Named    bool // its option names is the site's names, unless it says others
	Nodeless bool // a share, a vault, a cloud: nodes are who reads it
	// OnNode reports that canonical options of a Nodeless kind put the target on each
	// of its nodes all the same; nil: none does.
	OnNode func(options []byte) bool
	// OnReaders reports that canonical options of a Nodeless kind work on the nodes that
	// read the target, too; nil: none do.
	OnReaders func(options []byte) bool
	Secrets   []string // names of the settings that are secret
	Options   []string // names of the options, for suggestions
	// Check reads options (JSON) and returns the physical place on the node, the
	// reload group, and the options with every default filled in. An error that is
	// an OptionError or a *json.UnmarshalTypeError is shown at its option's line.
	// Secrets are the names of those that are given.
	Check func(options []byte, secrets []string) (identity, group string, canonical []byte, err error)
	// Places lists every physical place of a target on its node, from options that
	// Check returned; no other target may have any of them. Nil: its identity only.
	Places func(canonical []byte) []string
}

// A Provider is one way to write TXT records, or to tell people, as far as farm.yaml
// goes.
type Provider struct {
	Options []string // names of the options, for suggestions
	Secrets []string // names of the settings that are secret
	// Check reads options (JSON) and the names of the secrets that are given, and
	// returns the options with every default filled in. Errors are as a Kind's.
	Check func(options []byte, secrets []string) (canonical []byte, err error)
}

// An OptionError is a mistake in one option of a target. The field is the option's
// name, with a dot before each inner name ("rsa.pem") and a number for an item of a
// list ("more[0].keys"); the hint may be empty.
type OptionError interface {
	error
	Option() (field, problem, hint string)
}

// Parsed is a farm.yaml without mistakes.
type Parsed struct {
	Farm    farm.Farm
	Secrets []Mention // the sealed secrets that the farm names, by name
	Tally   *Tally    // what a later text can be held against; nil: its whole text must be read, too
	met     map[string]bool
}

// A Mention is the first place where farm.yaml names a secret.
type Mention struct {
	Name  string
	place Mistake
}

// Missing returns a mistake for each secret that the farm names and have does
// not know.
func (p Parsed) Missing(have func(secret string) bool) Mistakes {
	var all Mistakes
	for _, m := range p.Secrets {
		if have(m.Name) {
			continue
		}
		at := m.place
		at.Problem = "no secret is called " + quote(m.Name)
		at.Hint = "set it: certfarm secret set " + m.Name + " --farm " + p.Farm.Name
		all = append(all, at)
	}
	return all
}

// Parse reads farm.yaml; file is its name, for the mistakes. An error is always
// of type Mistakes.
func Parse(text []byte, file string, v Vocabulary) (Parsed, error) {
	return parse(lines(text), file, v, false)
}

// parse reads a text whose lines end in \n; of a part, it is not known whether sites
// that the farm's own words ask for are in the rest.
func parse(text []byte, file string, v Vocabulary, part bool) (Parsed, error) {
	r := newReader(file, text, v.InlineSecrets)
	root := r.tree(text)
	if root == nil {
		return Parsed{}, r.found()
	}
	var f farmFile
	r.read(root, &f)
	c := &resolver{reader: r, words: v, file: &f, part: part, met: map[string]bool{}}
	var whole farm.Farm
	if !r.full {
		whole = c.resolve()
	}
	if ms := r.found(); len(ms) > 0 {
		return Parsed{}, ms
	}
	p := Parsed{Farm: whole, Secrets: r.mentions(), met: c.met}
	if pieces, ok := cutUp(text); ok && pieces.agrees(root) {
		p.Tally = c.tally(p.Secrets)
	}
	return p, nil
}
