package ssh

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/gather"
)

// The OpenSSH extensions that make a replacement one step and durable
// (OpenSSH's PROTOCOL, sections 4.3 and 4.6). SFTP cannot sync a folder; the
// journals of the usual file systems keep a rename behind the synced content.
const (
	extRename = "posix-rename@openssh.com"
	extFsync  = "fsync@openssh.com"
)

// open returns the one SFTP session of the line.
func (l *line) open() (*sftp.Client, error) {
	l.files.Lock()
	defer l.files.Unlock()
	if l.sftp == nil {
		c, err := l.subsystem()
		if err != nil {
			return nil, fmt.Errorf("opening SFTP (does the server have `Subsystem sftp`?): %w", err)
		}
		l.sftp = c
	}
	return l.sftp, nil
}

// subsystem opens SFTP. What many calls ask for at one time goes as one.
func (l *line) subsystem() (*sftp.Client, error) {
	var s *ssh.Session
	err := l.uncrowded(func() (err error) {
		s, err = l.client.NewSession()
		return err
	})
	if err != nil {
		return nil, err
	}
	to, err := s.StdinPipe()
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	from, err := s.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	said, err := s.StderrPipe()
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.RequestSubsystem("sftp"); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	g := gather.New(to)
	l.wg.Go(g.Run)
	l.wg.Go(func() { _, _ = io.Copy(io.Discard, said) })
	c, err := sftp.NewClientPipe(bufio.NewReaderSize(from, 64<<10), g)
	if err != nil {
		return nil, errors.Join(err, g.Close(), s.Close())
	}
	return c, nil
}

// session is the SFTP session in the hands of one call, which looks at its
// context before each step that changes something.
type session struct {
	*sftp.Client
	ctx  context.Context
	line *line
}

// withFiles is call with the SFTP session.
func withFiles[T any](ctx context.Context, h *Host, f func(session) (T, error)) (T, error) {
	return call(ctx, h, func(ctx context.Context, l *line) (v T, err error) {
		c, err := l.open()
		if err != nil {
			return v, err
		}
		return f(session{c, ctx, l})
	})
}

// Read returns a file's content; see host.Files.
func (h *Host) Read(ctx context.Context, name string) ([]byte, error) {
	return withFiles(ctx, h, func(s session) ([]byte, error) {
		data, err := s.read(wire(name), host.MaxFile)
		return data, at("read", name, err)
	})
}

func (s session) read(name string, limit int) ([]byte, error) {
	f, err := s.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var data []byte
	for part := make([]byte, firstRead); ; part = make([]byte, nextRead) {
		n, err := f.Read(part)
		data = append(data, part[:n]...)
		switch {
		case len(data) > limit:
			return nil, fmt.Errorf("it is larger than %d bytes", limit)
		case errors.Is(err, io.EOF):
			return data, nil
		case err != nil:
			return nil, err
		}
	}
}

// How much is asked for at a time: a certificate comes with the first answer.
const (
	firstRead = 8 << 10
	nextRead  = 256 << 10
)

// Write replaces a file in one step; see host.Files. The new content stands as
// a dot file beside it until it is whole.
func (h *Host) Write(ctx context.Context, name string, data []byte, a host.Attr) error {
	_, err := withFiles(ctx, h, func(s session) (struct{}, error) {
		live := wire(name)
		temp := beside(live)
		err := s.create(temp, live, data, a)
		if err == nil {
			err = s.replace(temp, live)
		}
		if err != nil && !(onDrive(live) && ctx.Err() != nil) { // its caller may be at the next try already, which finds it
			_ = s.Client.Remove(temp)
		}
		return struct{}{}, at("write", name, err)
	})
	return err
}

// beside is where what replaces name is made. A later try finds it there: what a
// lost line leaves behind does not pile up.
func beside(name string) string {
	return path.Join(path.Dir(name), "."+path.Base(name)+".certfarm-new")
}

// create makes a synced file with owner and mode set before there is content.
// O_EXCL keeps it from following a link that somebody put there.
func (s session) create(temp, name string, data []byte, a host.Attr) error {
	var f *sftp.File
	err := s.anew(temp, func() (err error) {
		f, err = s.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
		return err
	})
	if err != nil {
		return err
	}
	defer f.Close()
	if err := s.admit(f, name, a); err != nil {
		return err
	}
	return s.fill(f, data)
}

// admit says who may use a new file.
func (s session) admit(f *sftp.File, name string, a host.Attr) error {
	if onDrive(name) {
		return inherits(a)
	}
	if err := s.own(f, name, a); err != nil {
		return err
	}
	if err := f.Chmod(a.Mode.Perm()); err != nil {
		return fmt.Errorf("setting the mode: %w", err)
	}
	return nil
}

// anew makes something at a temporary name, where a call that was cut may have
// left its own.
func (s session) anew(temp string, make func() error) error {
	err := make()
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || s.Client.Remove(temp) != nil {
		return err
	}
	return make()
}

// fill writes the content, and syncs it or reads it back.
func (s session) fill(f *sftp.File, data []byte) error {
	if err := s.send(f, data); err != nil {
		return err
	}
	if err := f.Close(); err != nil || (s.syncs() && !onDrive(f.Name())) {
		return err
	}
	back, err := s.read(f.Name(), len(data))
	if err == nil && !bytes.Equal(back, data) {
		err = errors.New("the server has other bytes than were sent")
	}
	return err
}

// Create makes a new file and reads it back; see host.Creator.
func (h *Host) Create(ctx context.Context, name string, data []byte, a host.Attr) ([]byte, error) {
	return withFiles(ctx, h, func(s session) ([]byte, error) {
		back, err := s.createOnce(wire(name), data, a)
		return back, at("create", name, err)
	})
}

// createOnce opens a new file once for all that is done to it.
func (s session) createOnce(name string, data []byte, a host.Attr) (back []byte, err error) {
	if err := s.ctx.Err(); err != nil {
		return nil, err
	}
	f, err := s.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	defer func() {
		if err != nil {
			_ = s.Client.Remove(name)
		}
	}()
	if err := s.admit(f, name, a); err != nil {
		return nil, err
	}
	if err := s.send(f, data); err != nil {
		return nil, err
	}
	back = make([]byte, len(data))
	n, err := f.ReadAt(back, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading it back: %w", err)
	}
	return back[:n], f.Close()
}

// send writes the content, and syncs it where the server can.
func (s session) send(f *sftp.File, data []byte) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if n, err := f.Write(data); err != nil || n != len(data) {
		return errors.Join(err, short(n, len(data)))
	}
	if !s.syncs() {
		return nil
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("syncing: %w", err)
	}
	return nil
}

// syncs reports that the server has fsync.
func (s session) syncs() bool {
	_, has := s.HasExtension(extFsync)
	return has
}

func short(n, want int) error {
	if n == want {
		return nil
	}
	return fmt.Errorf("only %d of %d bytes were written", n, want)
}

// replace renames over what is there, in one step.
func (s session) replace(from, to string) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if onDrive(to) {
		return s.replaceOnDrive(from, to)
	}
	if _, ok := s.HasExtension(extRename); ok {
		return s.PosixRename(from, to)
	}
	if _, err := s.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the SFTP server lacks %s, so it cannot replace a file in one step: %w", extRename, errors.Join(err, errors.ErrUnsupported))
	}
	return s.Client.Rename(from, to)
}

// Rename moves a file over whatever is there; see host.Files.
func (h *Host) Rename(ctx context.Context, from, to string) error {
	_, err := withFiles(ctx, h, func(s session) (struct{}, error) {
		return struct{}{}, at("rename", from, s.replace(wire(from), wire(to)))
	})
	return err
}

// Remove deletes a file or a folder with all in it; see host.Files.
func (h *Host) Remove(ctx context.Context, name string) error {
	_, err := withFiles(ctx, h, func(s session) (struct{}, error) {
		return struct{}{}, at("remove", name, s.removeFree(wire(name)))
	})
	return err
}

func (s session) removeAll(name string) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if gone(s.Client.Remove(name)) == nil { // the usual, in one step: a file, or an empty folder
		return nil
	}
	info, err := s.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return gone(s.Client.Remove(name))
	}
	entries, err := s.ReadDirContext(s.ctx, name)
	if err != nil {
		return gone(err)
	}
	for _, e := range entries {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		inside := path.Join(name, e.Name())
		if e.Mode().IsRegular() && s.Client.Remove(inside) == nil { // the usual, in one step
			continue
		}
		if err := s.removeAll(inside); err != nil {
			return err
		}
	}
	return gone(s.RemoveDirectory(name))
}

// gone forgives that something is no more.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// List names what is in a folder; see host.Files.
func (h *Host) List(ctx context.Context, folder string) ([]host.Entry, error) {
	return withFiles(ctx, h, func(s session) ([]host.Entry, error) {
		infos, err := s.ReadDirContext(s.ctx, wire(folder))
		if err != nil {
			return nil, at("list", folder, err)
		}
		entries := make([]host.Entry, 0, len(infos))
		for _, i := range infos {
			entries = append(entries, host.Entry{Name: i.Name(), Mode: i.Mode(), Size: i.Size()})
		}
		slices.SortFunc(entries, func(a, b host.Entry) int { return strings.Compare(a.Name, b.Name) })
		return entries, nil
	})
}

// at names the file of an error.
func at(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}
