package remote

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
)

// The bounds of what goes over a line.
const (
	MaxCall    = 8 << 20   // bytes of a sealed call: a thousand receipts are two MiB
	MaxAnswer  = 60 << 10  // bytes of a sealed answer: what host.Runner keeps of an output is 64 KiB
	MaxWork    = time.Hour // the longest deadline of a call
	maxBundles = 16
	maxList    = 4096 // receipts, names or keys
	maxWord    = 1024 // bytes of an id, a name or a lane
	maxError   = 4096 // bytes of an answer's error
)

// verbs lists every verb.
var verbs = []Verb{DoInspect, DoStage, DoActivate, DoRestore, DoDiscard, DoRequest, DoForget}

// keyName is how a key that a node holds is known: SHA-256 of its SPKI, hex.
var keyName = regexp.MustCompile(`^[0-9a-f]{64}$`)

// line is a call as it goes over a line.
type line struct {
	Call
	Secrets map[string][]byte `json:"secrets,omitempty"`
	Stage   *load             `json:"stage,omitempty"`
}

// load is a deploy.Stage with its keys.
type load struct {
	Site    string   `json:"site,omitempty"`
	Names   []string `json:"names,omitempty"`
	Epoch   int64    `json:"epoch,omitzero"`
	Tested  bool     `json:"tested,omitempty"`
	Bundles []bundle `json:"bundles,omitempty"`
}

type bundle struct {
	Version string       `json:"version,omitempty"`
	Leaf    string       `json:"leaf,omitempty"`
	KeyType farm.KeyType `json:"key_type,omitempty"`
	Names   []string     `json:"names,omitempty"`
	Chain   []byte       `json:"chain"`
	Key     []byte       `json:"key,omitempty"`
}

// Seal is a call as it goes over a line: JSON that does hold keys and secrets. It
// goes nowhere but into TLS or SSH, and is never written down.
func Seal(c Call) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	l := line{Call: c}
	if len(c.Secrets) > 0 {
		l.Secrets = map[string][]byte{}
	}
	for name, s := range c.Secrets {
		l.Secrets[name] = reveal(s)
	}
	if c.Do == DoStage {
		l.Stage = &load{Site: c.Stage.Site, Names: c.Stage.Names, Epoch: c.Stage.Epoch, Tested: c.Stage.Tested}
		for _, b := range c.Stage.Bundles {
			l.Stage.Bundles = append(l.Stage.Bundles, bundle{b.Version, b.Leaf, b.KeyType, b.Names, b.Chain, reveal(b.Key)})
		}
	}
	text, err := json.Marshal(l)
	if err == nil && len(text) > MaxCall {
		err = fmt.Errorf("it has %d bytes, and %d at most may be sent at once", len(text), MaxCall)
	}
	if err != nil {
		return nil, fmt.Errorf("a call to node %s: %w", c.Node, err)
	}
	return text, nil
}

// reveal is where a secret leaves its wrapping to go to a node.
func reveal(s farm.Secret) []byte { return s.Reveal() }

// Open reads a sealed call, strictly: what is not known is refused, since a node
// must not do a part of what was meant. No error holds anything of what it read.
func Open(text []byte) (Call, error) {
	var l line
	if err := decode(text, &l); err != nil {
		return Call{}, err
	}
	c := l.Call
	for name, s := range l.Secrets {
		if c.Secrets == nil {
			c.Secrets = map[string]farm.Secret{}
		}
		c.Secrets[name] = farm.NewSecret(s)
	}
	if (l.Stage != nil) != (c.Do == DoStage) {
		return Call{}, errors.New("a call: what to stage stands beside another verb, or is missing")
	}
	if l.Stage != nil {
		c.Stage = deploy.Stage{Site: l.Stage.Site, Names: l.Stage.Names, Epoch: l.Stage.Epoch, Tested: l.Stage.Tested}
		for _, b := range l.Stage.Bundles {
			c.Stage.Bundles = append(c.Stage.Bundles, farm.Bundle{
				Version: b.Version, Leaf: b.Leaf, KeyType: b.KeyType, Names: b.Names, Chain: b.Chain, Key: farm.NewSecret(b.Key),
			})
		}
	}
	return c, c.check()
}

func decode(text []byte, l *line) error {
	if len(text) > MaxCall {
		return fmt.Errorf("a call: it has more than %d bytes", MaxCall)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(l); err != nil {
		return fmt.Errorf("a call: it is not JSON, or has fields that this version does not know%s", field(err))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("a call: something stands after it")
	}
	return nil
}

// field is the name that the decoder took amiss. The rest of its error may hold a
// piece of what it read.
func field(err error) string {
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok && len(name) < 50 {
		return ": " + name
	}
	return ""
}

// check holds a call to what one can be.
func (c Call) check() error {
	switch {
	case !slices.Contains(verbs, c.Do):
		return fmt.Errorf("a call: no verb %.40q", c.Do)
	case c.ID == "" || c.Node == "":
		return errors.New("a call: it names no id or no node")
	case c.Deadline <= 0 || c.Deadline > MaxWork:
		return fmt.Errorf("a call: its deadline is not between nothing and %s", MaxWork)
	}
	return errors.Join(c.checkVerb(), c.checkWords(), c.checkLists())
}

// checkVerb asks for what the verb needs.
func (c Call) checkVerb() error {
	if c.Do.Changes() && (c.Lane == "" || c.Lease.Epoch <= 0 || c.Lease.Nonce == "") {
		return errors.New("a call: it changes something and has no lease")
	}
	switch c.Do {
	case DoActivate, DoRestore, DoDiscard:
		if len(c.Receipts) == 0 {
			return fmt.Errorf("a call: %s without a receipt", c.Do)
		}
	case DoStage:
		if len(c.Stage.Bundles) == 0 {
			return errors.New("a call: stage without a certificate")
		}
	case DoInspect, DoRequest, DoForget:
	}
	return nil
}

func (c Call) checkWords() error {
	for _, w := range []string{c.ID, c.Farm, c.Node, c.Lane, c.Target, c.Kind, string(c.KeyType), c.Lease.Owner, c.Lease.Nonce, c.Lease.Rollout} {
		if len(w) > maxWord || strings.ContainsFunc(w, unicode.IsControl) {
			return errors.New("a call: an id or a name is too long, or holds control characters")
		}
	}
	return nil
}

func (c Call) checkLists() error {
	if n := max(len(c.Receipts), len(c.Names), len(c.Keys), len(c.Secrets), len(c.Stage.Names)); n > maxList {
		return fmt.Errorf("a call: a list has %d entries, and %d at most are taken", n, maxList)
	}
	if n := len(c.Stage.Bundles); n > maxBundles {
		return fmt.Errorf("a call: %d leaves; %d at most are taken", n, maxBundles)
	}
	for _, k := range c.Keys {
		if !keyName.MatchString(k) {
			return errors.New("a call: a key is named by the SHA-256 of its public key, in hex")
		}
	}
	return nil
}

// SealAnswer is an answer as it goes over a line. A long error is cut.
func SealAnswer(a Answer) ([]byte, error) {
	if len(a.Error) > maxError {
		a.Error = strings.ToValidUTF8(a.Error[:maxError], "") + " …"
	}
	text, err := json.Marshal(a)
	if err == nil && len(text) > MaxAnswer {
		err = fmt.Errorf("it has %d bytes, and %d at most may be sent", len(text), MaxAnswer)
	}
	if err != nil {
		return nil, fmt.Errorf("an answer: %w", err)
	}
	return text, nil
}

// OpenAnswer reads an answer. What it has beside what is known here is of a newer
// node, and left out.
func OpenAnswer(text []byte) (a Answer, err error) {
	if len(text) > MaxAnswer {
		return a, fmt.Errorf("an answer: it has more than %d bytes", MaxAnswer)
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return Answer{}, errors.New("an answer: it is not one")
	}
	return a, nil
}
