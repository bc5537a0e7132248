package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/certfarm/certfarm/internal/farm"
)

// Certificate returns a site's certificate. A site that has none yet has one
// with nothing but its farm and site.
func (t *Tx) Certificate(ctx context.Context, farmName, site string) (farm.Certificate, error) {
	c, err := one[farm.Certificate](ctx, t, "certificate of "+site, `SELECT doc FROM certificates WHERE farm = ? AND site = ?`, farmName, site)
	if errors.Is(err, ErrNotFound) {
		return farm.Certificate{Farm: farmName, Site: site}, nil
	}
	return c, err
}

// Certificates returns up to limit certificates (0: all) of sites after the
// given one, in the order of the sites' names.
func (t *Tx) Certificates(ctx context.Context, farmName, after string, limit int) ([]farm.Certificate, error) {
	return many[farm.Certificate](ctx, t, "certificates",
		`SELECT doc FROM certificates WHERE farm = ? AND site > ? ORDER BY site LIMIT ?`, farmName, after, limited(limit))
}

// PutCertificate keeps a site's certificate.
func (t *Tx) PutCertificate(ctx context.Context, c farm.Certificate) error {
	doc, _, err := document(c)
	if err != nil {
		return err
	}
	return t.put(ctx, "save certificate of "+c.Site, `INSERT INTO certificates (farm, site, doc, version, next, failing) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (farm, site) DO UPDATE SET doc = excluded.doc, version = excluded.version, next = excluded.next, failing = excluded.failing`,
		c.Farm, c.Site, doc, c.Version, micros(c.Next), flag(c.Failing()))
}

// RemoveCertificate forgets a site's certificate, but not its versions.
func (t *Tx) RemoveCertificate(ctx context.Context, farmName, site string) error {
	return t.put(ctx, "forget certificate of "+site, `DELETE FROM certificates WHERE farm = ? AND site = ?`, farmName, site)
}

// PutVersion keeps a version. Created is the transaction's time if it is not set.
func (t *Tx) PutVersion(ctx context.Context, v farm.Version) error {
	if v.Created.IsZero() {
		v.Created = t.now
	}
	doc, _, err := document(v)
	if err != nil {
		return err
	}
	return t.put(ctx, "save version "+v.ID, `INSERT INTO versions (farm, id, site, created, doc, leaf, not_before, not_after) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (farm, id) DO UPDATE SET site = excluded.site, created = excluded.created, doc = excluded.doc,
		leaf = excluded.leaf, not_before = excluded.not_before, not_after = excluded.not_after`,
		v.Farm, v.ID, v.Site, micros(v.Created), doc, v.Leaf(), micros(v.NotBefore()), micros(v.NotAfter()))
}

// Version returns one version, or ErrNotFound.
func (t *Tx) Version(ctx context.Context, farmName, id string) (farm.Version, error) {
	return one[farm.Version](ctx, t, "version "+id, `SELECT doc FROM versions WHERE farm = ? AND id = ?`, farmName, id)
}

// Versions returns the versions of a site, newest first.
func (t *Tx) Versions(ctx context.Context, farmName, site string) ([]farm.Version, error) {
	return many[farm.Version](ctx, t, "versions of "+site,
		`SELECT doc FROM versions WHERE farm = ? AND site = ? ORDER BY created DESC, id DESC`, farmName, site)
}

// VersionsOf returns some versions, by their ids. One that is not there is missing.
func (t *Tx) VersionsOf(ctx context.Context, farmName string, ids []string) (map[string]farm.Version, error) {
	all := make(map[string]farm.Version, len(ids))
	err := t.eachIn(ctx, func(scan func(...any) error) error {
		v, err := scanned[farm.Version](scan)
		all[v.ID] = v
		return err
	}, `SELECT doc FROM versions WHERE farm = ? AND id IN (`, `)`, []any{farmName}, ids)
	if err != nil {
		return nil, fmt.Errorf("%d versions: %w", len(ids), err)
	}
	return all, nil
}

// VersionsOfSites returns the versions of each of some sites, newest first.
func (t *Tx) VersionsOfSites(ctx context.Context, farmName string, sites []string) (map[string][]farm.Version, error) {
	all := make(map[string][]farm.Version, len(sites))
	err := t.eachIn(ctx, func(scan func(...any) error) error {
		v, err := scanned[farm.Version](scan)
		all[v.Site] = append(all[v.Site], v)
		return err
	}, `SELECT doc FROM versions WHERE farm = ? AND site IN (`, `) ORDER BY site, created DESC, id DESC`, []any{farmName}, sites)
	if err != nil {
		return nil, fmt.Errorf("versions of %d sites: %w", len(sites), err)
	}
	return all, nil
}

// RemoveVersion forgets a version.
func (t *Tx) RemoveVersion(ctx context.Context, farmName, id string) error {
	return t.put(ctx, "forget version "+id, `DELETE FROM versions WHERE farm = ? AND id = ?`, farmName, id)
}
