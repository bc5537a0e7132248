package farm

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"
)

// A Rollout brings a site's targets from what they hold to what they should
// hold, under a copied Policy, as one transaction.
type Rollout struct {
	ID      string       `json:"id,omitzero"`
	Farm    string       `json:"farm,omitzero"`
	Site    string       `json:"site,omitzero"`
	Reason  string       `json:"reason,omitzero"` // renewal, new site, heal, retry, undo …
	Policy  Policy       `json:"policy,omitzero"`
	To      VersionFacts `json:"to,omitzero"`     // what the rollout moves to
	Changed bool         `json:"changed"`         // the shape changes: canary and soak even without policy
	Forward bool         `json:"forward"`         // never goes back: the old key is compromised
	Assent  []string     `json:"assent,omitzero"` // fingerprints of valid certificates that are not ours, and that a person assented to replace
	Waves   []Wave       `json:"waves,omitzero"`
	Steps   []Step       `json:"steps,omitzero"` // in the order of the waves

	Paused     bool      `json:"paused"`
	Abort      string    `json:"abort,omitzero"` // why a person or a newer version ends it; empty: nobody does
	Back       string    `json:"back,omitzero"`  // why it goes back; set once, and then it does not turn round again
	Superseded bool      `json:"superseded"`     // a newer version waits: stop, leave what is live
	Created    time.Time `json:"created,omitzero"`
	Ended      time.Time `json:"ended,omitzero"`
	Outcome    Outcome   `json:"outcome,omitzero"`
	Why        string    `json:"why,omitzero"` // of the outcome, naming the nodes
}

// TraceID is the id of a rollout's trace, made of the rollout's own so that nobody need
// remember it: 16 bytes in hex (W3C Trace Context §3.2.2.3).
func TraceID(rollout string) string {
	sum := sha256.Sum256([]byte("trace of " + rollout))
	return hex.EncodeToString(sum[:16])
}

// Shown is the rollout as people may see it: without the deployers' own notes.
func (r Rollout) Shown() Rollout {
	r.Steps = slices.Clone(r.Steps)
	for i := range r.Steps {
		r.Steps[i].Receipt = nil
	}
	return r
}

// VersionFacts is what deciding needs to know of a version.
type VersionFacts struct {
	ID        string       `json:"id,omitzero"`
	NotBefore time.Time    `json:"not_before,omitzero"`
	NotAfter  time.Time    `json:"not_after,omitzero"`
	State     VersionState `json:"state,omitzero"`
}

// Life returns the part of the version's life that is left, from 1 to 0.
func (v VersionFacts) Life(now time.Time) float64 {
	whole := v.NotAfter.Sub(v.NotBefore)
	if v.ID == "" || whole <= 0 {
		return 0
	}
	return min(1, max(0, float64(v.NotAfter.Sub(now))/float64(whole)))
}

// A Wave is a set of targets that are changed together.
type Wave struct {
	Name      string `json:"name,omitzero"`
	Approve   bool   `json:"approve"`            // a person must assent before it begins
	Approved  string `json:"approved,omitzero"`  // who did
	Inherited bool   `json:"inherited,omitzero"` // to another member's rollout
}

// A Step is one target's progress through a rollout. From and To are the step's
// own: nodes drift, and a late target comes from further back.
//
//	planned → staged → active → verified        the way forward
//	      └────┴──────────┴────────┴→ undoing → restored | stuck
//	      └→ absent   silent at its serving address too
//	      └→ failed   a fault; the node is dealt with by itself or all go back
//	      └→ left     somebody's valid certificate is there
//	      └→ gone     taken out of farm.yaml meanwhile
type Step struct {
	Target  string         `json:"target,omitzero"`
	Group   string         `json:"group,omitzero"` // the reload group
	Wave    int            `json:"wave"`
	From    []VersionFacts `json:"from,omitzero"` // what was live at the start; empty: nothing
	To      []string       `json:"to,omitzero"`   // ids of versions
	State   State          `json:"state,omitzero"`
	Fault   Fault          `json:"fault,omitzero"`   // set once, by what went wrong
	Doing   Verb           `json:"doing,omitzero"`   // the act in flight; empty: none
	Attempt int            `json:"attempt"`          // number of the act in flight or of the last; answers to another are ignored
	Tries   int            `json:"tries"`            // failures of the same verb in a row
	Did     Verb           `json:"did,omitzero"`     // the last act that was answered
	Touched bool           `json:"touched"`          // an activation was begun: what is live may have changed
	Receipt []byte         `json:"receipt,omitzero"` // what Stage returned; opaque to everyone but the deployer
	Leave   State          `json:"leave,omitzero"`   // left or gone: ends so once what was staged is taken away; empty: it takes part
	NoUndo  bool           `json:"no_undo"`          // the target cannot go back (said by Stage)
	Lag     time.Duration  `json:"lag"`              // how long readers may take to see it (said by Stage)
	Error   string         `json:"error,omitzero"`   // the last failure; of a step with a fault, what was at fault
	Lost    bool           `json:"lost,omitzero"`    // the fault is that the node could not be reached

	Again     time.Time `json:"again,omitzero"`     // the next act may not begin before
	Staged    time.Time `json:"staged,omitzero"`    // when Stage was done, and what is live was looked at
	Activated time.Time `json:"activated,omitzero"` // when it went live
	Verified  time.Time `json:"verified,omitzero"`  // when it was first seen serving To
	Seen      time.Time `json:"seen,omitzero"`      // when it was last seen serving To
	Failing   time.Time `json:"failing,omitzero"`   // since when the current verb fails; zero: the last answer was good
}

// A State says how far a step has come.
type State string

// The states of a step.
const (
	Planned  State = "planned"
	Staged   State = "staged"
	Active   State = "active"
	Verified State = "verified"
	Absent   State = "absent"   // cannot be reached and serves nothing; brought up to date when it is back
	Failed   State = "failed"   // a fault; nothing of ours is left to undo on it, or undoing has not begun
	Restored State = "restored" // back to what it had
	Stuck    State = "stuck"    // could not be put back; its own job goes on trying
	Left     State = "left"     // serves a valid certificate that is not ours: nothing is changed before a person assents
	Gone     State = "gone"     // taken out of farm.yaml while the rollout ran: nothing is changed any more
)

// Fault says who is to blame when a step fails.
type Fault string

// The two kinds of fault.
const (
	NoFault      Fault = ""
	NodeFault    Fault = "node"    // down, hung, disk, reload refused: concerns one node
	VersionFault Fault = "version" // served but untrusted, wrong names, wrong chain: undo all at once
)

// A Verb is an act on targets.
type Verb string

// The acts. Discard takes away what was staged and never touches what is live;
// Restore brings back what was live, and reloads.
const (
	DoStage    Verb = "stage"
	DoActivate Verb = "activate"
	DoVerify   Verb = "verify"
	DoRestore  Verb = "restore"
	DoDiscard  Verb = "discard"
)

// An Answer is what came of one act on one target.
type Answer struct {
	Rollout string `json:"rollout,omitzero"`
	Target  string `json:"target,omitzero"`
	Do      Verb   `json:"do,omitzero"`
	Attempt int    `json:"attempt"`

	Receipt []byte        `json:"receipt,omitzero"` // of a Stage that succeeded
	NoUndo  bool          `json:"no_undo"`
	Lag     time.Duration `json:"lag"`
	Sights  []Sight       `json:"sights,omitzero"` // what was seen, for verify and restore
	Error   string        `json:"error,omitzero"`  // empty: it worked
	Fault   Fault         `json:"fault,omitzero"`  // of the error; empty with an error: a node fault
	Silent  bool          `json:"silent"`          // unreachable, and no endpoint answers either
	Lost    bool          `json:"lost,omitzero"`   // the node could not be reached for deployment
	Leave   bool          `json:"leave,omitzero"`  // a valid certificate that is not ours is live, and nobody assented to replace it; nothing was changed
	Final   bool          `json:"final"`           // trying again will not mend it
}

// A Sight is what one endpoint was seen to serve.
type Sight struct {
	Endpoint    Endpoint  `json:"endpoint,omitzero"`
	Target      string    `json:"target,omitzero"`
	At          time.Time `json:"at,omitzero"`
	Answered    bool      `json:"answered"`             // a TLS handshake was completed
	Away        bool      `json:"away,omitzero"`        // nobody took a connection: the machine is switched off, or nothing listens there
	Fingerprint []string  `json:"fingerprint,omitzero"` // leaves seen, one for each sort of key that was asked for
	NotSeen     []string  `json:"not_seen,omitzero"`    // leaves that could not be asked for, with why
	Names       []string  `json:"names,omitzero"`
	NotAfter    time.Time `json:"not_after,omitzero"`
	Chain       []byte    `json:"chain,omitzero"`    // PEM as served
	Trusted     bool      `json:"trusted"`           // the chain leads to the issuer's roots and the name matches
	Distrust    string    `json:"distrust,omitzero"` // why it is not trusted
	Samples     int       `json:"samples"`           // handshakes that agreed
	Confidence  float64   `json:"confidence"`        // that no worker serves another leaf, 0 to 1
	Error       string    `json:"error,omitzero"`    // why nothing was seen
}

// An Outcome is how a rollout ended; it is empty while it runs.
type Outcome string

// The outcomes.
const (
	Running        Outcome = ""
	Done           Outcome = "done"            // every target verified
	DonePartly     Outcome = "done-partly"     // some absent or put back within the budget, all others verified
	RolledBack     Outcome = "restored"        // all put back
	RolledBackPart Outcome = "partly-restored" // some are stuck
	Superseded     Outcome = "superseded"      // a newer version took over
	Halted         Outcome = "halted"          // could not go on, and there was no way back
)
