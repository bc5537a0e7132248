package store

import (
	"context"
	"fmt"

	"github.com/certfarm/certfarm/internal/farm"
)

// savePlaces brings the places in line with the targets of a farm.
func (t *Tx) savePlaces(ctx context.Context, f farm.Farm) error {
	gone, err := t.sums(ctx, `SELECT target, sum FROM places WHERE farm = ? AND released = 0`, f.Name)
	if err != nil {
		return fmt.Errorf("read places: %w", err)
	}
	for _, s := range f.Sites {
		for _, target := range s.Targets {
			_, sum, err := document(target)
			if err != nil {
				return err
			}
			same := gone[target.Name] == sum
			delete(gone, target.Name)
			if same {
				continue
			}
			if err := t.settle(ctx, f.Name, target); err != nil {
				return err
			}
		}
	}
	for name := range gone {
		if err := t.release(ctx, f.Name, name); err != nil {
			return err
		}
	}
	return nil
}

// settle makes the place of a target that is new, changed, or there again.
func (t *Tx) settle(ctx context.Context, farmName string, target farm.Target) error {
	found, err := many[farm.Place](ctx, t, "place "+target.Name, `SELECT doc FROM places WHERE farm = ? AND target = ?`, farmName, target.Name)
	if err != nil {
		return err
	}
	p := farm.Place{Farm: farmName}
	if len(found) > 0 {
		p = found[0]
	}
	p.Target, p.Released = target, false
	return t.PutPlace(ctx, p)
}

func (t *Tx) release(ctx context.Context, farmName, target string) error {
	p, err := t.Place(ctx, farmName, target)
	if err != nil {
		return err
	}
	p.Released = true
	return t.PutPlace(ctx, p)
}

// Place returns what is known of a target, or ErrNotFound.
func (t *Tx) Place(ctx context.Context, farmName, target string) (farm.Place, error) {
	return one[farm.Place](ctx, t, "target "+target, `SELECT doc FROM places WHERE farm = ? AND target = ?`, farmName, target)
}

// Places returns the places of a site, released ones too, in the order of their
// targets' names; an empty site is all of them.
func (t *Tx) Places(ctx context.Context, farmName, site string) ([]farm.Place, error) {
	if site == "" {
		return many[farm.Place](ctx, t, "targets", `SELECT doc FROM places WHERE farm = ? ORDER BY target`, farmName)
	}
	return many[farm.Place](ctx, t, "targets of "+site, `SELECT doc FROM places WHERE farm = ? AND site = ? ORDER BY target`, farmName, site)
}

// PlacesOf returns the places of targets, by their names. One that is not there is
// missing.
func (t *Tx) PlacesOf(ctx context.Context, farmName string, targets []string) (map[string]farm.Place, error) {
	all := make(map[string]farm.Place, len(targets))
	err := t.eachIn(ctx, func(scan func(...any) error) error {
		p, err := scanned[farm.Place](scan)
		all[p.Target.Name] = p
		return err
	}, `SELECT doc FROM places WHERE farm = ? AND target IN (`, `)`, []any{farmName}, targets)
	if err != nil {
		return nil, fmt.Errorf("%d targets: %w", len(targets), err)
	}
	return all, nil
}

// PlacesAfter returns up to limit places (0: all) of targets whose names come after the
// given one, in the order of names; an empty site is all of them.
func (t *Tx) PlacesAfter(ctx context.Context, farmName, site, after string, limit int) ([]farm.Place, error) {
	w := where{}
	w.is("farm = ?", farmName)
	w.any("site = ?", site)
	w.any("target > ?", after)
	return many[farm.Place](ctx, t, "targets", `SELECT doc FROM places`+w.text()+` ORDER BY target LIMIT ?`, append(w.args, limited(limit))...)
}

// PutPlace keeps what is known of a target.
func (t *Tx) PutPlace(ctx context.Context, p farm.Place) error {
	return t.PutPlaces(ctx, []farm.Place{p})
}

// PutPlaces keeps what is known of targets, each of which is named once.
func (t *Tx) PutPlaces(ctx context.Context, places []farm.Place) error {
	var rows [][]any
	for _, p := range places {
		_, sum, err := document(p.Target)
		if err != nil {
			return err
		}
		doc, _, err := document(p)
		if err != nil {
			return err
		}
		rows = append(rows, []any{
			p.Farm, p.Target.Name, p.Target.Site, flag(p.Released), sum, doc, p.Target.Node, p.Target.Kind, string(p.Standing()), p.Serves(), micros(p.Looked),
		})
	}
	_, err := t.putRows(ctx, `INSERT INTO places (farm, target, site, released, sum, doc, node, kind, standing, served, looked) VALUES `, "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		` ON CONFLICT (farm, target) DO UPDATE SET site = excluded.site, released = excluded.released, sum = excluded.sum, doc = excluded.doc,
		node = excluded.node, kind = excluded.kind, standing = excluded.standing, served = excluded.served, looked = excluded.looked`, rows)
	if err != nil {
		return fmt.Errorf("save %d targets: %w", len(rows), err)
	}
	return nil
}

// RemovePlace forgets a target.
func (t *Tx) RemovePlace(ctx context.Context, farmName, target string) error {
	return t.put(ctx, "forget target "+target, `DELETE FROM places WHERE farm = ? AND target = ?`, farmName, target)
}
