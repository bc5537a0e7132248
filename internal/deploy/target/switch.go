package target

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/host"
)

// errDown says that nobody answers where the server should.
var errDown = errors.New("the server does not answer")

// errChanged says that somebody else was there since Stage.
var errChanged = errors.New("what is live is neither what was live at Stage nor what was staged: stage anew")

// Activate switches all targets, tests and reloads once; see deploy.Deployer.
func (e *engine) Activate(ctx context.Context, rs []deploy.Receipt) error {
	all, err := e.readAll(rs)
	if err != nil || len(all) == 0 {
		return err
	}
	if err := each(all, func(s stub) error { // before anything is switched: Apache's own test does not look at keys
		return e.verify(ctx, s, s.New)
	}); err != nil {
		return fmt.Errorf("activating: %w", err)
	}
	if err := e.forwardAll(ctx, all); err != nil {
		return fmt.Errorf("activating: %w", errors.Join(err, e.backAll(ctx, all)))
	}
	if err := e.take(ctx, all); err != nil {
		return fmt.Errorf("activating: %w", err)
	}
	// The version before the one that was live: its key has no more use here. Where that
	// fails, the next Stage tries again.
	_ = each(all, func(s stub) error {
		for _, name := range s.Old {
			if name == s.New || name == s.Prev {
				continue
			}
			if err := e.drop(ctx, s.area, name); err != nil {
				return err
			}
		}
		return nil
	})
	return nil
}

// sideBySide is how many targets of a group are worked on at a time: each is in
// nobody's way, and to wait for every answer of a node far away takes minutes.
const sideBySide = 32

// each does something for all targets, some side by side. After an error it begins
// with no more, and returns when what was begun has ended.
func each(all []stub, do func(stub) error) error {
	var g errgroup.Group
	g.SetLimit(sideBySide)
	var failed atomic.Bool
	for _, s := range all {
		if failed.Load() {
			break
		}
		g.Go(func() error {
			err := do(s)
			if err != nil {
				failed.Store(true)
			}
			return err
		})
	}
	return g.Wait()
}

// every is each, but what fails keeps no other from being done.
func every(all []stub, do func(stub) error) error {
	errs := make([]error, len(all))
	var g errgroup.Group
	g.SetLimit(sideBySide)
	for i, s := range all {
		g.Go(func() error {
			errs[i] = do(s)
			return nil
		})
	}
	return errors.Join(append(errs, g.Wait())...)
}

// take makes the server take what was switched to, or switches back.
//
// A reload fails when it is refused, and when the server does not run. What
// runs takes its old files again; what does not take these either is started.
func (e *engine) take(ctx context.Context, all []stub) error {
	if err := e.run(ctx, "config test", e.Test); err != nil {
		return errors.Join(err, e.backAll(ctx, all)) // no reload: the server still has the old ones
	}
	refused := e.reload(ctx, all)
	if refused == nil {
		return nil
	}
	if err := e.backAll(ctx, all); err != nil {
		return errors.Join(refused, err)
	}
	startable := e.startable(refused)
	if e.wake == nil && !startable {
		return refused
	}
	if again := e.again(ctx, all); again == nil || !startable { // a wake may have been half done
		return errors.Join(refused, again)
	}
	err := e.forwardAll(ctx, all)
	if err == nil {
		if err = e.run(ctx, "start", e.Start); err == nil {
			return nil
		}
	}
	err = errors.Join(refused, err, e.backAll(ctx, all))
	if old := e.run(ctx, "start with what was there before", e.Start); old != nil {
		err = errors.Join(err, old)
	}
	return err
}

// startable reports that the server may not run, and there is a command to start it.
func (e *engine) startable(refused error) bool {
	_, answered := errors.AsType[*host.ExitError](refused)
	return (answered || errors.Is(refused, errDown)) && len(e.Start) > 0
}

// again makes the server take what was switched back, even after the call's own time.
func (e *engine) again(ctx context.Context, all []stub) error {
	ctx, cancel := mending(ctx)
	defer cancel()
	return e.reload(ctx, all)
}

func (e *engine) forwardAll(ctx context.Context, all []stub) error {
	return each(all, func(s stub) error { return e.way().forward(ctx, s) })
}

// backAll switches all back as far as it can, even after the call's own time.
func (e *engine) backAll(ctx context.Context, all []stub) error {
	ctx, cancel := mending(ctx)
	defer cancel()
	if err := every(all, func(s stub) error { return e.way().back(ctx, s) }); err != nil {
		return fmt.Errorf("switching back: %w", err)
	}
	return nil
}

// Restore switches all back and makes the server serve it; see deploy.Deployer.
// A target that cannot be switched back does not keep the others from it.
func (e *engine) Restore(ctx context.Context, rs []deploy.Receipt) error {
	all, err := e.readAll(rs)
	if err != nil || len(all) == 0 {
		return err
	}
	switched := every(all, func(s stub) error { return e.way().back(ctx, s) })
	if err := errors.Join(switched, e.serve(ctx, all)); err != nil {
		return fmt.Errorf("restoring: %w", err)
	}
	return nil
}

// serve makes the server read its files: by a reload, or a start where it died.
func (e *engine) serve(ctx context.Context, all []stub) error {
	if err := e.run(ctx, "config test", e.Test); err != nil {
		return err
	}
	err := e.reload(ctx, all)
	if err == nil || len(e.Start) == 0 {
		return err
	}
	if dead := e.run(ctx, "start", e.Start); dead != nil {
		return errors.Join(err, dead)
	}
	return nil
}

// Discard takes away what is not live; see deploy.Deployer.
func (e *engine) Discard(ctx context.Context, r deploy.Receipt) error {
	s, err := e.read(r)
	if err != nil {
		return err
	}
	st, err := e.look(ctx, s.area)
	if err != nil {
		return fmt.Errorf("discarding: %w", err)
	}
	for _, name := range doomed(s, st) {
		if err := e.host.Remove(ctx, path.Join(s.area.base, name)); err != nil {
			return fmt.Errorf("discarding: %w", hint(err))
		}
	}
	if err := e.tidy(ctx, s.area); err != nil {
		return fmt.Errorf("discarding: %w", err)
	}
	return nil
}

// doomed lists what a receipt's Stage put into the store and nobody needs.
func doomed(s stub, st state) []string {
	ours := st.current == s.New || st.current == s.Prev
	var needed []string
	switch {
	case st.links == 0: // nothing in the store is live
	case ours:
		needed = []string{st.current}
	default: // a later version is live, and its way back may be ours
		needed = []string{st.current, st.previous}
	}
	names := slices.DeleteFunc([]string{s.New, s.Prev}, func(name string) bool { return slices.Contains(needed, name) })
	if slices.Contains(names, st.previous) {
		names = append(names, "previous")
	}
	if st.links == 0 && ours { // cut before the first path became a link
		names = append(names, "current")
	}
	return names
}
