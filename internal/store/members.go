package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// The members of a site with strategy per-node are called SITE@NODE: their names
// stand side by side, after all names that end where the site's does. What follows
// reads all of them at once, however many sites the farm has besides.

// between are the bounds of members' names, both outside: "@" and what comes after it.
func between(whole string) (after, before string) { return whole + "@", whole + "A" }

// Members returns the members of a site, in the order of their names; none where it
// has another strategy.
func (t *Tx) Members(ctx context.Context, farmName, whole string) ([]farm.Site, error) {
	after, before := between(whole)
	return many[farm.Site](ctx, t, "members of "+whole, `SELECT doc FROM sites WHERE farm = ? AND name > ? AND name < ? ORDER BY name`, farmName, after, before)
}

// MemberCertificates returns the certificates of a site's members that have any.
func (t *Tx) MemberCertificates(ctx context.Context, farmName, whole string) ([]farm.Certificate, error) {
	after, before := between(whole)
	return many[farm.Certificate](ctx, t, "certificates of the members of "+whole,
		`SELECT doc FROM certificates WHERE farm = ? AND site > ? AND site < ? ORDER BY site`, farmName, after, before)
}

// MemberPlaces returns the places of a site's members.
func (t *Tx) MemberPlaces(ctx context.Context, farmName, whole string) ([]farm.Place, error) {
	after, before := between(whole)
	return many[farm.Place](ctx, t, "targets of the members of "+whole,
		`SELECT doc FROM places WHERE farm = ? AND site > ? AND site < ? ORDER BY target`, farmName, after, before)
}

// MemberVersions returns the versions of a site's members, newest first; those of
// before its strategy changed, too.
func (t *Tx) MemberVersions(ctx context.Context, farmName, whole string) ([]farm.Version, error) {
	after, before := between(whole)
	return many[farm.Version](ctx, t, "versions of the members of "+whole,
		`SELECT doc FROM versions WHERE farm = ? AND site > ? AND site < ? ORDER BY created DESC, id DESC`, farmName, after, before)
}

// MembersVersions is MemberVersions of many sites, by their names.
func (t *Tx) MembersVersions(ctx context.Context, farmName string, wholes []string) (map[string][]farm.Version, error) {
	all := map[string][]farm.Version{}
	for list, part := range inParts(wholes, "(?, ?, ?)") {
		var args []any
		for _, whole := range part {
			after, before := between(whole)
			args = append(args, whole, after, before)
		}
		err := t.eachOf(ctx, true, func(scan func(...any) error) error {
			var whole, doc string
			if err := scan(&whole, &doc); err != nil {
				return err
			}
			v, err := decode[farm.Version](doc)
			all[whole] = append(all[whole], v)
			return err
		}, `SELECT v.column1, d.doc FROM (VALUES `+list+`) AS v CROSS JOIN versions d
			WHERE d.farm = ? AND d.site > v.column2 AND d.site < v.column3 ORDER BY v.column1, d.created DESC, d.id DESC`, append(args, farmName))
		if err != nil {
			return nil, fmt.Errorf("versions of the members of %d sites: %w", len(part), err)
		}
	}
	return all, nil
}

// MembersIssued says when each of a site's members got its newest version.
func (t *Tx) MembersIssued(ctx context.Context, farmName, whole string) (map[string]time.Time, error) {
	after, before := between(whole)
	all := map[string]time.Time{}
	err := t.each(ctx, func(scan func(...any) error) error {
		var site string
		var at int64
		err := scan(&site, &at)
		all[site] = instant(at)
		return err
	}, `SELECT site, MAX(created) FROM versions WHERE farm = ? AND site > ? AND site < ? GROUP BY site`, farmName, after, before)
	if err != nil {
		return nil, fmt.Errorf("newest versions of the members of %s: %w", whole, err)
	}
	return all, nil
}

// MembersRolling names the members of a site of which a rollout runs.
func (t *Tx) MembersRolling(ctx context.Context, farmName, whole string) (map[string]bool, error) {
	after, before := between(whole)
	all := map[string]bool{}
	err := t.each(ctx, func(scan func(...any) error) error {
		var site string
		err := scan(&site)
		all[site] = true
		return err
	}, `SELECT DISTINCT site FROM rollouts WHERE farm = ? AND running = 1 AND site > ? AND site < ?`, farmName, after, before)
	if err != nil {
		return nil, fmt.Errorf("rollouts of the members of %s: %w", whole, err)
	}
	return all, nil
}

// MemberWords returns the words that begin with a prefix and end with the name of a
// site's member, by that name.
func (t *Tx) MemberWords(ctx context.Context, farmName, prefix, whole string) (map[string]string, error) {
	after, before := between(prefix + whole)
	all := map[string]string{}
	err := t.each(ctx, func(scan func(...any) error) error {
		var name, value string
		err := scan(&name, &value)
		all[strings.TrimPrefix(name, prefix)] = value
		return err
	}, `SELECT name, value FROM words WHERE farm = ? AND name > ? AND name < ?`, farmName, after, before)
	if err != nil {
		return nil, fmt.Errorf("what was said of the members of %s: %w", whole, err)
	}
	return all, nil
}
