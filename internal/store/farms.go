package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/certfarm/certfarm/internal/farm"
)

// A Revision is one state of a farm.yaml, with its text as it was written,
// comments too.
type Revision struct {
	Farm   string
	Number int64 // from 1
	Text   []byte
	By     string
	At     time.Time
}

// A Conflict says that a farm was changed after the plan was made.
type Conflict struct {
	Revision int64 // the newest
	By       string
	At       time.Time
}

// Error says who changed it and when.
func (c *Conflict) Error() string {
	return fmt.Sprintf("changed meanwhile by %s at %s (revision %d): plan again", c.By, c.At.Format(time.RFC3339), c.Revision)
}

// Settings are what a farm says of itself beside issuers, nodes and sites.
type Settings struct {
	Proxy       string
	Resolvers   map[string][]string
	DNS         []farm.DNS
	Controllers []string

	Notifications farm.Notifications
}

// SaveFarm keeps a farm with its text as the next revision, and returns its
// number. was is the revision that the plan was made against, 0 for none; a
// *Conflict is returned if it is not the newest. Only rows that change are
// written. A target that is new gets a place, one that changes keeps what is known
// of it, one that is gone is marked released and left alone.
func (t *Tx) SaveFarm(ctx context.Context, f farm.Farm, text []byte, by string, was int64) (int64, error) {
	if !utf8.Valid(text) || slices.Contains(text, 0) {
		return 0, errors.New("save farm: its text is not UTF-8")
	}
	newest, err := t.Revision(ctx, f.Name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return 0, err
	}
	if newest.Number != was {
		return 0, &Conflict{Revision: newest.Number, By: newest.By, At: newest.At}
	}
	number := newest.Number + 1
	err = t.put(ctx, "save revision", `INSERT INTO revisions (farm, number, content, author, at) VALUES (?, ?, ?, ?, ?)`,
		f.Name, number, string(text), by, micros(t.now))
	if err != nil {
		return 0, err
	}
	return number, t.saveRows(ctx, f)
}

func (t *Tx) saveRows(ctx context.Context, f farm.Farm) error {
	doc, _, err := document(Settings{f.Proxy, f.Resolvers, f.DNS, f.Controllers, f.Notifications})
	if err != nil {
		return err
	}
	err = t.put(ctx, "save settings", `INSERT INTO settings (farm, doc) VALUES (?, ?)
		ON CONFLICT (farm) DO UPDATE SET doc = excluded.doc`, f.Name, doc)
	if err != nil {
		return err
	}
	if err := saveNamed(ctx, t, "issuers", f.Name, f.Issuers, func(i farm.Issuer) string { return i.Name }); err != nil {
		return err
	}
	if err := saveNamed(ctx, t, "nodes", f.Name, f.Nodes, func(n farm.Node) string { return n.Name }); err != nil {
		return err
	}
	if err := saveNamed(ctx, t, "sites", f.Name, f.Sites, func(s farm.Site) string { return s.Name }); err != nil {
		return err
	}
	return t.savePlaces(ctx, f)
}

// saveNamed makes the rows of a table (issuers, nodes or sites) those of all,
// and touches none that is so already.
func saveNamed[T any](ctx context.Context, t *Tx, table, farmName string, all []T, name func(T) string) error {
	gone, err := t.sums(ctx, `SELECT name, sum FROM `+table+` WHERE farm = ?`, farmName)
	if err != nil {
		return fmt.Errorf("read %s: %w", table, err)
	}
	for _, v := range all {
		doc, sum, err := document(v)
		if err != nil {
			return err
		}
		n := name(v)
		same := gone[n] == sum
		delete(gone, n)
		if same {
			continue
		}
		err = t.put(ctx, "save "+n, `INSERT INTO `+table+` (farm, name, sum, doc) VALUES (?, ?, ?, ?)
			ON CONFLICT (farm, name) DO UPDATE SET sum = excluded.sum, doc = excluded.doc`, farmName, n, sum, doc)
		if err != nil {
			return err
		}
	}
	for n := range gone {
		if err := t.put(ctx, "remove "+n, `DELETE FROM `+table+` WHERE farm = ? AND name = ?`, farmName, n); err != nil {
			return err
		}
	}
	return nil
}

// sums reads names and digests.
func (t *Tx) sums(ctx context.Context, query string, args ...any) (map[string]string, error) {
	all := map[string]string{}
	err := t.each(ctx, func(scan func(...any) error) error {
		var name, sum string
		if err := scan(&name, &sum); err != nil {
			return err
		}
		all[name] = sum
		return nil
	}, query, args...)
	return all, err
}

// Revision returns the newest revision of a farm, or ErrNotFound.
func (t *Tx) Revision(ctx context.Context, farmName string) (Revision, error) {
	all, err := t.Revisions(ctx, farmName, 1)
	if err != nil {
		return Revision{}, err
	}
	if len(all) == 0 {
		return Revision{}, fmt.Errorf("farm %s: %w", farmName, ErrNotFound)
	}
	return all[0], nil
}

// Revisions returns the revisions of a farm, newest first, at most limit of them
// (0: all).
func (t *Tx) Revisions(ctx context.Context, farmName string, limit int) ([]Revision, error) {
	var all []Revision
	err := t.each(ctx, func(scan func(...any) error) error {
		r := Revision{Farm: farmName}
		var text string
		var at int64
		if err := scan(&r.Number, &text, &r.By, &at); err != nil {
			return err
		}
		r.Text, r.At = []byte(text), instant(at)
		all = append(all, r)
		return nil
	}, `SELECT number, content, author, at FROM revisions WHERE farm = ? ORDER BY number DESC LIMIT ?`, farmName, limited(limit))
	if err != nil {
		return nil, fmt.Errorf("revisions of farm %s: %w", farmName, err)
	}
	return all, nil
}

// Farms lists the names of all farms.
func (t *Tx) Farms(ctx context.Context) ([]string, error) {
	var all []string
	err := t.each(ctx, func(scan func(...any) error) error {
		var name string
		if err := scan(&name); err != nil {
			return err
		}
		all = append(all, name)
		return nil
	}, `SELECT farm FROM settings ORDER BY farm`)
	if err != nil {
		return nil, fmt.Errorf("list farms: %w", err)
	}
	return all, nil
}

// Farm returns a whole farm, everything in it in the order of its names, or
// ErrNotFound. It is for plan and apply; a job asks for the one site it is about.
func (t *Tx) Farm(ctx context.Context, name string) (farm.Farm, error) {
	f := farm.Farm{Name: name}
	settings, err := t.Settings(ctx, name)
	if err != nil {
		return f, err
	}
	f.Proxy, f.Resolvers, f.DNS, f.Controllers = settings.Proxy, settings.Resolvers, settings.DNS, settings.Controllers
	f.Notifications = settings.Notifications
	if f.Issuers, err = many[farm.Issuer](ctx, t, "issuers", `SELECT doc FROM issuers WHERE farm = ? ORDER BY name`, name); err != nil {
		return f, err
	}
	if f.Nodes, err = t.Nodes(ctx, name); err != nil {
		return f, err
	}
	f.Sites, err = t.Sites(ctx, name, "", 0)
	return f, err
}

// Settings returns a farm's settings, or ErrNotFound.
func (t *Tx) Settings(ctx context.Context, farmName string) (Settings, error) {
	return one[Settings](ctx, t, "farm "+farmName, `SELECT doc FROM settings WHERE farm = ?`, farmName)
}

// Site returns one site, or ErrNotFound.
func (t *Tx) Site(ctx context.Context, farmName, name string) (farm.Site, error) {
	return one[farm.Site](ctx, t, "site "+name, `SELECT doc FROM sites WHERE farm = ? AND name = ?`, farmName, name)
}

// IssuerOf returns the name of a site's issuer, or ErrNotFound where there is no such
// site. It costs less than the site.
func (t *Tx) IssuerOf(ctx context.Context, farmName, site string) (issuer string, err error) {
	var doc string
	err = t.row(ctx, `SELECT doc FROM sites WHERE farm = ? AND name = ?`, farmName, site).Scan(&doc)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err == nil {
		issuer, err = field(doc, "issuer")
	}
	if err != nil {
		return "", fmt.Errorf("issuer of site %s: %w", site, err)
	}
	return issuer, nil
}

// IssuersOf is IssuerOf for many sites, by their names. A site that is not there is
// missing.
func (t *Tx) IssuersOf(ctx context.Context, farmName string, sites []string) (map[string]string, error) {
	all := make(map[string]string, len(sites))
	err := t.eachIn(ctx, func(scan func(...any) error) error {
		var name, doc string
		err := scan(&name, &doc)
		if err == nil {
			all[name], err = field(doc, "issuer")
		}
		return err
	}, `SELECT name, doc FROM sites WHERE farm = ? AND name IN (`, `)`, []any{farmName}, sites)
	if err != nil {
		return nil, fmt.Errorf("issuers of %d sites: %w", len(sites), err)
	}
	return all, nil
}

// field is a text in a document, read no further than to there; empty: it has none.
func field(doc, name string) (text string, err error) {
	d := json.NewDecoder(strings.NewReader(doc))
	if _, err := d.Token(); err != nil {
		return "", err
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return "", err
		}
		if key == name {
			err = d.Decode(&text)
			return text, err
		}
		var other json.RawMessage
		if err := d.Decode(&other); err != nil {
			return "", err
		}
	}
	return "", nil
}

// Sites returns up to limit sites (0: all) whose names come after the given one,
// in the order of names.
func (t *Tx) Sites(ctx context.Context, farmName, after string, limit int) ([]farm.Site, error) {
	return many[farm.Site](ctx, t, "sites", `SELECT doc FROM sites WHERE farm = ? AND name > ? ORDER BY name LIMIT ?`, farmName, after, limited(limit))
}

// A sketch is what of a site's document says what it asks of a CA.
type sketch struct {
	Name     string         `json:"name"`
	Names    []string       `json:"names"`
	Issuer   string         `json:"issuer"`
	Profile  string         `json:"profile"`
	KeyTypes []farm.KeyType `json:"key_types"`
}

// SitesAsked are all sites of a farm, in no order, with nothing but what they ask of a
// CA: name, names, issuer, profile and key types. Of a large farm this is
// read in a fraction of the time that whole sites take.
func (t *Tx) SitesAsked(ctx context.Context, farmName string) ([]farm.Site, error) {
	var sites []farm.Site
	err := t.each(ctx, func(scan func(...any) error) error {
		s, err := scanned[sketch](scan)
		sites = append(sites, farm.Site{Name: s.Name, Names: s.Names, Issuer: s.Issuer, Profile: s.Profile, KeyTypes: s.KeyTypes})
		return err
	}, `SELECT doc FROM sites WHERE farm = ?`, farmName)
	if err != nil {
		return nil, fmt.Errorf("sites: %w", err)
	}
	return sites, nil
}

// Node returns one node, or ErrNotFound.
func (t *Tx) Node(ctx context.Context, farmName, name string) (farm.Node, error) {
	return one[farm.Node](ctx, t, "node "+name, `SELECT doc FROM nodes WHERE farm = ? AND name = ?`, farmName, name)
}

// Nodes returns the nodes of a farm, in the order of their names.
func (t *Tx) Nodes(ctx context.Context, farmName string) ([]farm.Node, error) {
	return t.NodesAfter(ctx, farmName, "", 0)
}

// NodesAfter returns up to limit nodes (0: all) whose names come after the given one, in
// the order of names.
func (t *Tx) NodesAfter(ctx context.Context, farmName, after string, limit int) ([]farm.Node, error) {
	return many[farm.Node](ctx, t, "nodes", `SELECT doc FROM nodes WHERE farm = ? AND name > ? ORDER BY name LIMIT ?`, farmName, after, limited(limit))
}

// Issuer returns one issuer, or ErrNotFound.
func (t *Tx) Issuer(ctx context.Context, farmName, name string) (farm.Issuer, error) {
	return one[farm.Issuer](ctx, t, "issuer "+name, `SELECT doc FROM issuers WHERE farm = ? AND name = ?`, farmName, name)
}

// Issuers returns the issuers of a farm, by name.
func (t *Tx) Issuers(ctx context.Context, farmName string) ([]farm.Issuer, error) {
	return many[farm.Issuer](ctx, t, "issuers", `SELECT doc FROM issuers WHERE farm = ? ORDER BY name`, farmName)
}

// Word returns a setting of the running system, such as "freeze", or nothing if
// it is not set.
func (t *Tx) Word(ctx context.Context, farmName, name string) (value string, err error) {
	key := [2]string{farmName, name}
	if value, known := t.words[key]; known {
		return value, nil // a transaction sees one state, and what it wrote
	}
	err = t.row(ctx, `SELECT value FROM words WHERE farm = ? AND name = ?`, farmName, name).Scan(&value)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("read word %s: %w", name, err)
	}
	if t.words == nil {
		t.words = map[[2]string]string{}
	}
	t.words[key] = value
	return value, nil
}

// SetWord sets a setting of the running system; an empty value takes it away.
func (t *Tx) SetWord(ctx context.Context, farmName, name, value string) error {
	delete(t.words, [2]string{farmName, name})
	if value == "" {
		return t.put(ctx, "remove word "+name, `DELETE FROM words WHERE farm = ? AND name = ?`, farmName, name)
	}
	return t.put(ctx, "set word "+name, `INSERT INTO words (farm, name, value) VALUES (?, ?, ?)
		ON CONFLICT (farm, name) DO UPDATE SET value = excluded.value`, farmName, name, value)
}
