package dnspersist

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lookup"
)

// A Sight is what is seen of the record of a name.
type Sight struct {
	Path    []string  // from _validation-persist.NAME over what each CNAME leads to
	Found   bool      // there is a record for one of the CA's domains, right or wrong
	Matches bool      // every name server that answers has one that is right
	Until   time.Time // when the first of those ends; zero: it does not
	Saw     []string  // the values, as a zone file has them, of all servers
	Problem string    // what is wrong, and what to set; empty where it matches
}

// errLame is of a server that is said to have a zone, and does not.
var errLame = errors.New("it does not have the zone")

// Check looks for the record that a challenge asks for (its Name, Issuers, Account
// and Wildcard) at every name server of its zone. A record that is not right is no
// error; that none of the servers answers is.
func Check(ctx context.Context, c lookup.Client, want farm.Challenge, now time.Time) (Sight, error) {
	set, err := wanted(want)
	if err != nil {
		return Sight{}, err
	}
	at, err := c.Follow(ctx, set.Name)
	if err != nil {
		return Sight{Path: at.Path}, fmt.Errorf("look for the record %s: %w", set.Name, err)
	}
	s := Sight{Path: at.Path}
	answered := false
	for _, r := range c.Each(ctx, at.Servers, lookup.Question{Name: at.Name, Type: dns.TypeTXT}) {
		if r.Err == nil && (r.Answer.Authority || r.Server.Host == "") {
			s.add(r, lookup.Texts(r.Answer.Records, at.Name), judgement{want, now}, !answered)
			answered = true
		} else {
			err = cmp.Or(r.Err, err, errLame)
		}
	}
	if !answered {
		return s, fmt.Errorf("look for the record %s: no name server of %s answers: %w", set.Name, at.Zone, err)
	}
	if !s.Matches {
		s.Problem += "; set: " + set.String()
	}
	slices.Sort(s.Saw)
	s.Saw = slices.Compact(s.Saw)
	return s, nil
}

// wanted is the record that a person is told to set.
func wanted(c farm.Challenge) (Record, error) {
	if len(c.Issuers) == 0 {
		return Record{}, fmt.Errorf("prove %s: the CA does not say for which domain its record is", c.Name)
	}
	return Grant{Issuer: c.Issuers[0], Account: c.Account, Wildcard: c.Wildcard}.Record(strings.TrimPrefix(c.Name, "*."))
}

// add takes in what one server has.
func (s *Sight) add(r lookup.Reply, values []string, j judgement, first bool) {
	found, until, wrong := j.of(values)
	s.Saw = append(s.Saw, values...)
	s.Found = s.Found || found
	if wrong != "" {
		if s.Problem == "" {
			s.Problem = wrong + ", says " + r.Server.String()
		}
		s.Matches, s.Until = false, time.Time{}
		return
	}
	if first || (s.Matches && sooner(until, s.Until)) {
		s.Matches, s.Until = true, until
	}
}

// A judgement is what a record is held against.
type judgement struct {
	want farm.Challenge
	now  time.Time
}

// of judges the values at a name as Pebble does: one that is right will do,
// whatever else is there. Until is the last end of those that are right.
func (j judgement) of(values []string) (found bool, until time.Time, wrong string) {
	wrong, right := "there is no record for "+strings.Join(j.want.Issuers, " or "), false
	for _, v := range values {
		issuer, _, _ := strings.Cut(v, ";")
		if !slices.Contains(j.want.Issuers, trim(issuer)) {
			continue
		}
		found = true
		g, err := Parse(v)
		switch {
		case err != nil:
			wrong = fmt.Sprintf("the record %.200q cannot be read: %v", v, err)
		case g.Account != j.want.Account:
			wrong = fmt.Sprintf("the record is for the account %.200s, ours is %s", g.Account, j.want.Account)
		case j.want.Wildcard && !g.Wildcard:
			wrong = "the record does not say policy=wildcard"
		case !g.Until.IsZero() && j.now.After(g.Until):
			wrong = "the record ended on " + g.Until.Format(time.DateTime) + " UTC"
		case !right || sooner(until, g.Until):
			right, until = true, g.Until
		}
	}
	if right {
		wrong = ""
	}
	return found, until, wrong
}

// sooner reports whether one end comes before another; the zero time never comes.
func sooner(one, other time.Time) bool {
	return !one.IsZero() && (other.IsZero() || one.Before(other))
}

// Urgency is how soon a record must be renewed.
type Urgency string

// The urgencies, and how long before the end each begins.
const (
	Calm  Urgency = ""
	Soon  Urgency = "soon"  // 30 days
	Now   Urgency = "now"   // 7 days
	Ended Urgency = "ended" // at the end
)

// Warning says how urgent it is to renew a record that ends, and from when on it
// is more so: the zero time where it never is.
func Warning(until, now time.Time) (u Urgency, next time.Time) {
	if until.IsZero() {
		return Calm, time.Time{}
	}
	const day = 24 * time.Hour
	for _, step := range []struct {
		at time.Time
		u  Urgency
	}{{until.Add(-30 * day), Soon}, {until.Add(-7 * day), Now}, {until, Ended}} {
		if now.Before(step.at) {
			return u, step.at
		}
		u = step.u
	}
	return u, time.Time{}
}
