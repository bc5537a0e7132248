// Package remote is a deployer whose work is done on the node itself: by its agent,
// or by the receiver that is the forced command of the controller's SSH login there.
//
//	controller                                node
//	Deployer ── Call ──▶ agent or receiver ── policy, epoch ── the kind's own Deployer
//	         ◀── Answer ──
//
// What the node does is one Call: it is compared with the node's own policy and with
// the highest epoch that the node has seen, done, and answered, in one process. The
// controller never sends a command to run or a file to write.
package remote

import (
	"context"
	"errors"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
)

// A Verb is what a call asks for.
type Verb string

// The verbs: those of a deployer, and those of keys that never leave their node.
const (
	DoInspect  Verb = "inspect"
	DoStage    Verb = "stage"
	DoActivate Verb = "activate"
	DoRestore  Verb = "restore"
	DoDiscard  Verb = "discard"
	DoRequest  Verb = "request" // make a key and keep it; answer with a signing request for it
	DoForget   Verb = "forget"  // erase keys that DoRequest made
)

// Changes reports that the verb changes what is on the node, and so is fenced.
func (v Verb) Changes() bool { return v != DoInspect }

// A Call is one thing that a controller asks of a node. A call may come twice: one
// with an id that was answered is answered as it was then, and nothing is done.
type Call struct {
	ID       string        `json:"id"`
	Do       Verb          `json:"do"`
	Farm     string        `json:"farm"`
	Node     string        `json:"node"` // a node refuses a call for another
	Lease    deploy.Lease  `json:"lease,omitzero"`
	Lane     string        `json:"lane,omitempty"`   // what the lease is of: epochs are compared within it
	At       time.Time     `json:"at"`               // the controller's clock
	Deadline time.Duration `json:"deadline"`         // from when the node begins
	Target   string        `json:"target,omitempty"` // for people and the log
	Kind     string        `json:"kind,omitempty"`
	Options  []byte        `json:"options,omitempty"` // canonical JSON of the kind's options

	Secrets  map[string]farm.Secret `json:"-"` // by the kind's name for them; see Seal
	Stage    deploy.Stage           `json:"-"` // of DoStage; a bundle without a key is one whose key the node holds
	Receipts []deploy.Receipt       `json:"receipts,omitempty"`

	Names   []string     `json:"names,omitempty"`    // of DoRequest
	KeyType farm.KeyType `json:"key_type,omitempty"` // of DoRequest
	Keys    []string     `json:"keys,omitempty"`     // of DoForget: SHA-256 of their public keys (SPKI DER), hex
}

// An Answer is what came of a call.
type Answer struct {
	ID        string           `json:"id"`
	Installed deploy.Installed `json:"installed,omitzero"`
	Receipt   deploy.Receipt   `json:"receipt,omitzero"` // of DoStage
	CSR       []byte           `json:"csr,omitempty"`    // of DoRequest: DER (PKCS #10)
	Key       string           `json:"key,omitempty"`    // of DoRequest: SHA-256 of the public key
	Error     string           `json:"error,omitempty"`
	Class     Class            `json:"class,omitempty"` // of the error
	Epoch     int64            `json:"epoch,omitzero"`  // of Stale: the highest that the node has seen in the lane
	At        time.Time        `json:"at,omitzero"`     // when the node answered, by its own clock; an earlier Certfarm does not say
}

// A Class says what kind of error an answer has.
type Class string

// The classes of errors that callers tell apart.
const (
	Failed    Class = ""          // the deployer's own error
	FailedTry Class = "test"      // deploy.ErrTest: the server's own configuration does not pass
	Mismatch  Class = "mismatch"  // encode.ErrMismatch: a key is not its leaf's
	Denied    Class = "denied"    // the node's policy does not allow it; trying again will not mend it
	Stale     Class = "stale"     // a higher epoch was seen
	Unheard   Class = "unheard"   // the call is not one that the node understands
	NoKey     Class = "no-key"    // the node does not hold the key
	TooEarly  Class = "too-early" // the epoch lies more than a day past the node's clock
)

// The errors that callers tell apart; a Deployer's errors wrap them.
var (
	ErrDenied = errors.New("the node's own policy does not allow it")
	ErrStale  = errors.New("the node has seen a higher epoch")
)

// A Caller takes a call to its node and brings the answer. An error means that the
// node was not reached or did not answer in time, and wraps host.ErrUnreachable: the
// call may or may not have been done.
type Caller interface {
	Call(ctx context.Context, c Call) (Answer, error)
}

// An Answerer does what is called for, on the node.
type Answerer interface {
	Answer(ctx context.Context, c Call) Answer
}
