package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// A Row is what a list shows of a site.
type Row struct {
	Site      string
	Leaf      string    // fingerprint of the newest version's first leaf; empty: there is none yet
	NotBefore time.Time // of the newest version
	NotAfter  time.Time
	Next      time.Time // when its certificate is looked at again
	Failing   bool      // the last order or rollout failed, and is tried again
}

// A Cell is what a matrix shows of a target.
type Cell struct {
	Site, Node, Kind, Target string
	Standing                 farm.Standing
	Served                   string // fingerprint
	Looked                   time.Time
}

// A Tally counts the targets of one standing.
type Tally struct {
	Node     string // empty: of no node, or of all
	Standing farm.Standing
	Targets  int
}

// The orders of a page of rows.
const (
	ByName   = "name"
	ByExpiry = "expiry"
)

// Rows returns a page of the sites: by name, or by the end of the newest version,
// those without one first. Like is a part of a site's name, or empty.
func (t *Tx) Rows(ctx context.Context, farmName, like, order string, skip, limit int) (all []Row, err error) {
	by := "s.name"
	if order == ByExpiry {
		by = "COALESCE(v.not_after, 0), s.name"
	}
	err = t.each(ctx, func(scan func(...any) error) error {
		var r Row
		var before, after, next, failing int64
		if err := scan(&r.Site, &r.Leaf, &before, &after, &next, &failing); err != nil {
			return err
		}
		r.NotBefore, r.NotAfter, r.Next, r.Failing = instant(before), instant(after), instant(next), failing != 0
		all = append(all, r)
		return nil
	}, `SELECT s.name, COALESCE(v.leaf, ''), COALESCE(v.not_before, 0), COALESCE(v.not_after, 0), COALESCE(c.next, 0), COALESCE(c.failing, 0)
		FROM sites s LEFT JOIN certificates c ON c.farm = s.farm AND c.site = s.name
		LEFT JOIN versions v ON v.farm = c.farm AND v.id = c.version
		WHERE s.farm = ? AND s.name LIKE ? ESCAPE '\' ORDER BY `+by+` LIMIT ? OFFSET ?`, farmName, contains(like), limited(limit), skip)
	if err != nil {
		return nil, fmt.Errorf("list sites: %w", err)
	}
	return all, nil
}

// Cells returns what a matrix shows of the sites' targets, the released ones left out.
func (t *Tx) Cells(ctx context.Context, farmName string, sites []string) (all []Cell, err error) {
	err = among(farmName, sites, func(is string, args []any) error {
		return t.cells(ctx, &all, `released = 0 AND site IN `+is+` ORDER BY site, target`, args...)
	})
	return all, err
}

// among asks about some of many names at a time: with the list for the SQL word IN, and
// the arguments of a question about those in a farm.
func among(farmName string, names []string, ask func(is string, args []any) error) error {
	for some := range slices.Chunk(names, maxRows) {
		args := []any{farmName}
		for _, name := range some {
			args = append(args, name)
		}
		if err := ask(`(`+values(len(some), "?")+`)`, args); err != nil {
			return err
		}
	}
	return nil
}

// Tallies counts the farm's targets by standing, and by node too if it is asked for.
func (t *Tx) Tallies(ctx context.Context, farmName string, byNode bool) (all []Tally, err error) {
	what := "''"
	if byNode {
		what = "node"
	}
	err = t.each(ctx, func(scan func(...any) error) error {
		var one Tally
		if err := scan(&one.Node, &one.Standing, &one.Targets); err != nil {
			return err
		}
		all = append(all, one)
		return nil
	}, `SELECT `+what+` AS part, standing, COUNT(*) FROM places WHERE farm = ? GROUP BY part, standing ORDER BY part, standing`, farmName)
	if err != nil {
		return nil, fmt.Errorf("count targets: %w", err)
	}
	return all, nil
}

// TalliesOn counts the targets of some nodes by standing.
func (t *Tx) TalliesOn(ctx context.Context, farmName string, nodes ...string) (all []Tally, err error) {
	err = among(farmName, nodes, func(is string, args []any) error {
		return t.each(ctx, func(scan func(...any) error) error {
			var one Tally
			if err := scan(&one.Node, &one.Standing, &one.Targets); err != nil {
				return err
			}
			all = append(all, one)
			return nil
		}, `SELECT node, standing, COUNT(*) FROM places WHERE farm = ? AND node IN `+is+` GROUP BY node, standing ORDER BY node, standing`, args...)
	})
	if err != nil {
		return nil, fmt.Errorf("count targets of nodes: %w", err)
	}
	return all, nil
}

// PlacesOn returns the places on some nodes that are of the given standings (none: of
// all), in the order of the targets' names.
func (t *Tx) PlacesOn(ctx context.Context, farmName string, nodes []string, standings ...farm.Standing) (all []farm.Place, err error) {
	of := ""
	if len(standings) > 0 {
		of = ` AND standing IN (` + values(len(standings), "?") + `)`
	}
	err = among(farmName, nodes, func(is string, args []any) error {
		for _, s := range standings {
			args = append(args, string(s))
		}
		some, err := many[farm.Place](ctx, t, "targets on nodes", `SELECT doc FROM places WHERE farm = ? AND node IN `+is+of+` ORDER BY target`, args...)
		all = append(all, some...)
		return err
	})
	return all, err
}

// A KindCount counts the targets of one kind.
type KindCount struct {
	Kind    string
	Targets int
}

// KindsOn counts a node's targets by kind, the released ones left out.
func (t *Tx) KindsOn(ctx context.Context, farmName, node string) (all []KindCount, err error) {
	err = t.each(ctx, func(scan func(...any) error) error {
		var one KindCount
		if err := scan(&one.Kind, &one.Targets); err != nil {
			return err
		}
		all = append(all, one)
		return nil
	}, `SELECT kind, COUNT(*) FROM places WHERE farm = ? AND node = ? AND released = 0 GROUP BY kind ORDER BY kind`, farmName, node)
	if err != nil {
		return nil, fmt.Errorf("count kinds on %s: %w", node, err)
	}
	return all, nil
}

// CellsOn returns up to limit targets of a node, in the order of the given standings and
// then of their names.
func (t *Tx) CellsOn(ctx context.Context, farmName, node string, standings []farm.Standing, limit int) (all []Cell, err error) {
	for _, s := range standings {
		if len(all) >= limit {
			break
		}
		err := t.cells(ctx, &all, `node = ? AND standing = ? ORDER BY target LIMIT ?`, farmName, node, string(s), limit-len(all))
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// cells reads what a matrix shows of the farm's targets of which something is so.
func (t *Tx) cells(ctx context.Context, all *[]Cell, is string, args ...any) error {
	err := t.each(ctx, func(scan func(...any) error) error {
		var c Cell
		var looked int64
		if err := scan(&c.Site, &c.Node, &c.Kind, &c.Target, &c.Standing, &c.Served, &looked); err != nil {
			return err
		}
		c.Looked = instant(looked)
		*all = append(*all, c)
		return nil
	}, `SELECT site, node, kind, target, standing, served, looked FROM places WHERE farm = ? AND `+is, args...)
	if err != nil {
		return fmt.Errorf("read the matrix: %w", err)
	}
	return nil
}

// PlacesIn returns up to limit places (0: all) of the given standings, in the order of the
// standings and then of the targets' names.
func (t *Tx) PlacesIn(ctx context.Context, farmName string, standings []farm.Standing, limit int) (all []farm.Place, err error) {
	for _, s := range standings {
		some, err := many[farm.Place](ctx, t, "targets that are "+string(s),
			`SELECT doc FROM places WHERE farm = ? AND standing = ? ORDER BY target LIMIT ?`, farmName, string(s), limited(max(0, limit-len(all))))
		if err != nil {
			return nil, err
		}
		if all = append(all, some...); limit > 0 && len(all) >= limit {
			return all, nil
		}
	}
	return all, nil
}

// FailingCertificates returns up to limit certificates (0: all) whose last order or rollout
// failed, by the names of their sites.
func (t *Tx) FailingCertificates(ctx context.Context, farmName string, limit int) ([]farm.Certificate, error) {
	return many[farm.Certificate](ctx, t, "certificates that fail",
		`SELECT doc FROM certificates WHERE farm = ? AND failing = 1 ORDER BY site LIMIT ?`, farmName, limited(limit))
}

// RollingSites returns up to limit sites (0: all) with a rollout that runs, by name.
func (t *Tx) RollingSites(ctx context.Context, farmName string, limit int) (all []string, err error) {
	err = t.each(ctx, func(scan func(...any) error) error {
		var site string
		if err := scan(&site); err != nil {
			return err
		}
		all = append(all, site)
		return nil
	}, `SELECT DISTINCT site FROM rollouts WHERE farm = ? AND running = 1 ORDER BY site LIMIT ?`, farmName, limited(limit))
	if err != nil {
		return nil, fmt.Errorf("list running rollouts: %w", err)
	}
	return all, nil
}

// SiteCount is how many sites a farm has whose names contain a text.
func (t *Tx) SiteCount(ctx context.Context, farmName, like string) (n int, err error) {
	err = t.row(ctx, `SELECT COUNT(*) FROM sites WHERE farm = ? AND name LIKE ? ESCAPE '\'`, farmName, contains(like)).Scan(&n)
	return n, err
}

// contains is the LIKE pattern of what has a text in it. Names are in lower case.
func contains(text string) string {
	return "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(strings.ToLower(text)) + "%"
}
