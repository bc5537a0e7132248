// Package local is the controller's own machine as a host.
//
// A file is replaced by a rename of a synced file beside it, and its folder is
// synced after: what a call reported as done is there after a power cut.
package local

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/certfarm/certfarm/internal/host"
)

// Config says how the machine is used.
type Config struct {
	Become string   // "sudo": commands run as `sudo -n -- …`
	Env    []string // the environment of commands, NAME=value; nil: this process's own
}

// Host is the controller's own machine. It is a host.Host and a host.Linker.
type Host struct{ config Config }

// New returns the machine.
func New(c Config) *Host { return &Host{c} }

// Read returns a file's content; see host.Files.
func (*Host) Read(ctx context.Context, name string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.FromSlash(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, host.MaxFile+1))
	if err == nil && len(data) > host.MaxFile {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("it is larger than %d MiB", host.MaxFile>>20)}
	}
	return data, err
}

// Write replaces a file in one step; see host.Files.
func (*Host) Write(ctx context.Context, name string, data []byte, a host.Attr) error {
	name = filepath.FromSlash(name)
	temp := beside(name)
	err := create(ctx, temp, name, data, a)
	if err == nil {
		err = replace(ctx, temp, name)
	}
	if err != nil {
		_ = os.Remove(temp)
	}
	return err
}

// beside is where what replaces name is made.
func beside(name string) string {
	return filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+".certfarm-new")
}

// create makes a synced file with owner and mode set before there is content.
// O_EXCL keeps it from following a link that somebody put there.
func create(ctx context.Context, temp, name string, data []byte, a host.Attr) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	const flags = os.O_WRONLY | os.O_CREATE | os.O_EXCL
	f, err := os.OpenFile(temp, flags, 0o600)
	if errors.Is(err, fs.ErrExist) { // left by a process that died
		if err = os.Remove(temp); err == nil {
			f, err = os.OpenFile(temp, flags, 0o600)
		}
	}
	if err != nil {
		return err
	}
	defer f.Close()
	uid, gid, err := owner(name, a)
	if err != nil {
		return fmt.Errorf("finding the owner of %s: %w", name, err)
	}
	if uid >= 0 || gid >= 0 {
		if err := f.Chown(uid, gid); err != nil {
			return fmt.Errorf("setting the owner (only root may give files away): %w", err)
		}
	}
	if err := f.Chmod(a.Mode.Perm()); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

// replace renames over what is there and syncs the folder.
func replace(ctx context.Context, from, to string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := host.Patiently(ctx, held, func() error { return os.Rename(from, to) }); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(to))
}

// Rename moves a file over whatever is there; see host.Files.
func (*Host) Rename(ctx context.Context, from, to string) error {
	return replace(ctx, filepath.FromSlash(from), filepath.FromSlash(to))
}

// Remove deletes a file or a folder with all in it; see host.Files.
func (*Host) Remove(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return host.Patiently(ctx, held, func() error { return os.RemoveAll(filepath.FromSlash(name)) })
}

// List names what is in a folder; see host.Files.
func (*Host) List(ctx context.Context, folder string) ([]host.Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	found, err := os.ReadDir(filepath.FromSlash(folder)) // sorted
	if err != nil {
		return nil, err
	}
	entries := make([]host.Entry, 0, len(found))
	for _, e := range found {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone since
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, host.Entry{Name: e.Name(), Mode: info.Mode(), Size: info.Size()})
	}
	return entries, nil
}

// Link makes a symlink in one step; see host.Linker.
func (*Host) Link(ctx context.Context, target, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	name = filepath.FromSlash(name)
	temp := beside(name)
	err := os.Symlink(filepath.FromSlash(target), temp)
	if errors.Is(err, fs.ErrExist) { // left by a process that died
		if err = os.Remove(temp); err == nil {
			err = os.Symlink(filepath.FromSlash(target), temp)
		}
	}
	if err == nil {
		if err = replace(ctx, temp, name); err != nil {
			_ = os.Remove(temp)
		}
	}
	return err
}

// Readlink returns a symlink's target; see host.Linker.
func (*Host) Readlink(ctx context.Context, name string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	info, err := os.Lstat(filepath.FromSlash(name))
	if err == nil && info.Mode()&fs.ModeSymlink == 0 {
		err = &fs.PathError{Op: "readlink", Path: name, Err: host.ErrNotLink}
	}
	if err != nil {
		return "", err
	}
	target, err := os.Readlink(filepath.FromSlash(name))
	return filepath.ToSlash(target), err
}

// Mkdir makes a folder and its parents; see host.Maker.
func (h *Host) Mkdir(ctx context.Context, name string, a host.Attr) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	local := filepath.FromSlash(name)
	if info, err := os.Stat(local); err == nil && info.IsDir() {
		return nil
	}
	if parent := filepath.Dir(local); parent != local {
		if err := h.Mkdir(ctx, filepath.ToSlash(parent), a); err != nil {
			return err
		}
	}
	if err := os.Mkdir(local, a.Mode.Perm()); err != nil {
		if info, again := os.Stat(local); again == nil && info.IsDir() {
			return nil // another was quicker
		}
		return err
	}
	if err := give(local, a); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(local))
}

// give sets owner and mode of a new folder; the umask took bits away.
func give(folder string, a host.Attr) error {
	uid, gid, err := owner("", a)
	if err != nil {
		return fmt.Errorf("finding the owner of %s: %w", folder, err)
	}
	if uid >= 0 || gid >= 0 {
		if err := os.Chown(folder, uid, gid); err != nil {
			return fmt.Errorf("setting the owner (only root may give files away): %w", err)
		}
	}
	return os.Chmod(folder, a.Mode.Perm())
}

// owner is the uid and gid that name should have: those asked for, or those of
// what is there now; -1: as it comes.
func owner(name string, a host.Attr) (uid, gid int, err error) {
	uid, gid = ownerOf(name)
	if uid == os.Getuid() && gid == os.Getgid() {
		uid, gid = -1, -1 // a new file's anyway
	}
	if a.Owner != "" {
		if uid, err = number(a.Owner, func() (string, error) {
			u, err := user.Lookup(a.Owner)
			if err != nil {
				return "", err
			}
			return u.Uid, nil
		}); err != nil {
			return 0, 0, err
		}
	}
	if a.Group != "" {
		if gid, err = number(a.Group, func() (string, error) {
			g, err := user.LookupGroup(a.Group)
			if err != nil {
				return "", err
			}
			return g.Gid, nil
		}); err != nil {
			return 0, 0, err
		}
	}
	return uid, gid, nil
}

func number(name string, look func() (string, error)) (int, error) {
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	text, err := look()
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

// Run runs a command without a shell; see host.Runner. At the context's end it
// is killed with all that it started.
func (h *Host) Run(ctx context.Context, argv []string, stdin []byte) ([]byte, error) {
	words := slices.Clone(argv)
	if h.config.Become == "sudo" {
		words = append([]string{"sudo", "-n", "--"}, words...)
	}
	if len(argv) == 0 {
		return nil, errors.New("running a command: there is none")
	}
	var out host.Output
	c := exec.CommandContext(ctx, words[0], words[1:]...)
	c.Stdout, c.Stderr, c.Env = &out, &out, h.config.Env
	c.WaitDelay = time.Second // a server that it started may hold the output open for ever
	together(c)
	c.Stdin = bytes.NewReader(stdin)
	err := c.Run()
	exit, ran := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		return out.Bytes(), nil
	case ctx.Err() != nil:
		return out.Bytes(), fmt.Errorf("running %s: %w", argv[0], cmp.Or(context.Cause(ctx), ctx.Err()))
	case ran:
		return out.Bytes(), &host.ExitError{Argv: argv, Status: exit.ExitCode(), Output: out.Bytes()}
	}
	return nil, fmt.Errorf("running %s: %w", argv[0], err)
}

// Dial opens a connection; see host.Dialer.
func (*Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}
