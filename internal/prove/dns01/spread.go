package dns01

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/lookup"
)

// A Sight is what one name server says of a TXT value.
type Sight struct {
	Server string // its name and address
	State  State
	Why    string // what it says instead, for people; empty where it has the value
}

// State is how far a value has come at one name server.
type State string

// The states.
const (
	Has     State = "has it"
	Lacks   State = "does not have it yet" // it answers for the zone, without the value
	Silent  State = "gives no answer"      // or none that says anything of the zone
	Outside State = "cannot be reached"    // there is no way to it from this machine, as without IPv6
)

// look asks all name servers of the zone at once, each with a question of its own.
func (s Solver) look(ctx context.Context, n note) ([]Sight, error) {
	servers, err := s.Lookup.Authorities(ctx, n.Zone)
	if err != nil {
		return nil, err
	}
	replies := s.Lookup.Each(ctx, servers, lookup.Question{Name: n.Name, Type: dns.TypeTXT})
	sights := make([]Sight, len(replies))
	for i, r := range replies {
		sights[i] = see(r, n)
	}
	return sights, ctx.Err()
}

// see judges one reply.
func see(r lookup.Reply, n note) Sight {
	sight := Sight{Server: r.Server.String(), State: Lacks}
	if r.Err != nil {
		sight.State, sight.Why = Silent, r.Err.Error()
		if errors.Is(r.Err, lookup.NoWay) {
			sight.State = Outside
		}
		return sight
	}
	others := lookup.Texts(r.Answer.Records, n.Name)
	to := r.Answer.Alias(n.Name)
	resolver := r.Server.Host == ""
	switch {
	case slices.Contains(others, n.Value):
		sight.State = Has
	case to != "":
		sight.Why = fmt.Sprintf("%s has a CNAME now, to %s", n.Name, to)
	case !r.Answer.Authority && !resolver:
		sight.State, sight.Why = Silent, fmt.Sprintf("it does not have the zone %s, although the zone's NS records name it", n.Zone)
	case !r.Answer.Exists():
		sight.Why = fmt.Sprintf("%s does not exist", n.Name)
	default:
		sight.Why = fmt.Sprintf("%s has %d other TXT values", n.Name, len(others))
	}
	return sight
}

// agreed reports whether a CA that asks any of the servers sees the value. A
// silent one counts until it was waited for long enough; one that cannot be
// reached from here does not count; one without the value always does.
func agreed(sights []Sight, waited, silence time.Duration) bool {
	has := false
	for _, s := range sights {
		switch {
		case s.State == Lacks, s.State == Silent && waited < silence:
			return false
		case s.State == Has:
			has = true
		}
	}
	return has
}

// shown is how many servers are named in one line.
const shown = 4

// Tell says in one line how far a value has come, for the message of an order.
func Tell(sights []Sight) string {
	has, answers := 0, 0
	var rest []string
	for _, s := range sights {
		if s.State == Has || s.State == Lacks {
			answers++
		}
		if s.State == Has {
			has++
			continue
		}
		line := s.Server + " " + string(s.State)
		if s.Why != "" {
			line += " (" + s.Why + ")"
		}
		rest = append(rest, line)
	}
	text := fmt.Sprintf("%d of %d name servers have the TXT value", has, len(sights))
	if len(rest) > 0 {
		text += ": " + strings.Join(rest[:min(len(rest), shown)], "; ")
	}
	if more := len(rest) - shown; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	if answers == 0 {
		text += "; open port 53 to them from the controller, or let its resolvers be asked instead"
	}
	return text
}
