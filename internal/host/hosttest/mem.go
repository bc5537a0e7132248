// Package hosttest has hosts for tests: one in memory, one with faults, and the
// contract that every host keeps.
package hosttest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/certfarm/certfarm/internal/host"
)

// Mem is a host in memory, with folders, symlinks, modes and owners. The zero
// value has an empty root folder and runs every command with success. Its
// context is looked at and nothing else fails: faults are Faulty's.
type Mem struct {
	// Exec runs commands, while the host is not locked; nil: all succeed.
	Exec func(ctx context.Context, argv []string, stdin []byte) ([]byte, error)
	// Changed is called after each change of a file or a link; it may read.
	Changed func()

	mu    sync.Mutex
	nodes map[string]node
	ran   [][]string
}

// node is a file, a folder, or a symlink.
type node struct {
	mode   fs.FileMode
	data   []byte
	target string
	attr   host.Attr
}

const maxLinks = 40 // as in Linux: more is a loop

// Ran lists the commands that ran, each joined by spaces.
func (m *Mem) Ran() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []string
	for _, argv := range m.ran {
		all = append(all, strings.Join(argv, " "))
	}
	return all
}

// Tree is everything on the host: path to content, "→ target" for a symlink,
// "/" for a folder. For comparing.
func (m *Mem) Tree() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	tree := map[string]string{}
	for name, n := range m.nodes {
		switch {
		case n.mode.IsDir():
			tree[name] = "/"
		case n.mode&fs.ModeSymlink != 0:
			tree[name] = "→ " + n.target
		default:
			tree[name] = string(n.data)
		}
	}
	return tree
}

// Attr is the mode and owner that a file was last given.
func (m *Mem) Attr(name string) host.Attr {
	m.mu.Lock()
	defer m.mu.Unlock()
	real, err := m.resolve(name, true)
	if err != nil {
		return host.Attr{}
	}
	n := m.nodes[real]
	n.attr.Mode = n.mode.Perm()
	return n.attr
}

// resolve is the path without symlinks: of the folder only, or of all.
// The last part need not be there; the folder must.
func (m *Mem) resolve(name string, all bool) (string, error) {
	if m.nodes == nil {
		m.nodes = map[string]node{"/": {mode: fs.ModeDir | 0o755}}
	}
	if !path.IsAbs(name) {
		return "", fmt.Errorf("%q is not absolute", name)
	}
	at, rest := "/", strings.Split(strings.Trim(name, "/"), "/")
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			continue
		}
		if !m.nodes[at].mode.IsDir() {
			return "", fs.ErrNotExist
		}
		next := path.Join(at, part)
		n := m.nodes[next]
		if n.mode&fs.ModeSymlink == 0 || (len(rest) == 0 && !all) {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", syscall.ELOOP
		}
		if path.IsAbs(n.target) {
			at = "/"
		}
		rest = append(strings.Split(strings.Trim(n.target, "/"), "/"), rest...)
	}
	return at, nil
}

// change runs f under the lock and reports it.
func (m *Mem) change(ctx context.Context, op, name string, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	err := f()
	m.mu.Unlock()
	if err != nil {
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	if m.Changed != nil {
		m.Changed()
	}
	return nil
}

// Read returns a file's content; see host.Files.
func (m *Mem) Read(ctx context.Context, name string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	real, err := m.resolve(name, true)
	n, there := m.nodes[real]
	switch {
	case err == nil && !there:
		err = fs.ErrNotExist
	case err == nil && !n.mode.IsRegular():
		err = syscall.EISDIR
	case err == nil && len(n.data) > host.MaxFile:
		err = errors.New("it is too large")
	}
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return slices.Clone(n.data), nil
}

// place is where something may be put in place of what is not a folder.
func (m *Mem) place(name string) (string, error) {
	real, err := m.resolve(name, false)
	switch {
	case err != nil:
		return "", err
	case !m.nodes[path.Dir(real)].mode.IsDir():
		return "", fs.ErrNotExist
	case m.nodes[real].mode.IsDir():
		return "", syscall.EISDIR
	}
	return real, nil
}

// Write replaces a file; see host.Files.
func (m *Mem) Write(ctx context.Context, name string, data []byte, a host.Attr) error {
	return m.change(ctx, "write", name, func() error {
		real, err := m.place(name)
		if err != nil {
			return err
		}
		old := m.nodes[real].attr
		if a.Owner == "" {
			a.Owner = old.Owner
		}
		if a.Group == "" {
			a.Group = old.Group
		}
		m.nodes[real] = node{mode: a.Mode.Perm(), data: slices.Clone(data), attr: a}
		return nil
	})
}

// Rename moves a file or a symlink; see host.Files.
func (m *Mem) Rename(ctx context.Context, from, to string) error {
	return m.change(ctx, "rename", from, func() error {
		source, err := m.place(from)
		if err != nil {
			return err
		}
		target, err := m.place(to)
		if err != nil {
			return err
		}
		n, there := m.nodes[source]
		if !there {
			return fs.ErrNotExist
		}
		delete(m.nodes, source)
		m.nodes[target] = n
		return nil
	})
}

// Remove deletes a file or a folder; see host.Files.
func (m *Mem) Remove(ctx context.Context, name string) error {
	return m.change(ctx, "remove", name, func() error {
		real, err := m.resolve(name, false)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		maps.DeleteFunc(m.nodes, func(at string, _ node) bool { return at == real || strings.HasPrefix(at, real+"/") })
		return nil
	})
}

// List names what is in a folder; see host.Files.
func (m *Mem) List(ctx context.Context, folder string) ([]host.Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	real, err := m.resolve(folder, true)
	if err == nil && !m.nodes[real].mode.IsDir() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, &fs.PathError{Op: "list", Path: folder, Err: err}
	}
	var entries []host.Entry
	for at, n := range m.nodes {
		if at != "/" && path.Dir(at) == real {
			entries = append(entries, host.Entry{Name: path.Base(at), Mode: n.mode, Size: int64(len(n.data))})
		}
	}
	slices.SortFunc(entries, func(a, b host.Entry) int { return strings.Compare(a.Name, b.Name) })
	return entries, nil
}

// Link makes a symlink; see host.Linker.
func (m *Mem) Link(ctx context.Context, target, name string) error {
	return m.change(ctx, "link", name, func() error {
		real, err := m.place(name)
		if err == nil {
			m.nodes[real] = node{mode: fs.ModeSymlink | 0o777, target: target}
		}
		return err
	})
}

// Readlink returns a symlink's target; see host.Linker.
func (m *Mem) Readlink(ctx context.Context, name string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	real, err := m.resolve(name, false)
	n, there := m.nodes[real]
	switch {
	case err == nil && !there:
		err = fs.ErrNotExist
	case err == nil && n.mode&fs.ModeSymlink == 0:
		err = host.ErrNotLink
	}
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return n.target, nil
}

// Mkdir makes a folder and its parents; see host.Maker.
func (m *Mem) Mkdir(ctx context.Context, name string, a host.Attr) error {
	return m.change(ctx, "mkdir", name, func() error { return m.mkdir(name, a) })
}

func (m *Mem) mkdir(name string, a host.Attr) error {
	if name != "/" {
		if err := m.mkdir(path.Dir(path.Clean(name)), a); err != nil {
			return err
		}
	}
	real, err := m.resolve(name, true)
	if err != nil {
		return err
	}
	n, there := m.nodes[real]
	if there && !n.mode.IsDir() {
		return syscall.ENOTDIR
	}
	if !there {
		m.nodes[real] = node{mode: fs.ModeDir | a.Mode.Perm(), attr: a}
	}
	return nil
}

// Run records a command and runs Exec; see host.Runner.
func (m *Mem) Run(ctx context.Context, argv []string, stdin []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.ran = append(m.ran, slices.Clone(argv))
	m.mu.Unlock()
	if m.Exec == nil {
		return nil, nil
	}
	return m.Exec(ctx, argv, stdin)
}

// Dial opens a connection from this machine; see host.Dialer.
func (m *Mem) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}
