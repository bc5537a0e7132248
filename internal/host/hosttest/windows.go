package hosttest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path"
	"strings"
	"sync"
	"syscall"

	"github.com/certfarm/certfarm/internal/host"
)

// Windows is a host in memory with the ways of Windows that matter here: paths as
// C:/x and no others, no symlinks, no owners, no renaming over what is there, and
// nothing done to a file that somebody has open. It replaces a file as host/ssh does
// where the server has no extension for it. The drive C: is there.
type Windows struct {
	// Step is called before each of the steps that a call takes, as in "move C:/a
	// C:/b"; its error is the step's, which then does nothing. Nil: none.
	Step func(step string) error
	// Exec and Changed are Mem's.
	Exec    func(ctx context.Context, argv []string, stdin []byte) ([]byte, error)
	Changed func()

	mem Mem

	mu   sync.Mutex
	open map[string]int // who has a file open
}

// ErrHeld is what comes of doing something to a file that somebody has open.
var ErrHeld = fmt.Errorf("the process cannot access the file because it is being used by another process: %w", fs.ErrPermission)

// Open opens a file as a server that shares nothing but reading does, until close.
func (w *Windows) Open(name string) (closed func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open == nil {
		w.open = map[string]int{}
	}
	w.open[name]++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.open[name]--
	}
}

// free is nil where nobody has a file, or one below a folder, open.
func (w *Windows) free(name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for at, n := range w.open {
		if n > 0 && (at == name || strings.HasPrefix(at, name+"/")) {
			return &fs.PathError{Op: "open", Path: at, Err: ErrHeld}
		}
	}
	return nil
}

// at is where the memory has a file.
func at(name string) (string, error) {
	if !host.OnDrive(name) || strings.ContainsAny(name[2:], `<>:"\|?*`) {
		return "", fmt.Errorf("%q is no path on Windows", name)
	}
	return "/" + name, nil
}

// step does one step of a call to files that nobody has open.
func (w *Windows) step(ctx context.Context, op string, act func(names []string) error, names ...string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var inside []string
	for _, name := range names {
		in, err := at(name)
		if err != nil {
			return err
		}
		inside = append(inside, in)
	}
	if w.Step != nil {
		if err := w.Step(op + " " + strings.Join(names, " ")); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := w.free(name); err != nil {
			return err
		}
	}
	if err := w.drive(ctx); err != nil {
		return err
	}
	err := act(inside)
	if err == nil && w.Changed != nil {
		w.Changed()
	}
	return err
}

func (w *Windows) drive(ctx context.Context) error {
	return w.mem.Mkdir(ctx, "/C:", host.Attr{Mode: 0o777})
}

// steps is the host as host.Replace sees it.
type steps struct {
	*Windows
	ctx context.Context
}

// Move renames to where nothing is.
func (s steps) Move(from, to string) error {
	return s.step(s.ctx, "move", func(in []string) error {
		if there, err := s.There(to); err != nil || there {
			return errors.Join(err, &fs.PathError{Op: "rename", Path: to, Err: fs.ErrExist})
		}
		return s.mem.Rename(s.ctx, in[0], in[1])
	}, from, to)
}

// Remove deletes a file.
func (s steps) Remove(name string) error {
	return s.step(s.ctx, "delete", func(in []string) error {
		if there, err := s.There(name); err != nil || !there {
			return errors.Join(err, fs.ErrNotExist)
		}
		return s.mem.Remove(s.ctx, in[0])
	}, name)
}

// There reports whether a file is.
func (s steps) There(name string) (bool, error) {
	in, err := at(name)
	if err != nil {
		return false, err
	}
	_, err = s.mem.Readlink(s.ctx, in)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if entries, folder := s.mem.List(s.ctx, in); folder == nil {
		return false, fmt.Errorf("a folder with %d files is there: %w", len(entries), syscall.EISDIR)
	}
	return true, nil
}

func isHeld(err error) bool { return errors.Is(err, ErrHeld) }

// replace is what host/ssh does.
func (w *Windows) replace(ctx context.Context, from, to string) error {
	aside := path.Join(path.Dir(to), "."+path.Base(to)+".certfarm-old")
	return host.Patiently(ctx, isHeld, func() error { return host.Replace(steps{w, ctx}, from, to, aside) })
}

// Read returns a file's content; see host.Files.
func (w *Windows) Read(ctx context.Context, name string) ([]byte, error) {
	in, err := at(name)
	if err != nil {
		return nil, err
	}
	return w.mem.Read(ctx, in)
}

// Write replaces a file by one that is made beside it; see host.Files.
func (w *Windows) Write(ctx context.Context, name string, data []byte, a host.Attr) error {
	if a.Owner != "" || a.Group != "" {
		return fmt.Errorf("writing %s: no owners on Windows: %w", name, errors.ErrUnsupported)
	}
	temp := path.Join(path.Dir(name), "."+path.Base(name)+".certfarm-new")
	err := w.step(ctx, "create", func(in []string) error { return w.mem.Write(ctx, in[0], data, a) }, temp)
	if err == nil {
		err = w.replace(ctx, temp, name)
	}
	if err != nil {
		_ = steps{w, ctx}.Remove(temp)
	}
	return err
}

// Rename moves a file; see host.Files.
func (w *Windows) Rename(ctx context.Context, from, to string) error {
	return w.replace(ctx, from, to)
}

// Remove deletes a file or a folder; see host.Files.
func (w *Windows) Remove(ctx context.Context, name string) error {
	return host.Patiently(ctx, isHeld, func() error {
		return w.step(ctx, "remove", func(in []string) error { return w.mem.Remove(ctx, in[0]) }, name)
	})
}

// List names what is in a folder; see host.Files.
func (w *Windows) List(ctx context.Context, folder string) ([]host.Entry, error) {
	in, err := at(folder)
	if err != nil {
		return nil, err
	}
	return w.mem.List(ctx, in)
}

// Link is refused; see host.Linker.
func (w *Windows) Link(context.Context, string, string) error { return errors.ErrUnsupported }

// Readlink finds no links; see host.Linker.
func (w *Windows) Readlink(context.Context, string) (string, error) { return "", host.ErrNotLink }

// Mkdir makes a folder and its parents; see host.Maker.
func (w *Windows) Mkdir(ctx context.Context, name string, a host.Attr) error {
	return w.step(ctx, "mkdir", func(in []string) error { return w.mem.Mkdir(ctx, in[0], a) }, name)
}

// Run records a command and runs Exec; see host.Runner.
func (w *Windows) Run(ctx context.Context, argv []string, stdin []byte) ([]byte, error) {
	if _, err := w.mem.Run(ctx, argv, stdin); err != nil || w.Exec == nil {
		return nil, err
	}
	return w.Exec(ctx, argv, stdin)
}

// Dial opens a connection from this machine; see host.Dialer.
func (w *Windows) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return w.mem.Dial(ctx, network, address)
}

// Ran lists the commands that ran, each joined by spaces.
func (w *Windows) Ran() []string { return w.mem.Ran() }
