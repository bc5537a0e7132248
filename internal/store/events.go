package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// AddEvent writes a line of the journal, with others of the transaction. ID and At are
// filled if they are empty.
func (t *Tx) AddEvent(ctx context.Context, e farm.Event) error {
	if e.At.IsZero() {
		e.At = t.now
	}
	if e.ID == "" {
		e.ID = idAt("ev", t.s.tick(t.now))
	}
	doc, _, err := document(e)
	if err != nil {
		return err
	}
	t.events = append(t.events, []any{e.Farm, e.ID, micros(e.At), e.Site, e.Rollout, e.Kind, string(e.Level), doc})
	return nil
}

// flush writes the lines of the journal that were added.
func (t *Tx) flush(ctx context.Context) error {
	rows := t.events
	t.events = nil
	_, err := t.putRows(ctx, `INSERT INTO events (farm, id, at, site, rollout, kind, level, doc) VALUES `, "(?, ?, ?, ?, ?, ?, ?, ?)",
		` ON CONFLICT (farm, id) DO NOTHING`, rows)
	if err != nil {
		return fmt.Errorf("save %d events: %w", len(rows), err)
	}
	return nil
}

// An EventQuery says which events are wanted; what is empty is any.
type EventQuery struct {
	Site    string
	Rollout string
	Kind    string
	After   string // id: later ones only
	Before  string // id: earlier ones only
	Level   farm.Level
	Least   farm.Level // this level and above
	Limit   int        // 0: all
	Newest  bool       // newest first; with Limit the last ones
}

// Events returns lines of the journal, oldest first unless asked otherwise. Ids
// sort by the time when they were made, which with several controllers is not
// quite the time when they can be seen: who follows the journal reads some
// seconds again and drops the ids that it knows.
func (t *Tx) Events(ctx context.Context, farmName string, q EventQuery) ([]farm.Event, error) {
	if err := t.flush(ctx); err != nil {
		return nil, err
	}
	w := where{}
	w.is("farm = ?", farmName)
	w.any("site = ?", q.Site)
	w.any("rollout = ?", q.Rollout)
	w.any("kind = ?", q.Kind)
	w.any("level = ?", string(q.Level))
	switch q.Least {
	case farm.Warn:
		w.is("level IN (?, 'alarm')", string(farm.Warn))
	case farm.Alarm:
		w.is("level = ?", string(farm.Alarm))
	case farm.Info:
	}
	w.any("id > ?", q.After)
	w.any("id < ?", q.Before)
	order := ` ORDER BY id LIMIT ?`
	if q.Newest {
		order = ` ORDER BY id DESC LIMIT ?`
	}
	return many[farm.Event](ctx, t, "events", `SELECT doc FROM events`+w.text()+order, append(w.args, limited(q.Limit))...)
}

// EventsSince returns up to limit lines of the journal after an id whose ids are not
// known, and those between them that are, of which it has no more than ID and At: who
// follows the journal reads the last of it again and again. They are oldest first.
func (t *Tx) EventsSince(ctx context.Context, farmName, after string, known []string, limit int) ([]farm.Event, error) {
	if err := t.flush(ctx); err != nil {
		return nil, err
	}
	had := make(map[string]bool, len(known))
	for _, id := range known {
		had[id] = true
	}
	var all []farm.Event
	var fresh []any
	err := t.each(ctx, func(scan func(...any) error) error {
		var e farm.Event
		var at int64
		err := scan(&e.ID, &at)
		e.At = instant(at)
		if all = append(all, e); !had[e.ID] {
			fresh = append(fresh, e.ID)
		}
		return err
	}, `SELECT id, at FROM events WHERE farm = ? AND id > ? ORDER BY id LIMIT ?`, farmName, after, int64(limit+len(known)))
	if err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}
	whole := map[string]farm.Event{}
	for part := range slices.Chunk(fresh, maxRows) {
		some, err := many[farm.Event](ctx, t, "events",
			`SELECT doc FROM events WHERE farm = ? AND id IN (`+values(len(part), "?")+`)`, append([]any{farmName}, part...)...)
		if err != nil {
			return nil, err
		}
		for _, e := range some {
			whole[e.ID] = e
		}
	}
	for i, e := range all {
		if w, ok := whole[e.ID]; ok {
			all[i] = w
		}
	}
	return all, nil
}

// Expire forgets what is older than before and that nothing will ask for: events,
// ended orders and their challenges, TXT records that nobody took away, ended rollouts with the receipts of their
// steps (but the newest of each site), and lanes that nobody used. Versions, keys
// and revisions are kept.
func (t *Tx) Expire(ctx context.Context, before time.Time) error {
	if err := t.flush(ctx); err != nil {
		return err
	}
	at := micros(before)
	ended := []any{at, string(farm.OrderDone), string(farm.OrderFailed)}
	for _, s := range []struct {
		what, query string
		args        []any
	}{
		{"events", `DELETE FROM events WHERE at < ?`, []any{at}},
		{"challenges", `DELETE FROM challenges WHERE EXISTS (SELECT 1 FROM orders o
			WHERE o.farm = challenges.farm AND o.id = challenges.order_id AND o.created < ? AND o.state IN (?, ?))`, ended},
		{"TXT records", `DELETE FROM records WHERE at < ?`, []any{at}},
		{"orders", `DELETE FROM orders WHERE created < ? AND state IN (?, ?)`, ended},
		{"rollouts", `DELETE FROM rollouts WHERE running = 0 AND ended < ? AND EXISTS (SELECT 1 FROM rollouts later
			WHERE later.farm = rollouts.farm AND later.site = rollouts.site AND later.created > rollouts.created)`, []any{at}},
		{"steps", `DELETE FROM steps WHERE NOT EXISTS (SELECT 1 FROM rollouts r WHERE r.farm = steps.farm AND r.id = steps.rollout)`, nil},
		{"lanes", `DELETE FROM lanes WHERE until < ? AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.farm = lanes.farm AND j.lane = lanes.lane)`, []any{at}},
	} {
		if err := t.put(ctx, "expire "+s.what, s.query, s.args...); err != nil {
			return err
		}
	}
	return nil
}
