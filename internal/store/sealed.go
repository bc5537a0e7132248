package store

import (
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"time"
)

// A SealedInfo says that a secret is there, and since when.
type SealedInfo struct {
	Name string
	At   time.Time
}

// A SealedRecord is a secret as it is kept: sealed by package secret, unreadable
// here.
type SealedRecord struct {
	Farm, Kind, Name string
	Sealed           []byte
}

// PutSealed keeps sealed bytes under farm, kind and name.
func (t *Tx) PutSealed(ctx context.Context, farmName, kind, name string, sealed []byte) error {
	return t.put(ctx, "save sealed "+kind+" "+name, `INSERT INTO sealed (farm, kind, name, at, sealed) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (farm, kind, name) DO UPDATE SET at = excluded.at, sealed = excluded.sealed`,
		farmName, kind, name, micros(t.now), base64.StdEncoding.EncodeToString(sealed))
}

// Sealed returns sealed bytes, or ErrNotFound.
func (t *Tx) Sealed(ctx context.Context, farmName, kind, name string) ([]byte, error) {
	var text string
	err := t.row(ctx, `SELECT sealed FROM sealed WHERE farm = ? AND kind = ? AND name = ?`, farmName, kind, name).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", kind, name, err)
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", kind, name, err)
	}
	return b, nil
}

// SealedOf is Sealed for many names. One that is not there is missing.
func (t *Tx) SealedOf(ctx context.Context, farmName, kind string, names []string) (map[string][]byte, error) {
	all := make(map[string][]byte, len(names))
	err := t.eachIn(ctx, func(scan func(...any) error) error {
		var name, text string
		err := scan(&name, &text)
		if err == nil {
			all[name], err = base64.StdEncoding.DecodeString(text)
		}
		return err
	}, `SELECT name, sealed FROM sealed WHERE farm = ? AND kind = ? AND name IN (`, `)`, []any{farmName, kind}, names)
	if err != nil {
		return nil, fmt.Errorf("%d sealed of kind %s: %w", len(names), kind, err)
	}
	return all, nil
}

// SealedNames lists what is kept of a kind, by name.
func (t *Tx) SealedNames(ctx context.Context, farmName, kind string) ([]SealedInfo, error) {
	return t.SealedAfter(ctx, farmName, kind, "", 0)
}

// SealedAfter lists up to limit of what is kept of a kind (0: all) whose names come after
// the given one, by name.
func (t *Tx) SealedAfter(ctx context.Context, farmName, kind, after string, limit int) ([]SealedInfo, error) {
	var all []SealedInfo
	err := t.each(ctx, func(scan func(...any) error) error {
		var i SealedInfo
		var at int64
		if err := scan(&i.Name, &at); err != nil {
			return err
		}
		i.At = instant(at)
		all = append(all, i)
		return nil
	}, `SELECT name, at FROM sealed WHERE farm = ? AND kind = ? AND name > ? ORDER BY name LIMIT ?`, farmName, kind, after, limited(limit))
	if err != nil {
		return nil, fmt.Errorf("list sealed %s: %w", kind, err)
	}
	return all, nil
}

// RemoveSealed forgets a secret. It is no error if there is none.
func (t *Tx) RemoveSealed(ctx context.Context, farmName, kind, name string) error {
	return t.put(ctx, "remove sealed "+kind+" "+name, `DELETE FROM sealed WHERE farm = ? AND kind = ? AND name = ?`, farmName, kind, name)
}

// sealedPage is how many records AllSealed reads at a time.
const sealedPage = 256

// AllSealed goes through the secrets of all farms, to seal them anew or to try a
// master key. The loop may write with the same transaction. It ends after an
// error.
func (t *Tx) AllSealed(ctx context.Context) iter.Seq2[SealedRecord, error] {
	return func(yield func(SealedRecord, error) bool) {
		var last SealedRecord
		for {
			page, err := t.sealedAfter(ctx, last)
			if err != nil {
				yield(SealedRecord{}, err)
				return
			}
			for _, r := range page {
				if !yield(r, nil) {
					return
				}
				last = r
			}
			if len(page) < sealedPage {
				return
			}
		}
	}
}

func (t *Tx) sealedAfter(ctx context.Context, last SealedRecord) ([]SealedRecord, error) {
	var page []SealedRecord
	err := t.each(ctx, func(scan func(...any) error) error {
		var r SealedRecord
		var text string
		if err := scan(&r.Farm, &r.Kind, &r.Name, &text); err != nil {
			return err
		}
		var err error
		r.Sealed, err = base64.StdEncoding.DecodeString(text)
		page = append(page, r)
		return err
	}, `SELECT farm, kind, name, sealed FROM sealed WHERE (farm, kind, name) > (?, ?, ?) ORDER BY farm, kind, name LIMIT ?`,
		last.Farm, last.Kind, last.Name, sealedPage)
	if err != nil {
		return nil, fmt.Errorf("read sealed records: %w", err)
	}
	return page, nil
}
