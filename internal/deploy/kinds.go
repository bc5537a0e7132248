package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"sort"
	"strings"

	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
)

// A Kind is one way to install certificates, as farm.yaml names it.
type Kind struct {
	Name, Doc string
	Fence     string // fenced, conditional or unfenced: what keeps a stale controller out
	Options   any    // a pointer to the options with their defaults: help, schema and forms read it
	// Nodeless kinds are no place on a node: a share, a vault, a cloud. The nodes that
	// farm.yaml names for such a target are those that read it.
	Nodeless bool
	Named    bool     // its option names is the site's names, unless farm.yaml says others
	Audits   bool     // its deployers are Auditors
	Secrets  []Secret // what stands under secrets in farm.yaml, never under options

	check func(options []byte) (Facts, error)
	open  func(options []byte, s Setup) (Deployer, error)
	read  func(options []byte) (Options, error)
}

// A Secret is a setting of a kind that is one.
type Secret struct {
	Name     string `json:"name"`
	Doc      string `json:"doc"`
	Optional bool   `json:"optional"`
}

// A Setup is what a deployer is made of, beside its options.
type Setup struct {
	Host    host.Host              // the target's node; nil for a kind without one, or the way to its files in place of its own
	Secrets map[string]farm.Secret // by the kind's name for them
	Proxy   string                 // URL of the proxy for outbound HTTP; empty: none
	// Command is a command of the controller's list, by its name; nil: there is none.
	Command func(name string) (argv []string, err error)
	Wire    Wire // nil: HTTP requests go as they are
	Records Records
	Look    Look   // nil: the target has no endpoints of its own
	Target  string // its full name; empty: it is none of a farm's
	// Looks gives the Look of another target of the reload group, whose receipt this one
	// may have in hand.
	Looks func(ctx context.Context, target string) (Look, error)
	// Readers are the nodes that read a target which is no place on a node.
	Readers []string
	// Node is the line to a node of the farm, for a kind that works on its readers, too;
	// nil: nothing is to be done on any.
	Node  func(ctx context.Context, name string) (host.Host, error)
	Lease Lease
	Known *encode.Memory // of pairs that were checked; nil: each is checked each time
}

// A Lease is by what right a deployer changes something: a place that fences refuses
// an epoch that is lower than the highest it has seen. The zero lease is of a caller
// that only looks.
type Lease struct {
	Owner   string `json:"owner,omitzero"`   // the controller
	Epoch   int64  `json:"epoch,omitzero"`   // grows with every lease of the lane, on every controller
	Nonce   string `json:"nonce,omitzero"`   // tells two leases of one epoch apart, after a database lost its last commits
	Rollout string `json:"rollout,omitzero"` // empty: none
}

// A Wire stands before what sends HTTP requests: the contract suite cuts the line
// there.
type Wire func(http.RoundTripper) http.RoundTripper

// Around puts the wire before what sends; no wire is no change.
func (w Wire) Around(over http.RoundTripper) http.RoundTripper {
	if w == nil {
		return over
	}
	return w(over)
}

// Records is what the controller remembers, for deployers that need it again.
type Records struct {
	Farm string // name of the farm, written beside the certificate; may be empty
	// Bundle gives one leaf of the target's site with its key again, by fingerprint,
	// as far as its key is here. Any error means that it cannot be had.
	Bundle func(ctx context.Context, leaf string) (farm.Bundle, error)
}

// A Borrower is a deployer that works with Records: one of a vault, which keeps
// nothing beside what is live, while a receipt holds no key.
type Borrower interface {
	// With returns the same deployer, with the records at hand.
	With(r Records) Deployer
}

// A Final is what the options of a kind offer that may say that a target cannot go
// back: it is changed in the last wave.
type Final interface {
	// NoUndo reports that Restore will not work, as far as the options say. It is
	// asked of options that Facts has found right.
	NoUndo() bool
}

// A Settler is what the options of a Nodeless kind offer that may all the same put
// the target on its nodes: a command of each node, where others are the controller's.
type Settler interface {
	// OnNode reports that each node has a target of its own. It is asked of options
	// that Facts has found right.
	OnNode() bool
}

// A Reacher is what the options of a Nodeless kind offer that may work on the nodes
// that read the target, too: the store lies on a share, say, and its readers are told so.
type Reacher interface {
	// OnReaders reports that it does. It is asked of options that Facts has found right.
	OnReaders() bool
}

// Facts is what a target's options say to the rest of the house.
type Facts struct {
	Identity  string   // the physical place on its node, "file /etc/nginx/tls/shop.pem"
	Places    []string // every physical place that it writes to, Identity among them
	Group     string   // the reload group on its node, "nginx /etc/nginx/nginx.conf"
	Options   []byte   // canonical JSON, defaults filled in
	NoUndo    bool     // the target cannot go back
	OnNode    bool     // the target is on a node although its kind is Nodeless
	OnReaders bool     // the nodes that read the target are worked on, too
}

// Options is what a kind's option struct must offer.
type Options interface {
	// Facts checks the options. An error that is a *FieldError names the option.
	Facts() (identity, group string, err error)
}

// Spread is what the options of a kind offer whose targets have more than one
// physical place: the chain in one file, say, and the key in another.
type Spread interface {
	// Places lists them in the words of an identity. It is asked of options that
	// Facts has found right.
	Places() []string
}

// A FieldError is a mistake in one option.
type FieldError struct{ Field, Problem, Hint string }

// Error says what is wrong with which option.
func (e *FieldError) Error() string { return e.Field + ": " + e.Problem }

// Define describes a kind whose options are C, read over the defaults and
// strictly.
func Define[C Options](k Kind, defaults C, open func(C, Setup) (Deployer, error)) Kind {
	k.Options = &defaults
	filled, err := json.Marshal(defaults)
	if err != nil {
		panic("deploy: the defaults of " + k.Name + ": " + err.Error())
	}
	read := func(raw []byte) (C, error) {
		var c C // decoded, not copied: a copy would share its lists, and reading options would write into the defaults
		if err := json.Unmarshal(filled, &c); err != nil || len(bytes.TrimSpace(raw)) == 0 {
			return c, err
		}
		d := json.NewDecoder(bytes.NewReader(raw))
		d.DisallowUnknownFields()
		if err := d.Decode(&c); err != nil {
			return c, fmt.Errorf("options of %s: %w", k.Name, err)
		}
		return c, nil
	}
	k.read = func(raw []byte) (Options, error) { return read(raw) }
	k.check = func(raw []byte) (Facts, error) {
		c, err := read(raw)
		if err != nil {
			return Facts{}, err
		}
		return factsOf(c)
	}
	k.open = func(raw []byte, s Setup) (Deployer, error) {
		c, err := read(raw)
		if err != nil {
			return nil, err
		}
		d, err := open(c, s)
		if b, ok := d.(Borrower); ok && err == nil {
			d = b.With(s.Records)
		}
		return d, err
	}
	return k
}

// factsOf is what options say, with the defaults filled in.
func factsOf(c Options) (Facts, error) {
	identity, group, err := c.Facts()
	if err != nil {
		return Facts{}, err
	}
	facts := Facts{Identity: identity, Places: []string{identity}, Group: group}
	if s, ok := c.(Spread); ok {
		facts.Places = s.Places()
	}
	if f, ok := c.(Final); ok {
		facts.NoUndo = f.NoUndo()
	}
	if o, ok := c.(Settler); ok {
		facts.OnNode = o.OnNode()
	}
	if o, ok := c.(Reacher); ok {
		facts.OnReaders = o.OnReaders()
	}
	facts.Options, err = json.Marshal(c)
	return facts, err
}

// Check reads options (JSON) strictly over the kind's defaults, and holds the names
// of the secrets that are given to those that the kind has.
func (k Kind) Check(options []byte, secrets ...string) (Facts, error) {
	for _, s := range k.Secrets {
		if !s.Optional && !slices.Contains(secrets, s.Name) {
			return Facts{}, &FieldError{Problem: "the secret " + s.Name + " is missing: " + s.Doc, Hint: "set it with `certfarm secret set NAME` and write secrets: {" + s.Name + ": {secret: NAME}}"}
		}
	}
	return k.check(options)
}

// Places are the physical places of options that Check has found right.
func (k Kind) Places(options []byte) []string {
	f, _ := k.check(options) // they were found right
	return f.Places
}

// NoUndo reports that options that Check has found right make a target that cannot
// go back.
func (k Kind) NoUndo(options []byte) bool {
	f, _ := k.check(options) // they were found right
	return f.NoUndo
}

// OnNode reports that options that Check has found right put the target on its nodes,
// although the kind is Nodeless.
func (k Kind) OnNode(options []byte) bool {
	f, _ := k.check(options) // they were found right
	return f.OnNode
}

// OnReaders reports that with options that Check has found right the nodes that read the
// target are worked on, too.
func (k Kind) OnReaders(options []byte) bool {
	f, _ := k.check(options) // they were found right
	return f.OnReaders
}

// Kinds is a set of kinds by name.
type Kinds map[string]Kind

// NewKinds collects kinds; two of one name are a mistake in the program.
func NewKinds(kinds ...Kind) Kinds {
	set := Kinds{}
	for _, k := range kinds {
		if _, taken := set[k.Name]; taken {
			panic("deploy: two kinds named " + k.Name)
		}
		set[k.Name] = k
	}
	return set
}

// Open makes the deployer for a target of the named kind.
func (ks Kinds) Open(kind string, options []byte, s Setup) (Deployer, error) {
	k, ok := ks[kind]
	if !ok {
		return nil, fmt.Errorf("no target kind %q; there are %s", kind, strings.Join(ks.Names(), ", "))
	}
	return k.open(options, s)
}

// Names lists the kinds in order.
func (ks Kinds) Names() []string {
	var names []string
	for n := range ks {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// Fields names the kind's options as farm.yaml has them, for suggestions.
func (k Kind) Fields() []string {
	var names []string
	for _, f := range reflect.VisibleFields(reflect.TypeOf(k.Options).Elem()) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			names = append(names, name)
		}
	}
	return names
}

// Option tells which option is wrong, how, and what to do.
func (e *FieldError) Option() (field, problem, hint string) { return e.Field, e.Problem, e.Hint }
