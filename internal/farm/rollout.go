package farm

import "time"

// A Rollout brings a site's targets from what they hold to what they should
// hold, under a copied Policy, as one transaction.
type Rollout struct {
	ID      string
	Farm    string
	Site    string
	Reason  string // renewal, new site, heal, retry, undo …
	Policy  Policy
	To      VersionFacts // what the rollout moves to
	Changed bool         // the shape changes: canary and soak even without policy
	Forward bool         // never goes back: the old key is compromised
	Waves   []Wave
	Steps   []Step // in the order of the waves

	Paused     bool
	Abort      string // why a person or a newer version ends it; empty: nobody does
	Back       string // why it goes back; set once, and then it does not turn round again
	Superseded bool   // a newer version waits: stop, leave what is live
	Created    time.Time
	Ended      time.Time
	Outcome    Outcome
	Why        string // of the outcome, naming the nodes
}

// VersionFacts is what deciding needs to know of a version.
type VersionFacts struct {
	ID        string
	NotBefore time.Time
	NotAfter  time.Time
	State     VersionState
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
	Name     string
	Approve  bool // a person must assent before it begins
	Approved string
}

// A Step is one target's progress through a rollout. From and To are the step's
// own: nodes drift, and a late target comes from further back.
//
//	planned → staged → active → verified        the way forward
//	      └────┴──────────┴────────┴→ undoing → restored | stuck
//	      └→ absent   silent at its serving address too
//	      └→ failed   a fault; the node is dealt with by itself or all go back
type Step struct {
	Target  string
	Group   string // the reload group
	Wave    int
	From    []VersionFacts // what was live at the start; empty: nothing
	To      []string       // ids of versions
	State   State
	Fault   Fault         // set once, by what went wrong
	Doing   Verb          // the act in flight; empty: none
	Attempt int           // number of the act in flight or of the last; answers to another are ignored
	Tries   int           // failures of the same verb in a row
	Did     Verb          // the last act that was answered
	Touched bool          // an activation was begun: what is live may have changed
	Receipt []byte        // what Stage returned; opaque to everyone but the deployer
	NoUndo  bool          // the target cannot go back (said by Stage)
	Lag     time.Duration // how long readers may take to see it (said by Stage)
	Error   string        // the last failure

	Again     time.Time // the next act may not begin before
	Activated time.Time // when it went live
	Verified  time.Time // when it was first seen serving To
	Seen      time.Time // when it was last seen serving To
	Failing   time.Time // since when the current verb fails; zero: the last answer was good
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
	Rollout string
	Target  string
	Do      Verb
	Attempt int

	Receipt []byte        `json:",omitempty"` // of a Stage that succeeded
	NoUndo  bool          `json:",omitempty"`
	Lag     time.Duration `json:",omitempty"`
	Sights  []Sight       `json:",omitempty"` // what was seen, for verify and restore
	Error   string        `json:",omitempty"` // empty: it worked
	Fault   Fault         `json:",omitempty"` // of the error; empty with an error: a node fault
	Silent  bool          `json:",omitempty"` // unreachable, and no endpoint answers either
	Final   bool          `json:",omitempty"` // trying again will not mend it
}

// A Sight is what one endpoint was seen to serve.
type Sight struct {
	Endpoint    Endpoint
	Target      string
	At          time.Time
	Answered    bool     // a TLS handshake was completed
	Fingerprint []string // leaves seen, one for each sort of key that was asked for
	NotSeen     []string // leaves that could not be asked for, with why
	Names       []string
	NotAfter    time.Time
	Chain       []byte  // PEM as served
	Trusted     bool    // the chain leads to the issuer's roots and the name matches
	Distrust    string  // why it is not trusted
	Samples     int     // handshakes that agreed
	Confidence  float64 // that no worker serves another leaf, 0 to 1
	Error       string  // why nothing was seen
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
