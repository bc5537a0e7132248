package ccs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/certfarm/certfarm/internal/encode"
)

// former finds the folders that the site had before its first name changed: their names
// begin as ours, and what was staged there last shares a name with what is staged now. No
// two targets write one file of a store, so they are nobody else's. What is in them, keys
// among it, is of no use once this staging is live.
func (w *work) former(ctx context.Context, site string) error {
	if _, err := w.files.List(ctx, site); !errors.Is(err, fs.ErrNotExist) {
		return err // ours is there: they were found then
	}
	staging, own := split(site)
	entries, err := w.files.List(ctx, staging)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking through the stagings: %w", err)
	}
	for _, e := range entries {
		if !siteName.MatchString(e.Name) || e.Name == own || e.Name[:2*siteHalf] != own[:2*siteHalf] {
			continue
		}
		ours, err := w.shares(ctx, join(staging, e.Name))
		if err != nil {
			return err
		}
		if ours {
			w.note.Former = append(w.note.Former, e.Name)
		}
	}
	return nil
}

// shares says whether a folder's last activation was for one of our names.
func (w *work) shares(ctx context.Context, folder string) (bool, error) {
	active, err := w.active(ctx, folder)
	if err != nil || active == "" {
		return false, err
	}
	data, err := w.files.Read(ctx, join(folder, active, stagedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking through the stagings: %w", err)
	}
	b, _ := encode.OpenPFX(data, w.password) // where it does not open, it is not known whose it is, and left alone
	return slices.ContainsFunc(b.Names, func(name string) bool { return slices.Contains(w.bundle.Names, name) }), nil
}

// sweepFormer takes away what former found, as far as it can.
func (d *Store) sweepFormer(ctx context.Context, n note) {
	staging, _ := split(n.site())
	for _, folder := range n.Former {
		_ = d.files.Remove(ctx, join(staging, folder))
	}
}
