package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// A TargetDetail is everything about a target.
type TargetDetail struct {
	TargetStatus
	About    string            `json:"about" doc:"what its kind is"`
	Fence    string            `json:"fence" enum:"fenced,conditional,unfenced," doc:"what keeps a stale controller out"`
	Audits   bool              `json:"audits" doc:"the place can be looked through: POST …/audit"`
	Places   []string          `json:"places,omitempty" doc:"every physical place that it writes to"`
	Group    string            `json:"group" doc:"what one reload or one share makes live together"`
	Options  map[string]any    `json:"options,omitempty" doc:"as its kind reads them, defaults filled in"`
	Secrets  map[string]string `json:"secrets,omitempty" doc:"where each of its secrets stands, never what it is"`
	Labels   map[string]string `json:"labels,omitempty"`
	Own      map[string]string `json:"own,omitempty" doc:"what of the policy is its own: window, deadline, lag"`
	LastWave bool              `json:"last_wave" doc:"it cannot go back, so it is changed last"`
	Readers  []string          `json:"readers,omitempty" doc:"the machines that see a change at the same moment; of a target that is no place on a node"`
	NotAfter time.Time         `json:"not_after,omitzero" doc:"of what it should serve"`
	Drift    string            `json:"drift,omitempty" doc:"what is wrong with what it serves"`
	Since    time.Time         `json:"since,omitzero" doc:"of the drift, or of its reach"`
	Late     bool              `json:"late" doc:"it missed the newest version, and is brought there when it answers"`
	Sights   []farm.Sight      `json:"sights" doc:"the last look at each endpoint"`
}

// Target tells everything about a target.
func (c *Controller) Target(ctx context.Context, farmName, name string) (t TargetDetail, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		p, err := tx.Place(ctx, farmName, name)
		if err != nil {
			return err
		}
		versions, err := versionsOf(ctx, tx, farmName, p.Target.Site)
		if err != nil {
			return err
		}
		if t, err = c.targetDetail(p, versions); err != nil || p.Target.Node == "" {
			return err
		}
		n, err := tx.Node(ctx, farmName, p.Target.Node)
		if errors.Is(err, store.ErrNotFound) {
			return nil // it is gone from farm.yaml, and the target with it
		}
		t.Fence = c.fenceOf(p.Target.Kind, n)
		return err
	})
	return t, err
}

func (c *Controller) targetDetail(p farm.Place, versions map[string]farm.Version) (TargetDetail, error) {
	kind := c.Kinds[p.Target.Kind] // none: its farm.yaml was read by a newer Certfarm
	t := TargetDetail{
		TargetStatus: targetStatus(p, versions), About: kind.Doc, Fence: kind.Fence, Audits: kind.Audits,
		Group: p.Target.Group, Labels: p.Target.Labels, Own: own(p.Target), LastWave: p.Target.LastWave, Readers: p.Target.Readers(),
		Drift: p.Drift, Since: p.Since, Late: p.Late != "", Sights: p.Sights, Secrets: map[string]string{},
	}
	if len(p.Target.Options) > 0 {
		if err := json.Unmarshal(p.Target.Options, &t.Options); err != nil {
			return t, fmt.Errorf("options of %s: %w", p.Target.Name, err)
		}
	}
	t.Places = c.placesOf(p.Target)
	for name, ref := range p.Target.Secrets {
		t.Secrets[name] = ref.String()
	}
	for _, id := range p.Desired {
		if end := versions[id].NotAfter(); t.NotAfter.IsZero() || end.Before(t.NotAfter) {
			t.NotAfter = end
		}
	}
	return t, nil
}

// own is what farm.yaml says of the target itself in place of its site's policy.
func own(t farm.Target) map[string]string {
	all := map[string]string{}
	var windows []string
	for _, w := range t.Windows {
		windows = append(windows, w.String())
	}
	if len(windows) > 0 {
		all["window"] = strings.Join(windows, "; ")
	}
	if t.AbsentMax != (farm.Share{}) {
		all["absent_max"] = t.AbsentMax.String()
	}
	for name, d := range map[string]time.Duration{"deadline": t.Deadline, "lag": t.Lag} {
		if d > 0 {
			all[name] = d.String()
		}
	}
	return all
}

// placesOf are the physical places of a target, as its kind says them.
func (c *Controller) placesOf(t farm.Target) []string {
	kind, known := c.Kinds[t.Kind]
	if !known {
		return nil
	}
	return kind.Places(t.Options)
}

// An Audit is what a look through the whole place of a target showed.
type Audit struct {
	Target   string        `json:"target"`
	At       time.Time     `json:"at"`
	Findings []deploy.Flaw `json:"findings" doc:"none: all is as it should be"`
}

// auditWithin bounds a look through a place: a share may hold thousands of files.
const auditWithin = 2 * time.Minute

// Audit looks through the whole place of a target now, also at what others left
// there. It changes and writes nothing. What the other targets of its reload group
// write, and the names of their sites, are known.
func (c *Controller) Audit(ctx context.Context, farmName, name string) (Audit, error) {
	ctx, cancel := context.WithTimeout(ctx, auditWithin)
	defer cancel()
	t, knows, err := c.audited(ctx, farmName, name)
	if err != nil {
		return Audit{}, err
	}
	cannot := &Refusal{
		Problem: fmt.Sprintf("the place of %s cannot be looked through: kind %s has no audit", name, t.Kind),
		Hint:    "`certfarm verify " + t.Site + "` asks its endpoints what they serve",
	}
	if !c.Kinds[t.Kind].Audits {
		return Audit{}, cannot
	}
	d, err := c.deployer(ctx, farmName, t, deploy.Lease{})
	if err != nil {
		return Audit{}, err
	}
	auditor, ok := bare(d).(deploy.Auditor)
	if !ok {
		return Audit{}, cannot
	}
	a := Audit{Target: name, At: knows.Now}
	if a.Findings, err = auditor.Audit(ctx, knows); err != nil {
		return Audit{}, fmt.Errorf("audit of %s: %w", name, err)
	}
	return a, nil
}

// audited loads a target, and what a look through its place must know.
func (c *Controller) audited(ctx context.Context, farmName, name string) (t farm.Target, a deploy.Audit, err error) {
	a.Now = c.Now()
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		p, err := tx.Place(ctx, farmName, name)
		if err != nil {
			return err
		}
		t = p.Target
		f, err := tx.Farm(ctx, farmName)
		if err != nil {
			return err
		}
		for _, s := range f.Sites {
			if slices.ContainsFunc(s.Targets, func(other farm.Target) bool { return other.Group == t.Group }) {
				a.Names = append(a.Names, s.Names...)
			}
		}
		places, err := tx.Places(ctx, farmName, "")
		for _, other := range places { // those that were released are still ours
			if other.Target.Group == t.Group {
				a.Places = append(a.Places, c.placesOf(other.Target)...)
			}
		}
		return err
	})
	return t, a, err
}
