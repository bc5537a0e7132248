package target

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/certfarm/certfarm/internal/host"
)

// linked is the way of hosts with symlinks: the live paths lead to current, and
// current to a version. That link is the switch.
type linked struct{ *engine }

// ready is always so: folders are made where they are missing.
func (linked) ready(context.Context, area) error { return nil }

// look reads the links of a target.
func (e linked) look(ctx context.Context, a area) (state, error) {
	s := state{linked: map[string]bool{}}
	if e.links == nil {
		return s, fmt.Errorf("installing files: this host has no symbolic links, which the one switch needs: %w", errors.ErrUnsupported)
	}
	for name, to := range map[string]*string{a.current(): &s.current, a.previous(): &s.previous} {
		folder, err := e.links.Readlink(ctx, name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return s, fmt.Errorf("looking at the store: %w", err)
		}
		if folderName.MatchString(folder) {
			*to = folder
		}
	}
	for _, f := range a.files() {
		to, err := e.links.Readlink(ctx, f.Live)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, host.ErrNotLink) {
			return s, fmt.Errorf("looking at %s: %w", f.Live, err)
		}
		if err == nil && to == a.goal(f) {
			s.linked[f.Live] = true
			s.links++
		}
	}
	return s, nil
}

// forward makes a staged version live. The order keeps a matching pair at the
// live paths throughout: current leads to the old bytes first, then the paths
// become links, then current is switched.
func (e linked) forward(ctx context.Context, s stub) error {
	st, err := e.look(ctx, s.area)
	if err != nil {
		return err
	}
	known := st.current == s.New || st.current == s.Prev
	if !s.Convert && (!known || !st.all(s.area)) {
		return fmt.Errorf("%s: %w", paths(s.area), errChanged)
	}
	if !known {
		if err := e.point(ctx, s, s.Prev); err != nil {
			return err
		}
	}
	if err := e.convert(ctx, s, st); err != nil {
		return err
	}
	if st.current == s.New {
		return nil
	}
	if st.previous != s.Prev { // the sweep of the next Stage leaves it alone
		if err := e.links.Link(ctx, s.Prev, s.area.previous()); err != nil {
			return fmt.Errorf("noting the version before: %w", err)
		}
	}
	return e.point(ctx, s, s.New)
}

// convert makes the live paths links into the store.
func (e linked) convert(ctx context.Context, s stub, st state) error {
	for _, f := range s.area.files() {
		if st.linked[f.Live] {
			continue
		}
		if err := e.folder(ctx, path.Dir(f.Live)); err != nil {
			return fmt.Errorf("making the folder of %s: %w", f.Live, hint(err))
		}
		if err := e.links.Link(ctx, s.area.goal(f), f.Live); err != nil {
			return fmt.Errorf("making %s a link into the store: %w", f.Live, hint(err))
		}
	}
	return nil
}

// point is the switch.
func (e linked) point(ctx context.Context, s stub, folder string) error {
	if err := e.links.Link(ctx, folder, s.area.current()); err != nil {
		return fmt.Errorf("switching %s to version %s: %w", s.area.files()[0].Live, folder, hint(err))
	}
	if s.SELinux {
		return e.labelLink(ctx, s.area, folder)
	}
	return nil
}

// back makes live what was live at Stage. Where nothing leads into the store
// yet, nothing was activated and it is still live.
func (e linked) back(ctx context.Context, s stub) error {
	st, err := e.look(ctx, s.area)
	if err != nil {
		return err
	}
	switch {
	case st.links == 0 && s.Convert:
		return nil
	case st.links == 0 || (st.current != s.New && st.current != s.Prev):
		return fmt.Errorf("%s: %w", paths(s.area), errChanged)
	}
	if st.current != s.Prev {
		if err := e.verify(ctx, s, s.Prev); err != nil {
			return err
		}
		if err := e.point(ctx, s, s.Prev); err != nil {
			return err
		}
	}
	if s.First && !st.all(s.area) { // cut between two links: the stand-in must be whole
		return e.convert(ctx, s, st)
	}
	return nil
}
