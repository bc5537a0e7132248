package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/certfarm/certfarm/internal/farm"
)

// A Doing is an act in flight on one target.
type Doing struct {
	Rollout, Site, Target string
	Attempt               int
}

// PutRollout keeps a rollout and those of its steps that changed. Created is the
// transaction's time if it is not set.
func (t *Tx) PutRollout(ctx context.Context, r farm.Rollout) error {
	had, err := t.sums(ctx, `SELECT target, sum FROM steps WHERE farm = ? AND rollout = ?`, r.Farm, r.ID)
	if err != nil {
		return fmt.Errorf("read steps of rollout %s: %w", r.ID, err)
	}
	var changed [][]any
	for i, s := range r.Steps {
		doc, sum, err := document(s)
		if err != nil {
			return err
		}
		same := had[s.Target] == sum
		delete(had, s.Target)
		if !same {
			changed = append(changed, []any{r.Farm, r.ID, s.Target, int64(i), s.Group, string(s.Doing), s.Attempt, sum, doc})
		}
	}
	_, err = t.putRows(ctx, `INSERT INTO steps (farm, rollout, target, position, grp, doing, attempt, sum, doc) VALUES `, "(?, ?, ?, ?, ?, ?, ?, ?, ?)",
		` ON CONFLICT (farm, rollout, target) DO UPDATE SET position = excluded.position, grp = excluded.grp, doing = excluded.doing,
			attempt = excluded.attempt, sum = excluded.sum, doc = excluded.doc`, changed)
	if err != nil {
		return fmt.Errorf("save steps of rollout %s: %w", r.ID, err)
	}
	for target := range had {
		err := t.put(ctx, "remove step "+target, `DELETE FROM steps WHERE farm = ? AND rollout = ? AND target = ?`, r.Farm, r.ID, target)
		if err != nil {
			return err
		}
	}
	return t.putHead(ctx, r)
}

func (t *Tx) putHead(ctx context.Context, r farm.Rollout) error {
	if r.Created.IsZero() {
		r.Created = t.now
	}
	r.Steps = nil
	doc, _, err := document(r)
	if err != nil {
		return err
	}
	return t.put(ctx, "save rollout "+r.ID, `INSERT INTO rollouts (farm, id, site, running, created, ended, doc) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (farm, id) DO UPDATE SET site = excluded.site, running = excluded.running, created = excluded.created,
			ended = excluded.ended, doc = excluded.doc
		WHERE rollouts.doc <> excluded.doc`,
		r.Farm, r.ID, r.Site, flag(r.Outcome == farm.Running), micros(r.Created), micros(r.Ended), doc)
}

// A StepOf is a step of a rollout.
type StepOf struct {
	Rollout string
	farm.Step
}

// PutSteps keeps steps of rollouts that have them already, or else returns ErrNotFound.
// Each is named once.
func (t *Tx) PutSteps(ctx context.Context, farmName string, steps []StepOf) error {
	var rows [][]any
	for _, s := range steps {
		doc, sum, err := document(s.Step)
		if err != nil {
			return err
		}
		rows = append(rows, []any{s.Rollout, s.Target, s.Group, string(s.Doing), s.Attempt, sum, doc})
	}
	n, err := t.putRows(ctx, `UPDATE steps SET grp = v.column3, doing = v.column4, attempt = v.column5, sum = v.column6, doc = v.column7
		FROM (VALUES `, "(?, ?, ?, ?, CAST(? AS BIGINT), ?, ?)", `) AS v
		WHERE steps.rollout = v.column1 AND steps.target = v.column2 AND steps.farm = ?`, rows, farmName)
	if err == nil && n < int64(len(rows)) {
		err = ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("save %d steps: %w", len(rows), err)
	}
	return nil
}

// Rollout returns one rollout with its steps, or ErrNotFound.
func (t *Tx) Rollout(ctx context.Context, farmName, id string) (farm.Rollout, error) {
	r, err := one[farm.Rollout](ctx, t, "rollout "+id, `SELECT doc FROM rollouts WHERE farm = ? AND id = ?`, farmName, id)
	if err != nil {
		return r, err
	}
	r.Steps, err = many[farm.Step](ctx, t, "steps of rollout "+id,
		`SELECT doc FROM steps WHERE farm = ? AND rollout = ? ORDER BY position`, farmName, id)
	return r, err
}

// An InFlight is an act in flight with all that is known of it: its rollout, with its one
// step and no other, and its target.
type InFlight struct {
	farm.Rollout
	Place farm.Place
}

// InFlight is Doing with all that is known of each, in one go: what an act takes to load
// would else be most of what many cost.
func (t *Tx) InFlight(ctx context.Context, farmName, group string, do farm.Verb, limit int) ([]InFlight, error) {
	var all []InFlight
	err := t.each(ctx, func(scan func(...any) error) error {
		var head, step, place string
		if err := scan(&head, &step, &place); err != nil {
			return err
		}
		r, err := withStep(head, step)
		if err != nil {
			return err
		}
		if place == "" {
			return fmt.Errorf("target %s: %w", r.Steps[0].Target, ErrNotFound)
		}
		p, err := decode[farm.Place](place)
		all = append(all, InFlight{r, p})
		return err
	}, `SELECT r.doc, s.doc, COALESCE(p.doc, '') FROM (
			SELECT o.farm, o.rollout, o.target, o.position FROM steps o JOIN rollouts h ON h.farm = o.farm AND h.id = o.rollout
			WHERE o.farm = ? AND o.grp = ? AND o.doing = ? AND h.running = 1 ORDER BY o.rollout, o.position LIMIT ?) AS d
		JOIN rollouts r ON r.farm = d.farm AND r.id = d.rollout
		JOIN steps s ON s.farm = d.farm AND s.rollout = d.rollout AND s.target = d.target
		LEFT JOIN places p ON p.farm = d.farm AND p.target = d.target ORDER BY d.rollout, d.position`,
		farmName, group, string(do), limited(limit))
	if err != nil {
		return nil, fmt.Errorf("acts of group %s: %w", group, err)
	}
	return all, nil
}

// withStep is a rollout with one step and no other.
func withStep(head, step string) (farm.Rollout, error) {
	r, err := decode[farm.Rollout](head)
	if err != nil {
		return r, err
	}
	s, err := decode[farm.Step](step)
	r.Steps = []farm.Step{s}
	return r, err
}

// A StepID names a step of a rollout.
type StepID struct{ Rollout, Target string }

// RolloutsFor returns rollouts, each with the step of one target and no other, in one go.
// One that is not there is missing. It is for acts on targets and their answers: what
// they cost does not grow with the number of a rollout's targets.
func (t *Tx) RolloutsFor(ctx context.Context, farmName string, ids []StepID) (map[StepID]farm.Rollout, error) {
	all := make(map[StepID]farm.Rollout, len(ids))
	for list, part := range inParts(ids, "(?, ?)") {
		var args []any
		for _, id := range part {
			args = append(args, id.Rollout, id.Target)
		}
		// CROSS JOIN keeps SQLite from going through the whole farm for each.
		err := t.eachOf(ctx, true, func(scan func(...any) error) error {
			var id StepID
			var head, step string
			err := scan(&id.Rollout, &id.Target, &head, &step)
			if err == nil {
				all[id], err = withStep(head, step)
			}
			return err
		}, `SELECT s.rollout, s.target, r.doc, s.doc FROM (VALUES `+list+`) AS v CROSS JOIN rollouts r CROSS JOIN steps s
			WHERE r.farm = ? AND r.id = v.column1 AND s.farm = r.farm AND s.rollout = v.column1 AND s.target = v.column2`, append(args, farmName))
		if err != nil {
			return nil, fmt.Errorf("rollouts of %d answers: %w", len(part), err)
		}
	}
	return all, nil
}

// Step returns one step of a rollout, or ErrNotFound.
func (t *Tx) Step(ctx context.Context, farmName, rollout, target string) (farm.Step, error) {
	return one[farm.Step](ctx, t, "step "+target+" of rollout "+rollout,
		`SELECT doc FROM steps WHERE farm = ? AND rollout = ? AND target = ?`, farmName, rollout, target)
}

// StepsOf returns up to limit steps of one target in rollouts of its site that have
// ended, newest first.
func (t *Tx) StepsOf(ctx context.Context, farmName, site, target string, limit int) ([]farm.Step, error) {
	return many[farm.Step](ctx, t, "steps of "+target, `SELECT s.doc FROM rollouts r
		JOIN steps s ON s.farm = r.farm AND s.rollout = r.id AND s.target = ?
		WHERE r.farm = ? AND r.site = ? AND r.running = 0 ORDER BY r.created DESC, r.id DESC LIMIT ?`, target, farmName, site, limited(limit))
}

// RunningRollouts returns the rollouts without an outcome, with their steps,
// oldest first; an empty site is all of them.
func (t *Tx) RunningRollouts(ctx context.Context, farmName, site string) ([]farm.Rollout, error) {
	w := where{}
	w.is("farm = ?", farmName)
	w.is("running = ?", int64(1))
	w.any("site = ?", site)
	return t.rollouts(ctx, farmName, `SELECT doc FROM rollouts`+w.text()+` ORDER BY created, id`, w.args...)
}

// Rollouts returns up to limit rollouts (0: all) with their steps, newest first;
// an empty site is all of them.
func (t *Tx) Rollouts(ctx context.Context, farmName, site string, limit int) ([]farm.Rollout, error) {
	return t.RolloutsAfter(ctx, farmName, site, "", limit)
}

// RolloutsAfter returns up to limit rollouts (0: all) that come after the one with an id,
// newest first, or ErrNoPlace where there is no such one any more. An empty id is before
// the newest.
func (t *Tx) RolloutsAfter(ctx context.Context, farmName, site, after string, limit int) ([]farm.Rollout, error) {
	w := where{}
	w.is("farm = ?", farmName)
	w.any("site = ?", site)
	if after != "" {
		var created int64
		err := t.row(ctx, `SELECT created FROM rollouts WHERE farm = ? AND id = ?`, farmName, after).Scan(&created)
		if errors.Is(err, sql.ErrNoRows) {
			err = ErrNoPlace
		}
		if err != nil {
			return nil, fmt.Errorf("list rollouts after %s: %w", after, err)
		}
		w.is("created <= ?", created)
		w.parts = append(w.parts, "(created < ? OR id < ?)")
		w.args = append(w.args, created, after)
	}
	return t.rollouts(ctx, farmName, `SELECT doc FROM rollouts`+w.text()+` ORDER BY created DESC, id DESC LIMIT ?`, append(w.args, limited(limit))...)
}

// rollouts reads heads, then the steps of each.
func (t *Tx) rollouts(ctx context.Context, farmName, query string, args ...any) ([]farm.Rollout, error) {
	all, err := many[farm.Rollout](ctx, t, "rollouts", query, args...)
	if err != nil {
		return nil, err
	}
	for i, r := range all {
		if all[i], err = t.Rollout(ctx, farmName, r.ID); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Doing returns up to limit steps (0: all) of running rollouts in a reload group
// whose act in flight is the given one: what one activation can do together.
func (t *Tx) Doing(ctx context.Context, farmName, group string, do farm.Verb, limit int) ([]Doing, error) {
	var all []Doing
	err := t.each(ctx, func(scan func(...any) error) error {
		var d Doing
		err := scan(&d.Rollout, &d.Site, &d.Target, &d.Attempt)
		all = append(all, d)
		return err
	}, `SELECT s.rollout, r.site, s.target, s.attempt FROM steps s JOIN rollouts r ON r.farm = s.farm AND r.id = s.rollout
		WHERE s.farm = ? AND s.grp = ? AND s.doing = ? AND r.running = 1 ORDER BY s.rollout, s.position LIMIT ?`,
		farmName, group, string(do), limited(limit))
	if err != nil {
		return nil, fmt.Errorf("acts of group %s: %w", group, err)
	}
	return all, nil
}

// DoingOf counts the steps of each of some rollouts by the act in flight; those with none
// are under the empty verb.
func (t *Tx) DoingOf(ctx context.Context, farmName string, rollouts []string) (map[string]map[farm.Verb]int, error) {
	all := map[string]map[farm.Verb]int{}
	err := t.eachIn(ctx, func(scan func(...any) error) error {
		var rollout, do string
		var steps int
		err := scan(&rollout, &do, &steps)
		if all[rollout] == nil {
			all[rollout] = map[farm.Verb]int{}
		}
		all[rollout][farm.Verb(do)] = steps
		return err
	}, `SELECT rollout, doing, COUNT(target) FROM steps WHERE farm = ? AND rollout IN (`, `) GROUP BY rollout, doing`, []any{farmName}, rollouts) // without target SQLite takes an index that has the rest, and goes through the whole farm
	if err != nil {
		return nil, fmt.Errorf("acts of %d rollouts: %w", len(rollouts), err)
	}
	return all, nil
}

// Staging reports that a running rollout which has a target in the reload group
// stages some target, there or elsewhere.
func (t *Tx) Staging(ctx context.Context, farmName, group string) (bool, error) {
	some := 0
	// The conditions on target, and what is done to grp, keep SQLite from indexes that
	// would take it through the whole farm for each rollout.
	err := t.row(ctx, `SELECT COUNT(*) FROM (SELECT 1 FROM rollouts r WHERE r.farm = ? AND r.running = 1
		AND EXISTS (SELECT 1 FROM steps s WHERE s.farm = r.farm AND s.rollout = r.id AND s.grp || '' = ? AND s.target <> '')
		AND EXISTS (SELECT 1 FROM steps o WHERE o.farm = r.farm AND o.rollout = r.id AND o.doing = ? AND o.target <> '') LIMIT 1) AS found`,
		farmName, group, string(farm.DoStage)).Scan(&some)
	if err != nil {
		return false, fmt.Errorf("what is staged beside group %s: %w", group, err)
	}
	return some > 0, nil
}

// Deciding reports that a running rollout is about to decide what comes next, which
// has a target in the reload group on which nothing is in flight.
func (t *Tx) Deciding(ctx context.Context, farmName, group string) (bool, error) {
	some := 0
	err := t.row(ctx, `SELECT COUNT(*) FROM (SELECT 1 FROM jobs j WHERE j.farm = ? AND j.kind = 'advance' AND (j.owner <> '' OR j.run_at <= ?)
		AND EXISTS (SELECT 1 FROM rollouts r WHERE r.farm = j.farm AND r.id = j.subject AND r.running = 1)
		AND EXISTS (SELECT 1 FROM steps s WHERE s.farm = j.farm AND s.rollout = j.subject AND s.grp || '' = ? AND s.doing = '' AND s.target <> '')
		LIMIT 1) AS found`, farmName, micros(t.now), group).Scan(&some)
	if err != nil {
		return false, fmt.Errorf("who decides beside group %s: %w", group, err)
	}
	return some > 0, nil
}
