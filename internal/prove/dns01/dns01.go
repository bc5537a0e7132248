// Package dns01 proves control of names by TXT records (RFC 8555 §8.4).
//
// The record of a name is where its CNAMEs lead, or where a rule says; it is
// written by a provider's Writer, seen by asking every name server of its zone,
// and taken away by name and value.
//
//	_acme-challenge.NAME ──CNAME…──→ Record{Zone, Name, Value} ──→ Writer
//	                                          └──→ every authoritative server, until all agree
//
// Its invariant: a value that is not ours is never touched, and what we put up
// can be taken away by whoever knows the challenge, also after a restart.
package dns01

import (
	"context"
	"errors"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lookup"
)

// Prefix is the label before a name that its record stands at (RFC 8555 §8.4).
const Prefix = "_acme-challenge."

// Left is what the error of a removal wraps when the record is still there and
// cannot be taken away by us: the error says which one, for a person.
var Left = errors.New("the record is left")

// A Record is one TXT value at one name. Names are full, in lower case, without
// the last dot.
type Record struct {
	Zone  string // the zone that has it, as its SOA names it
	Name  string
	Value string
	// KeyAuth is the key authorization that Value is the digest of (RFC 8555 §8.1,
	// §8.4); it is no secret. Only the APIs that are spoken to through lego want it,
	// and they cannot put or remove a record without.
	KeyAuth string
}

// A Writer puts TXT values into zones and takes them away, beside whatever else
// is at the name. Every call may be repeated, and Remove may run in another
// process than Put.
type Writer interface {
	// Put adds the value; one that is there already is no error.
	Put(ctx context.Context, r Record) error
	// Remove takes away this value and no other; one that is not there is no error.
	// It wraps Left where the record cannot be taken away by this process, and a
	// person must.
	Remove(ctx context.Context, r Record) error
}

// A Provider is a way to write TXT records, as farm.yaml names it.
type Provider struct {
	Name     string
	About    string // what it is, in one line
	Docs     string // URL of its own documentation; may be empty
	Settings []Setting
	// Forgets is set where a record can only be taken away by the process that put
	// it up: after a kill a person must be told.
	Forgets bool
	// Check checks options (JSON) and the names of the secrets that are given, and
	// returns the options with every default filled in. An error that is a
	// config.OptionError is shown at its option's line.
	Check func(options []byte, secrets []string) (canonical []byte, err error)
	New   func(ctx context.Context, s Setup) (Writer, error)
}

// A Setting is what a provider needs to know.
type Setting struct {
	Name     string
	About    string
	Default  string
	Secret   bool // stands under secrets, never under options
	Required bool
}

// A Setup is what a writer is made of.
type Setup struct {
	Farm     string
	Options  []byte // JSON, from Check
	Secrets  map[string]farm.Secret
	Proxy    string // URL of the proxy for outbound HTTP; empty: none
	Lookup   lookup.Client
	Board    Board               // of provider builtin
	Commands map[string][]string // of provider exec: the controller's allow-list, name to argv
	Helper   []string            // argv that runs a provider's API in a process of its own; see package provider
}

// A Board is where TXT values stand for all controllers: the store.
type Board interface {
	// Put adds a value at a full name; the same again is no error.
	Put(ctx context.Context, name, value string) error
	// Remove takes a value away; one that is not there is no error.
	Remove(ctx context.Context, name, value string) error
	// Values are those at a name.
	Values(ctx context.Context, name string) ([]string, error)
}
