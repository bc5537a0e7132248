package rollout

import (
	"errors"
	"fmt"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// A Start is what a rollout begins with.
type Start struct {
	ID, Farm, Site string
	Reason         string
	Policy         farm.Policy
	To             farm.VersionFacts
	Targets        []Target
	Changed        bool // root, key type, EKU or names differ from what is served
	Forward        bool // the old key is compromised: never go back
	Now            time.Time
}

// A Target is a target with what is live on it.
type Target struct {
	farm.Target
	From []farm.VersionFacts
}

// ChangedSoak is the least soak of a changed shape, which gets a canary, too, even if
// the policy has none: clients may refuse what no client has seen before.
const ChangedSoak = time.Minute

// New lays out a rollout: the canary, the policy's waves, the rest, and last
// what cannot be undone. A site without targets, or a policy that lets nothing
// through, is refused.
func New(s Start) (farm.Rollout, error) {
	if len(s.Targets) == 0 {
		return farm.Rollout{}, fmt.Errorf("rollout of %s: no targets", s.Site)
	}
	if s.Policy.MaxParallel < 1 {
		return farm.Rollout{}, errors.New("rollout policy: max_parallel must be at least 1")
	}
	if s.Changed {
		s.Policy.Canary.Least = max(s.Policy.Canary.Least, 1)
		s.Policy.Soak = max(s.Policy.Soak, ChangedSoak)
	}
	r := farm.Rollout{
		ID: s.ID, Farm: s.Farm, Site: s.Site, Reason: s.Reason, Policy: s.Policy,
		To: s.To, Changed: s.Changed, Forward: s.Forward, Created: s.Now,
	}
	taken := make([]bool, len(s.Targets))
	add := func(w farm.Wave, most int, match func(Target) bool) {
		n := len(r.Steps)
		for i, t := range s.Targets {
			if taken[i] || len(r.Steps)-n >= most || !match(t) {
				continue
			}
			taken[i] = true
			r.Steps = append(r.Steps, farm.Step{
				Target: t.Name, Group: t.Node + "/" + t.Group, Wave: len(r.Waves),
				From: t.From, To: []string{s.To.ID}, State: farm.Planned,
			})
		}
		if len(r.Steps) > n {
			r.Waves = append(r.Waves, w)
		}
	}
	all, undoable := len(s.Targets), func(t Target) bool { return !t.LastWave }
	add(farm.Wave{Name: "canary"}, s.Policy.Canary.Of(all), undoable)
	for _, spec := range s.Policy.Waves {
		add(farm.Wave{Name: spec.Name, Approve: spec.Approve}, all, func(t Target) bool {
			return undoable(t) && Matches(spec.Match, t.Labels)
		})
	}
	add(farm.Wave{Name: "rest"}, all, undoable)
	add(farm.Wave{Name: "last"}, all, func(Target) bool { return true })
	return r, nil
}

// Matches reports that labels has all that want asks for.
func Matches(want, labels map[string]string) bool {
	for k, v := range want {
		if labels[k] != v {
			return false
		}
	}
	return true
}
