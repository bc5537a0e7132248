package store

import (
	"context"
	"fmt"
)

// PutRecord keeps a TXT value that our own name servers answer with at a full
// name, beside what else is there. The same again is no error.
func (t *Tx) PutRecord(ctx context.Context, name, value string) error {
	return t.put(ctx, "save TXT record of "+name, `INSERT INTO records (name, value, at) VALUES (?, ?, ?)
		ON CONFLICT (name, value) DO UPDATE SET at = excluded.at`, name, value, micros(t.now))
}

// RemoveRecord forgets one value; one that is not there is no error.
func (t *Tx) RemoveRecord(ctx context.Context, name, value string) error {
	return t.put(ctx, "remove TXT record of "+name, `DELETE FROM records WHERE name = ? AND value = ?`, name, value)
}

// Records are the values at a name, of all farms: a name server answers whoever
// asks.
func (t *Tx) Records(ctx context.Context, name string) ([]string, error) {
	var all []string
	err := t.each(ctx, func(scan func(...any) error) error {
		var value string
		if err := scan(&value); err != nil {
			return err
		}
		all = append(all, value)
		return nil
	}, `SELECT value FROM records WHERE name = ? ORDER BY value`, name)
	if err != nil {
		return nil, fmt.Errorf("TXT records of %s: %w", name, err)
	}
	return all, nil
}

// RecordsBelow reports whether there are values at any name below this one.
func (t *Tx) RecordsBelow(ctx context.Context, name string) (bool, error) {
	var n int
	end := "." + name
	err := t.row(ctx, `SELECT COUNT(*) FROM records WHERE SUBSTR(name, LENGTH(name) - ?) = ?`, len(end)-1, end).Scan(&n)
	if err != nil {
		return false, fmt.Errorf("TXT records below %s: %w", name, err)
	}
	return n > 0, nil
}
