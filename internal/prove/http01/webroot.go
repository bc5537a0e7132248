package http01

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
)

// A webroot is the folder that one node's web server serves at /.
//
// A challenge folder that we make has a mark in it, so that whoever takes the
// last answer away knows, without a receipt, that the folder goes too. Two
// controllers may work at once, one taking the folder away and one putting an
// answer in. The first renames the mark and looks again before it removes; the
// second writes and then looks for the renamed mark. Whichever comes second sees
// the other: so no answer that put reported as written is removed with a folder.
type webroot struct {
	host host.Host
	path string
}

// The marks say how much is ours: the challenge folder, or .well-known too.
const (
	innerMark = ".certfarm-made-this"
	outerMark = ".certfarm-made-this-and-well-known"
	going     = "-going" // follows a mark while the folder is being removed
	markText  = "certfarm made this folder and removes it with the last answer in it.\n"
)

var (
	errGoing = errors.New("the folder is being taken away by another controller; try again")
	errMkdir = errors.New("this host cannot make folders; make it by hand, once")
)

// readable are the modes: the web server reads, and it is another user.
func readable() (file, folder host.Attr) { return host.Attr{Mode: 0o644}, host.Attr{Mode: 0o755} }

func (w webroot) outer() string            { return path.Join(w.path, ".well-known") }
func (w webroot) inner() string            { return path.Join(w.path, Path) }
func (w webroot) file(token string) string { return path.Join(w.inner(), token) }

// put writes an answer and reads it back. It tries again where another
// controller takes the folder away at that moment.
func (w webroot) put(ctx context.Context, c farm.Challenge) (err error) {
	for range 3 {
		if err = w.folders(ctx); err != nil {
			return err
		}
		if err = w.write(ctx, c); err == nil {
			err = w.settled(ctx, c.Token)
		}
		if err == nil {
			return nil
		}
	}
	return err
}

func (w webroot) write(ctx context.Context, c farm.Challenge) error {
	mode, _ := readable()
	err := w.host.Write(ctx, w.file(c.Token), []byte(c.Value), mode)
	// What is there counts: nodes may share a webroot, and write it together.
	got, readErr := w.host.Read(ctx, w.file(c.Token))
	switch {
	case readErr == nil && string(got) == c.Value:
		return nil
	case err != nil:
		return fmt.Errorf("write the answer: %w", err)
	case readErr != nil:
		return fmt.Errorf("read back the answer: %w", readErr)
	}
	return fmt.Errorf("%s holds something else than was written to it", w.file(c.Token))
}

// settled reports that nobody is taking the folder away with the answer in it.
func (w webroot) settled(ctx context.Context, token string) error {
	names, err := w.names(ctx, w.inner())
	if err != nil {
		return err
	}
	if !slices.Contains(names, token) || slices.Contains(names, innerMark+going) || slices.Contains(names, outerMark+going) {
		return errGoing
	}
	return nil
}

// folders makes the folders of the challenge path where they are missing. The
// webroot itself is never made: a missing one is a mistake in farm.yaml.
func (w webroot) folders(ctx context.Context) error {
	if _, err := w.host.List(ctx, w.inner()); !missing(err) {
		return err
	}
	mark := innerMark
	if _, err := w.host.List(ctx, w.outer()); missing(err) {
		mark = outerMark
		_, err = w.host.List(ctx, w.path)
		if missing(err) {
			return fmt.Errorf("there is no folder %s; webroot must be the folder that the web server serves at /: %w", w.path, err)
		}
		if err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	folders, ok := w.host.(interface {
		Mkdir(ctx context.Context, name string, a host.Attr) error
	})
	if !ok {
		return fmt.Errorf("make the folder %s: %w", w.inner(), errMkdir)
	}
	file, folder := readable()
	if err := folders.Mkdir(ctx, w.inner(), folder); err != nil {
		return fmt.Errorf("make the folder %s: %w", w.inner(), err)
	}
	if err := w.host.Write(ctx, path.Join(w.inner(), mark), []byte(markText), file); err != nil {
		return fmt.Errorf("mark the folder %s as ours: %w", w.inner(), err)
	}
	return nil
}

// take removes an answer, and then our folders if it was the last. It may be cut
// off anywhere and called again.
func (w webroot) take(ctx context.Context, token string) error {
	if err := w.host.Remove(ctx, w.file(token)); err != nil {
		return err
	}
	names, err := w.names(ctx, w.inner())
	if err != nil {
		return unlessGone(err)
	}
	for _, name := range names {
		if strings.Contains(name, token) { // half a file, of a write that was cut off
			if err := w.host.Remove(ctx, path.Join(w.inner(), name)); err != nil {
				return err
			}
		}
	}
	names = slices.DeleteFunc(names, func(name string) bool { return strings.Contains(name, token) })
	for _, mark := range []string{innerMark, outerMark} {
		if err := w.takeMarked(ctx, names, mark); err != nil {
			return unlessGone(err)
		}
	}
	return nil
}

// unlessGone is nil where another controller was quicker.
func unlessGone(err error) error {
	if missing(err) {
		return nil
	}
	return err
}

// takeMarked removes the folder if the mark is all that is in it, or if it was
// going already when somebody was cut off.
func (w webroot) takeMarked(ctx context.Context, names []string, mark string) error {
	if slices.Equal(names, []string{mark}) {
		if err := w.host.Rename(ctx, path.Join(w.inner(), mark), path.Join(w.inner(), mark+going)); err != nil {
			return err
		}
	} else if !slices.Contains(names, mark+going) {
		return nil
	}
	return w.takeFolder(ctx, mark)
}

// takeFolder removes the folder whose mark says that it is going, if there is
// still nothing else in it; else it puts the mark back.
func (w webroot) takeFolder(ctx context.Context, mark string) error {
	names, err := w.names(ctx, w.inner())
	if err != nil {
		return err
	}
	if !slices.Equal(names, []string{mark + going}) {
		return w.host.Rename(ctx, path.Join(w.inner(), mark+going), path.Join(w.inner(), mark))
	}
	if mark == outerMark {
		beside, err := w.names(ctx, w.outer())
		if err != nil {
			return err
		}
		if slices.Equal(beside, []string{path.Base(Path)}) {
			return w.host.Remove(ctx, w.outer())
		}
	}
	return w.host.Remove(ctx, w.inner())
}

func (w webroot) names(ctx context.Context, folder string) ([]string, error) {
	entries, err := w.host.List(ctx, folder)
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name)
	}
	return names, err
}
