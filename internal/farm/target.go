package farm

import "time"

// A Place is what the store keeps of a target: what it should hold, and what it
// was last seen to hold and to serve.
type Place struct {
	Target   Target
	Farm     string
	Released bool      // gone from farm.yaml: left alone and listed until `retire`
	Desired  []string  // ids of versions; only a rollout changes it
	Sights   []Sight   // the last look at each endpoint
	Looked   time.Time // when
	Reach    Reach     // whether the node answered last time
	Drift    string    // what is wrong with what it serves; empty: nothing
	Since    time.Time // of Drift or Reach
	Late     string    // id of the version it missed; brought there when it answers
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
