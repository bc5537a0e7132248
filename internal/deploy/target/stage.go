package target

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
)

// Stage puts a version beside what is live; see deploy.Deployer.
func (e *engine) Stage(ctx context.Context, s deploy.Stage) (deploy.Receipt, error) {
	a := e.own()
	if s.Epoch < 0 {
		return deploy.Receipt{}, fmt.Errorf("staging: %d is no epoch", s.Epoch)
	}
	want, err := e.format.fill(a.places, s)
	if err != nil {
		return deploy.Receipt{}, fmt.Errorf("staging: %w", err)
	}
	st, err := e.look(ctx, a)
	if err != nil {
		return deploy.Receipt{}, fmt.Errorf("staging: %w", err)
	}
	w := &staging{engine: e, area: a, stage: s, state: st}
	n, err := w.all(ctx, want)
	if err == nil {
		var r deploy.Receipt
		if r, err = n.receipt(); err == nil {
			r.Tested = !n.First && !w.missing && len(e.Test) > 0
			return r, nil
		}
	}
	w.undo(ctx)
	return deploy.Receipt{}, fmt.Errorf("staging: %w", err)
}

// staging is one call of Stage.
type staging struct {
	*engine
	area  area
	stage deploy.Stage
	state state
	made  []string // folders to take away again if it fails
	// missing says that files which the configuration names are not there, so that it
	// cannot be tested.
	missing bool
}

func (w *staging) name(what string) string {
	return strconv.FormatInt(w.stage.Epoch, 10) + "-" + what
}

func (w *staging) all(ctx context.Context, want content) (note, error) {
	n := note{Places: w.places}
	if err := w.clear(ctx); err != nil {
		return n, err
	}
	var err error
	if n.SELinux, err = w.enforcing(ctx); err != nil {
		return n, err
	}
	if err := w.keep(ctx, &n); err != nil {
		return n, err
	}
	first := w.stage.Bundles[0].Leaf
	if first == "" {
		leaf, err := encode.Leaf(w.stage.Bundles[0].Chain)
		if err != nil {
			return n, err
		}
		first = farm.Fingerprint(leaf.Raw)
	}
	if n.New, err = w.put(ctx, w.name(farm.Short(first)), want, w.state.current, w.state.previous, n.Prev); err != nil {
		return n, err
	}
	n.sum(n.New, want, w.area.places)
	n.Old = slices.DeleteFunc([]string{w.state.current, w.state.previous}, func(name string) bool {
		return name == "" || name == n.New || name == n.Prev
	})
	if n.SELinux {
		if err := w.label(ctx, w.area, n.New, n.Prev); err != nil {
			return n, err
		}
	}
	return n, w.test(ctx, n)
}

// test runs the server's own test, where all that the configuration names is there
// and it has not passed yet.
func (w *staging) test(ctx context.Context, n note) error {
	if n.First || w.missing || w.stage.Tested {
		return nil
	}
	if err := w.run(ctx, deploy.ErrTest.Error(), w.Test); err != nil {
		return &testError{err}
	}
	return nil
}

// clear makes room for a version.
func (w *staging) clear(ctx context.Context) error {
	if err := w.way().ready(ctx, w.area); err != nil {
		return err
	}
	return w.sweep(ctx, w.area, w.state.current, w.state.previous)
}

// A testError is what the server says of its own configuration.
type testError struct{ error }

// Is reports that it is a deploy.ErrTest.
func (e *testError) Is(target error) bool { return target == deploy.ErrTest }

// Unwrap returns what the command said.
func (e *testError) Unwrap() error { return e.error }

// put writes a folder and remembers to take it away again.
func (w *staging) put(ctx context.Context, name string, c content, used ...string) (string, error) {
	folder, made, err := w.engine.put(ctx, w.area, name, c, used...)
	if made {
		w.made = append(w.made, folder)
	}
	return folder, err
}

// keep finds or makes what Restore goes back to: the live folder; a copy of
// live files that are not in the store; or a placeholder where nothing whole is
// live, so that the server can start.
func (w *staging) keep(ctx context.Context, n *note) (err error) {
	before, err := w.intact(ctx)
	if err != nil {
		return err
	}
	if before != nil {
		n.Prev = w.state.current
		n.sum(n.Prev, before, w.area.places)
		return nil
	}
	n.Convert = true
	live, missing, err := w.live(ctx, w.area)
	if err != nil {
		return err
	}
	w.missing = missing > 0
	if lost := w.lost(ctx, missing); lost != nil {
		n.Prev = w.state.current
		n.sum(n.Prev, lost, w.area.places)
		return nil
	}
	what := "kept"
	if missing > 0 || w.format.matches(live, w.area.places) != nil {
		if live, err = w.first(n, live, missing); err != nil {
			return err
		}
		what = "placeholder"
	}
	n.Prev, err = w.put(ctx, w.name(what), live, w.state.current, w.state.previous)
	n.sum(n.Prev, live, w.area.places)
	if err == nil && n.SELinux {
		err = w.label(ctx, w.area, n.Prev, "")
	}
	return err
}

// first is a stand-in for live files that are nothing whole.
func (w *staging) first(n *note, live content, missing int) (content, error) {
	if missing > 0 && len(live) > w.state.links {
		return nil, fmt.Errorf("only some of the live files are there, and they are not ours: put the missing ones of %s beside them, or take them away", paths(w.area))
	}
	n.First = true
	n.was(live, w.area)
	return w.placeholder()
}

// intact is the whole version in the store that the live paths lead to; nil:
// they lead to none.
func (w *staging) intact(ctx context.Context) (content, error) {
	if !w.state.all(w.area) || w.state.current == "" {
		return nil, nil
	}
	c, err := w.version(ctx, w.area, w.state.current)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil || w.format.matches(c, w.area.places) != nil {
		return nil, err
	}
	return c, nil
}

// lost is the version in the store that was live before all of its files went, as
// a cut between the steps of a replacement leaves it on Windows; nil: none.
func (w *staging) lost(ctx context.Context, missing int) content {
	if missing < len(w.area.files()) || w.state.current == "" {
		return nil
	}
	c, err := w.version(ctx, w.area, w.state.current)
	if err != nil || w.format.matches(c, w.area.places) != nil {
		return nil
	}
	return c
}

func paths(a area) string {
	var names []string
	for _, f := range a.files() {
		names = append(names, f.Live)
	}
	return strings.Join(names, ", ")
}

// placeholder is a stand-in for the first certificate.
func (w *staging) placeholder() (content, error) {
	stand, err := encode.Placeholder(w.stage.Names, time.Now())
	if err != nil {
		return nil, err
	}
	c := content{}
	for _, p := range w.area.places {
		if err := w.format.add(c, p, stand); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// sweep takes away what earlier stagings left that nobody can go to any more:
// all folders but those that are named, which are the live one and the one before it.
func (e *engine) sweep(ctx context.Context, a area, used ...string) error {
	entries, err := e.host.List(ctx, a.base)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking through the store: %w", hint(err))
	}
	for _, entry := range entries {
		if !folderName.MatchString(entry.Name) || slices.Contains(used, entry.Name) {
			continue
		}
		if err := e.host.Remove(ctx, path.Join(a.base, entry.Name)); err != nil {
			return fmt.Errorf("sweeping the store: %w", hint(err))
		}
	}
	return nil
}

// undo takes away what this call made, as far as the node can be reached; the
// next Stage sweeps the rest.
func (w *staging) undo(ctx context.Context) {
	ctx, cancel := mending(ctx)
	defer cancel()
	for _, folder := range w.made {
		if w.host.Remove(ctx, path.Join(w.area.base, folder)) != nil {
			return
		}
	}
	_ = w.tidy(ctx, w.area)
}

// tidy removes a target's folder when nothing is left in it.
func (e *engine) tidy(ctx context.Context, a area) error {
	entries, err := e.host.List(ctx, a.base)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || len(entries) > 0 {
		return err
	}
	return e.host.Remove(ctx, a.base)
}
