package farm

import "time"

// A Revocation is the wish that the leaves of a version are revoked (RFC 8555
// §7.6), and how far it came. What became of each leaf stands with the leaf.
type Revocation struct {
	Reason int       `json:"reason"` // RFC 5280 §5.3.1
	By     string    `json:"by,omitzero"`
	Asked  time.Time `json:"asked,omitzero"`
	Error  string    `json:"error,omitzero"` // the last failure, of a leaf that is tried again
	Again  time.Time `json:"again,omitzero"` // and when
}

// A Compromise is a site's journey away from keys that others know: a new key
// everywhere, the old leaves revoked, the old keys erased. It never goes back.
//
//	replacing → revoking → erasing → ended
//	    └ Now: revoked at once, before the new key is everywhere
type Compromise struct {
	By     string          `json:"by,omitzero"`
	Reason string          `json:"reason,omitzero"` // in the words of who said it
	Asked  time.Time       `json:"asked,omitzero"`
	Now    bool            `json:"now"` // revoke at once, whatever is served
	Stage  CompromiseStage `json:"stage,omitzero"`
	Waits  string          `json:"waits,omitzero"` // what it waits for, in words; empty: for its own work
	Ended  time.Time       `json:"ended,omitzero"`
}

// Open reports that the journey is under way.
func (c *Compromise) Open() bool { return c != nil && c.Ended.IsZero() }

// CompromiseStage is how far a journey away from a compromised key has come.
type CompromiseStage string

// The stages.
const (
	Replacing CompromiseStage = "replacing" // until no endpoint serves an old leaf
	Revoking  CompromiseStage = "revoking"  // until the CA has revoked the old leaves
	Erasing   CompromiseStage = "erasing"   // until the old keys are gone, here and on the nodes
)
