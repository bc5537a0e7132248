package renew

import (
	"fmt"
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
)

// An Exposure is what is known of a site whose keys others know.
type Exposure struct {
	Now      bool     // a person wants the old leaves revoked whatever is served
	Replaced bool     // all targets should hold another key, and nothing is on its way to them
	Lacking  []string // which should not yet

	Looked    bool     // its endpoints were asked just now
	Endpoints int      // how many there are
	Answered  int      // how many of them served anything at all
	Serving   []string // which served an old leaf

	Unasked  int      // old leaves that nobody was asked to revoke yet
	Revoking int      // old leaves that the CA was asked to revoke, and has not yet
	Keys     int      // old keys in the store
	Copies   []string // targets that have copies of old keys beside what is live
}

// A Flight is the next thing to do about a compromised key.
type Flight struct {
	Do    Deed
	Stage farm.CompromiseStage
	Why   string // what it waits for, for people
}

// A Deed is what is done next about a compromised key.
type Deed string

// The deeds.
const (
	Await  Deed = "await"  // nothing can be done before something else has happened
	Look   Deed = "look"   // ask every endpoint what it serves
	Revoke Deed = "revoke" // have the old leaves revoked
	Erase  Deed = "erase"  // erase the old keys that are stored
	Over   Deed = "over"   // it is done
)

// Flee says what is to be done next about a compromised key: first a new one
// everywhere, then the old leaves revoked, then the old keys erased. An old leaf is
// not revoked while any endpoint serves it, since that would take the site from
// its clients, unless a person says so. An endpoint that is silent serves nobody,
// and does not hold the revocation; where all are silent, it is more likely we who
// cannot see. The keys are kept until the leaves are revoked, for which a CA may
// want them.
func Flee(e Exposure) Flight {
	switch {
	case e.Now && e.Unasked > 0:
		return Flight{Do: Revoke, Stage: farm.Revoking}
	case !e.Replaced:
		return Flight{Await, farm.Replacing, "the new certificate is not at every target yet" + lacking(e.Lacking)}
	case e.Unasked > 0:
		return e.revoke()
	case e.Revoking > 0:
		return Flight{Await, farm.Revoking, "the CA has not revoked all old certificates yet"}
	case e.Keys > 0:
		return Flight{Do: Erase, Stage: farm.Erasing}
	case len(e.Copies) > 0:
		return Flight{Await, farm.Erasing, "copies of the old key are still on " + strings.Join(e.Copies, ", ")}
	}
	return Flight{Do: Over, Stage: farm.Erasing}
}

// mostNamed is how many targets are named before the rest is counted.
const mostNamed = 10

func lacking(names []string) string {
	switch more := len(names) - mostNamed; {
	case len(names) == 0:
		return ""
	case more > 0:
		return fmt.Sprintf(": %s and %d more", strings.Join(names[:mostNamed], ", "), more)
	}
	return ": " + strings.Join(names, ", ")
}

// revoke has the old leaves revoked once nobody is served one.
func (e Exposure) revoke() Flight {
	switch {
	case e.Endpoints > 0 && !e.Looked:
		return Flight{Do: Look, Stage: farm.Replacing}
	case len(e.Serving) > 0:
		return Flight{Await, farm.Replacing, "the old certificate is still served by " + strings.Join(e.Serving, ", ")}
	case e.Endpoints > 0 && e.Answered == 0:
		return Flight{Await, farm.Replacing, "no endpoint answers, so it cannot be told whether one serves the old certificate"}
	}
	return Flight{Do: Revoke, Stage: farm.Revoking}
}
