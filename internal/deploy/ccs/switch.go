package ccs

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/certfarm/certfarm/internal/deploy"
)

// errChanged says that somebody else was there since Stage.
var errChanged = errors.New("what is live is neither what was live at Stage nor what was staged: stage anew")

// step is one file that is to be switched.
type step struct {
	note  note
	entry entry
}

// Activate switches all files of all receipts, or none; see deploy.Deployer. If
// there are canaries, they go first, and the live names when every reader serves
// them. Readers see it after the receipts' lag.
func (d *Store) Activate(ctx context.Context, rs []deploy.Receipt) error {
	all, err := readAll(rs)
	if err != nil {
		return err
	}
	if err := d.first(ctx, all); err != nil {
		return fmt.Errorf("activating: %w", err)
	}
	if _, err := d.forward(ctx, all, func(entry) bool { return true }); err != nil {
		return fmt.Errorf("activating: %w", err)
	}
	for _, n := range all {
		// The version before the one that was live: its key has no more use here.
		// Where that fails, the next Stage tries again.
		_ = d.sweep(ctx, n.site(), n.generation())
		d.sweepFormer(ctx, n)
	}
	return nil
}

// forward switches the files that are meant, and says how many others are not
// switched yet. Everything is looked at, and lies on the server's disk, before the
// first rename.
func (d *Store) forward(ctx context.Context, all []note, meant func(entry) bool) (left int, err error) {
	var steps []step
	for _, n := range all {
		todo, others, err := d.due(ctx, n, meant)
		if err != nil {
			return 0, err
		}
		steps, left = append(steps, todo...), left+others
	}
	for _, n := range all {
		if err := d.files.Write(ctx, join(n.site(), activeFile), []byte(n.generation()+"\n"), private); err != nil {
			return 0, fmt.Errorf("noting what is made live: %w", err)
		}
	}
	slices.SortStableFunc(steps, func(a, b step) int { return order(a.entry) - order(b.entry) })
	for i, s := range steps {
		if err := d.move(ctx, s.note, s.entry, s.note.New); err != nil {
			return 0, errors.Join(err, d.putBack(ctx, steps[:i+1]))
		}
	}
	return left, nil
}

// order is low for what is switched first.
func order(e entry) int {
	if e.Canary {
		return 0
	}
	return 1
}

// due lists the files of a staging that are meant and not live yet, prepares them,
// and counts the others that are not.
func (d *Store) due(ctx context.Context, n note, meant func(entry) bool) (steps []step, others int, err error) {
	data, err := d.fetch(ctx, n.staged(), n.New)
	if err != nil {
		return nil, 0, err
	}
	for _, e := range n.Files {
		live, err := d.live(ctx, n.Root, e.Name)
		if err != nil {
			return nil, 0, err
		}
		switch hash := hashOf(live); {
		case hash == n.New:
		case hash != e.Prev:
			return nil, 0, fmt.Errorf("%s: %w", e.Name, errChanged)
		case meant(e):
			steps = append(steps, step{n, e})
		default:
			others++
		}
	}
	for _, s := range steps {
		if err := d.files.Write(ctx, n.next(s.entry), data, private); err != nil {
			return nil, 0, fmt.Errorf("preparing %s: %w", s.entry.Name, err)
		}
	}
	return steps, others, nil
}

// move is the switch of one file, to what was prepared. It is read back: what
// the server says is not what counts.
func (d *Store) move(ctx context.Context, n note, e entry, hash string) error {
	if err := d.files.Rename(ctx, n.next(e), n.live(e)); err != nil {
		return fmt.Errorf("switching %s: %w", e.Name, err)
	}
	if _, err := d.fetch(ctx, n.live(e), hash); err != nil {
		return fmt.Errorf("switching %s: %w", e.Name, err)
	}
	return nil
}

// putBack undoes the switches of a call that failed, even after its own time.
func (d *Store) putBack(ctx context.Context, steps []step) error {
	ctx, cancel := mending(ctx)
	defer cancel()
	var errs []error
	for _, s := range slices.Backward(steps) {
		errs = append(errs, d.back(ctx, s.note, s.entry))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("putting back what was switched: %w", err)
	}
	return nil
}

// back brings one file to what it was at Stage.
func (d *Store) back(ctx context.Context, n note, e entry) error {
	live, err := d.live(ctx, n.Root, e.Name)
	if err != nil {
		return err
	}
	switch hash := hashOf(live); {
	case hash == e.Prev:
		return nil
	case hash != n.New && hash != "":
		return fmt.Errorf("%s: %w", e.Name, errChanged)
	}
	if e.Prev == "" {
		if err := d.files.Remove(ctx, n.live(e)); err != nil {
			return fmt.Errorf("removing %s, which was not there before: %w", e.Name, err)
		}
		return nil
	}
	from := n.kept(e)
	if e.Prev == n.New { // nothing was kept beside it
		from = n.staged()
	}
	data, err := d.fetch(ctx, from, e.Prev)
	if err != nil {
		return fmt.Errorf("restoring %s: %w", e.Name, err)
	}
	if err := d.files.Write(ctx, n.next(e), data, private); err != nil {
		return fmt.Errorf("preparing %s: %w", e.Name, err)
	}
	return d.move(ctx, n, e, e.Prev)
}

// Restore brings back every byte that was there at Stage; a file that was not
// there is removed; see deploy.Deployer. A file that cannot be brought back does
// not keep the others from it.
func (d *Store) Restore(ctx context.Context, rs []deploy.Receipt) error {
	all, err := readAll(rs)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range all {
		for _, e := range slices.Backward(n.Files) { // the canary last: live names first
			errs = append(errs, d.back(ctx, n, e))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("restoring: %w", err)
	}
	return nil
}

// Discard takes away a staging with what it kept; see deploy.Deployer. Nothing
// of it is live: live files are the root's own.
func (d *Store) Discard(ctx context.Context, r deploy.Receipt) error {
	n, err := read(r)
	if err != nil {
		return err
	}
	if err := d.files.Remove(ctx, n.Folder); err != nil {
		return fmt.Errorf("discarding: %w", err)
	}
	active, err := d.active(ctx, n.site())
	if err == nil && active == n.generation() {
		err = d.files.Remove(ctx, join(n.site(), activeFile))
	}
	if err == nil {
		err = d.tidy(ctx, n.site())
	}
	if err != nil {
		return fmt.Errorf("discarding: %w", err)
	}
	return nil
}
