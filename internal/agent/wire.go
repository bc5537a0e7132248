package agent

import (
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// The routes of the agents' door. All are under TLS; all but the first need the
// agent's certificate.
const (
	PathJoin    = "/agent/v1/join"
	PathRenew   = "/agent/v1/renew"
	PathCalls   = "/agent/v1/calls" // with /ID behind it: the answer to one
	PathDesired = "/agent/v1/desired"
)

// A Join is what an agent sends to join; its key is in the signing request.
type Join struct {
	Digest  string `json:"digest"`         // SHA-256 of the token's secret, hex
	Node    string `json:"node,omitempty"` // what it is called there, if it knows
	CSR     []byte `json:"csr"`            // PKCS #10 DER
	Version string `json:"version,omitempty"`
	Learns  bool   `json:"learns,omitempty"` // it keeps the pins that come back
}

// A Renew asks for a new certificate for the same key.
type Renew struct {
	CSR    []byte `json:"csr"`
	Learns bool   `json:"learns,omitempty"` // as in Join
}

// A Joined is the answer to both.
type Joined struct {
	Farm  string    `json:"farm"`
	Node  string    `json:"node"`
	Chain []byte    `json:"chain"` // PEM, the agents' CA at its end
	Until time.Time `json:"until"`
	Pins  []string  `json:"pins,omitempty"` // SHA-256 of the public keys of the CAs by which the controllers are known from now on
}

// A Poll asks for calls, and waits until there are some.
type Poll struct {
	Session string    `json:"session"` // of this process, by chance
	Count   int64     `json:"count"`   // one more each time
	Version string    `json:"version,omitempty"`
	At      time.Time `json:"at,omitzero"`    // by its own clock
	Have    []string  `json:"have,omitempty"` // calls that it has and whose answer was not taken yet
}

// Calls are what is to be done: each is one that remote.Open reads.
type Calls struct {
	Calls []json.RawMessage `json:"calls"`
}

// A Wish is what one target of the node should serve.
type Wish struct {
	Target    string          `json:"target"`
	Endpoints []farm.Endpoint `json:"endpoints,omitempty"`
	Names     []string        `json:"names,omitempty"`
	Sets      [][]farm.Leaf   `json:"sets,omitempty"` // one of them, whole; none: nothing was brought to it yet
}

// Desired is what the node should serve.
type Desired struct {
	Targets []Wish `json:"targets"`
}

// A Refused is why the door turned an agent away.
type Refused struct {
	Kind string `json:"kind"`
	Why  string `json:"why"`
}

// The kinds of refusals beside those of controller.Turned, whose words are the same.
const (
	KindUnknown = "unknown" // join anew
	KindExpired = "expired" // renew the certificate first
	KindAway    = "away"    // banned, or in quarantine
	KindToken   = "token"   // the token is not good
	KindGone    = "gone"    // nobody waits for this answer
	KindWrong   = "wrong"   // the request is not as it should be
	KindBusy    = "busy"    // too many ask: later
	KindFailed  = "failed"  // something went wrong at the controller
)

// Error says why.
func (r *Refused) Error() string { return r.Why }

// refusedAs reports that an error is a refusal of one of the kinds.
func refusedAs(err error, kinds ...string) bool {
	r, ok := errors.AsType[*Refused](err)
	return ok && slices.Contains(kinds, r.Kind)
}
