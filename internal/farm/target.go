package farm

import "time"

// A Place is what the store keeps of a target: what it should hold, and what it
// was last seen to hold and to serve.
type Place struct {
	Target   Target    `json:"target,omitzero"`
	Farm     string    `json:"farm,omitzero"`
	Released bool      `json:"released"`         // gone from farm.yaml: left alone and listed until `retire`
	Desired  []string  `json:"desired,omitzero"` // ids of versions; only a rollout changes it
	Sights   []Sight   `json:"sights,omitzero"`  // the last look at each endpoint
	Looked   time.Time `json:"looked,omitzero"`  // when
	Reach    Reach     `json:"reach,omitzero"`   // whether the node answered last time
	Drift    string    `json:"drift,omitzero"`   // what is wrong with what it serves; empty: nothing
	Foreign  bool      `json:"foreign,omitzero"` // Drift is a valid certificate that is not ours: nothing is changed before a person assents
	Since    time.Time `json:"since,omitzero"`   // of Drift or Reach
	Late     string    `json:"late,omitzero"`    // id of the version it missed; brought there when it answers
	Tries    int       `json:"tries"`            // one-target rollouts that failed in a row
	Again    time.Time `json:"again,omitzero"`   // the next one may not begin before

	// Purge is since when copies of compromised keys beside what is live are to be
	// erased from the target; zero: there are none that we know of.
	Purge time.Time `json:"purge,omitzero"`
}

// Reach is whether a target answered when it was last asked.
type Reach string

// The values of Reach.
const (
	ReachUnknown Reach = ""
	ReachUp      Reach = "up"
	ReachHalf    Reach = "serves" // it serves, but cannot be reached for deployment
	ReachDown    Reach = "down"
)

// Standing is a place in one word, for lists and for the matrix. What needs a person,
// or time, comes before what is well.
type Standing string

// The standings.
const (
	InSync      Standing = "in-sync"     // it was last seen to serve what it should
	Drifted     Standing = "drifted"     // it serves something else, and is healed by itself
	Stranger    Standing = "foreign"     // it serves a valid certificate that is not ours: a person decides
	Behind      Standing = "late"        // it missed the newest version
	Unreachable Standing = "unreachable" // it serves, and cannot be reached for deployment
	Silent      Standing = "down"        // it answers nowhere
	Missing     Standing = "missing"     // it has no certificate yet
	Unseen      Standing = "unknown"     // nobody looked yet
	Released    Standing = "released"    // it is gone from farm.yaml, and left alone
)

// Standings lists them, what needs a person first.
var Standings = []Standing{Stranger, Silent, Drifted, Behind, Unreachable, Missing, Unseen, InSync, Released}

// Standing says how the place stands.
func (p Place) Standing() Standing {
	switch {
	case p.Released:
		return Released
	case len(p.Desired) == 0:
		return Missing
	case p.Reach == ReachDown:
		return Silent
	case p.Late != "":
		return Behind
	case p.Reach == ReachHalf:
		return Unreachable
	case p.Drift != "" && p.Foreign:
		return Stranger
	case p.Drift != "":
		return Drifted
	case p.Looked.IsZero():
		return Unseen
	}
	return InSync
}

// Serves is the fingerprint of the first leaf that the place was last seen to serve.
// Where endpoints differ, it is that of one which has not what the others have.
func (p Place) Serves() (leaf string) {
	for _, s := range p.Sights {
		if len(s.Fingerprint) == 0 {
			continue
		}
		if leaf != "" && s.Fingerprint[0] != leaf {
			return s.Fingerprint[0]
		}
		leaf = s.Fingerprint[0]
	}
	return leaf
}

// Trouble says in words what is wrong with a target; empty: nothing.
func (p Place) Trouble() string {
	switch {
	case p.Foreign && p.Drift != "":
		return p.Target.Name + ": " + p.Drift + "; it is left alone until `certfarm rollout approve " + p.Target.Site + "`"
	case p.Late != "" && p.Reach == ReachDown:
		return p.Target.Name + " is absent: it is brought up to date when it answers"
	case p.Late != "":
		return p.Target.Name + " is late: it missed the newest version"
	case p.Reach == ReachDown:
		return p.Target.Name + " answers nowhere"
	case p.Reach == ReachHalf:
		return p.Target.Name + " serves, but cannot be reached for deployment"
	case p.Drift != "":
		return p.Target.Name + ": " + p.Drift
	}
	return ""
}
