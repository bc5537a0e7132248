package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
)

// A Tagged is what of a site says who may see it.
type Tagged struct {
	Name  string
	Of    string // the site in farm.yaml that it is one node's part of; empty: it is whole
	Tags  []string
	Nodes []string // that its targets are on; a node may stand here more than once
}

// RevisionNumber returns the number of a farm's newest revision, 0 if there is no
// such farm. It reads no farm.yaml.
func (t *Tx) RevisionNumber(ctx context.Context, farmName string) (n int64, err error) {
	if err := t.row(ctx, `SELECT COALESCE(MAX(number), 0) FROM revisions WHERE farm = ?`, farmName).Scan(&n); err != nil {
		return 0, fmt.Errorf("revision of %s: %w", farmName, err)
	}
	return n, nil
}

// Tagged returns the tags and nodes of all sites of a farm.
func (t *Tx) Tagged(ctx context.Context, farmName string) ([]Tagged, error) {
	var all []Tagged
	err := t.each(ctx, func(scan func(...any) error) error {
		var doc string
		if err := scan(&doc); err != nil {
			return err
		}
		var s struct { // a few of many fields: they are read at every revision, of thousands of sites
			Name    string                  `json:"name"`
			Tags    []string                `json:"tags"`
			Targets []struct{ Node string } `json:"targets"`
			Member  struct{ Of string }     `json:"member"`
		}
		if err := json.Unmarshal([]byte(doc), &s); err != nil {
			return err
		}
		k := Tagged{Name: s.Name, Of: s.Member.Of, Tags: s.Tags}
		for _, target := range s.Targets {
			if target.Node != "" {
				k.Nodes = append(k.Nodes, target.Node)
			}
		}
		all = append(all, k)
		return nil
	}, `SELECT doc FROM sites WHERE farm = ? ORDER BY name`, farmName)
	if err != nil {
		return nil, fmt.Errorf("read the tags of sites: %w", err)
	}
	return all, nil
}

// SiteOfTarget returns the name of the site that a target belongs to, or
// ErrNotFound.
func (t *Tx) SiteOfTarget(ctx context.Context, farmName, target string) (string, error) {
	return t.siteOf(ctx, "target "+target, `SELECT site FROM places WHERE farm = ? AND target = ?`, farmName, target)
}

// SiteOfRollout returns the name of the site that a rollout belongs to, or
// ErrNotFound.
func (t *Tx) SiteOfRollout(ctx context.Context, farmName, id string) (string, error) {
	return t.siteOf(ctx, "rollout "+id, `SELECT site FROM rollouts WHERE farm = ? AND id = ?`, farmName, id)
}

func (t *Tx) siteOf(ctx context.Context, what, query string, args ...any) (site string, err error) {
	err = t.row(ctx, query, args...).Scan(&site)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	return site, nil
}
