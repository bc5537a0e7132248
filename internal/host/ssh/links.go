package ssh

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/pkg/sftp"

	"github.com/certfarm/certfarm/internal/host"
)

// Link makes a symlink in one step; see host.Linker.
func (h *Host) Link(ctx context.Context, target, name string) error {
	if host.OnDrive(name) {
		return at("link", name, errNoLinks)
	}
	_, err := withFiles(ctx, h, func(s session) (struct{}, error) {
		temp := beside(name)
		err := s.anew(temp, func() error { return s.Symlink(target, temp) })
		if err == nil {
			if err = s.replace(temp, name); err != nil {
				_ = s.Client.Remove(temp)
			}
		}
		return struct{}{}, at("link", name, err)
	})
	return err
}

// Readlink returns a symlink's target; see host.Linker.
func (h *Host) Readlink(ctx context.Context, name string) (string, error) {
	if host.OnDrive(name) {
		return "", at("readlink", name, errNoLinks)
	}
	return withFiles(ctx, h, func(s session) (string, error) {
		target, err := s.ReadLink(name)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return target, at("readlink", name, err)
		}
		info, looking := s.Lstat(name) // a server says no more than that it failed
		switch {
		case looking != nil:
			err = looking
		case info.Mode()&fs.ModeSymlink == 0:
			err = host.ErrNotLink
		}
		return "", at("readlink", name, err)
	})
}

// Mkdir makes a folder and its parents; see host.Maker.
func (h *Host) Mkdir(ctx context.Context, name string, a host.Attr) error {
	_, err := withFiles(ctx, h, func(s session) (struct{}, error) {
		return struct{}{}, at("mkdir", name, s.mkdir(wire(name), a))
	})
	return err
}

func (s session) mkdir(name string, a host.Attr) error {
	if s.ctx.Err() == nil && s.Client.Mkdir(name) == nil { // the usual, in one step
		return s.give(name, a)
	}
	return s.mkdirAll(name, a)
}

// mkdirAll makes a folder that may be there, or lack its parent.
func (s session) mkdirAll(name string, a host.Attr) error {
	info, err := s.Stat(name)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return errors.New("something else than a folder is there")
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if parent := path.Dir(name); parent != name {
		if err := s.mkdir(parent, a); err != nil {
			return err
		}
	}
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if err := s.Client.Mkdir(name); err != nil {
		if info, again := s.Stat(name); again == nil && info.IsDir() {
			return nil // another was quicker
		}
		return err
	}
	return s.give(name, a)
}

// give sets owner and mode of a new folder.
func (s session) give(folder string, a host.Attr) error {
	if onDrive(folder) {
		return inherits(a)
	}
	if a.Owner != "" || a.Group != "" {
		uid, gid, err := s.ids(folder, a)
		if err == nil {
			err = s.Chown(folder, uid, gid)
		}
		if err != nil {
			return fmt.Errorf("setting the owner: %w", err)
		}
	}
	return s.Chmod(folder, a.Mode.Perm())
}

// own gives a new file its owner: the one that is asked for, or the one of the
// file that it will replace. One that was made at its own name replaces none.
func (s session) own(f *sftp.File, name string, a host.Attr) error {
	if f.Name() == name && a.Owner == "" && a.Group == "" {
		return nil
	}
	uid, gid, err := s.ids(name, a)
	if err != nil {
		return fmt.Errorf("finding the owner: %w", err)
	}
	if uid < 0 && gid < 0 {
		return nil
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	is, ok := info.Sys().(*sftp.FileStat)
	if !ok {
		return fmt.Errorf("setting the owner: the server does not tell owners")
	}
	uid, gid = or(uid, int(is.UID)), or(gid, int(is.GID))
	if uid == int(is.UID) && gid == int(is.GID) {
		return nil
	}
	if err := f.Chown(uid, gid); err != nil {
		return fmt.Errorf("setting owner %d and group %d (only root may give files away): %w", uid, gid, err)
	}
	return nil
}

func or(id, otherwise int) int {
	if id < 0 {
		return otherwise
	}
	return id
}

// ids are the owner and group that name should have; -1: as it comes.
func (s session) ids(name string, a host.Attr) (uid, gid int, err error) {
	uid, gid = -1, -1
	if a.Owner == "" || a.Group == "" {
		if info, err := s.Lstat(name); err == nil {
			if is, ok := info.Sys().(*sftp.FileStat); ok {
				uid, gid = int(is.UID), int(is.GID)
			}
		}
	}
	if a.Owner != "" {
		if uid, err = s.id("passwd", a.Owner); err != nil {
			return 0, 0, err
		}
	}
	if a.Group != "" {
		if gid, err = s.id("group", a.Group); err != nil {
			return 0, 0, err
		}
	}
	return uid, gid, nil
}

// id is a user's or a group's number. Names are looked up in the node's files,
// then asked of getent, which knows directories such as LDAP. They are
// remembered as long as the connection.
func (s session) id(database, name string) (int, error) {
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	s.line.mu.Lock()
	n, known := s.line.names[database+" "+name]
	s.line.mu.Unlock()
	if known {
		return n, nil
	}
	data, err := s.read("/etc/"+database, host.MaxFile)
	n, ok := entry(string(data), name)
	if !ok && !strings.HasPrefix(name, "-") {
		var out host.Output
		line, quoting := host.Quote(host.Posix, []string{"getent", database, name})
		if quoting == nil {
			_, err = s.line.exec(s.ctx, line, nil, &out)
			n, ok = entry(string(out.Bytes()), name)
		}
	}
	if !ok {
		return 0, fmt.Errorf("no entry %q in the node's %s database: %w", name, database, errors.Join(err, fs.ErrInvalid))
	}
	s.line.mu.Lock()
	s.line.names[database+" "+name] = n
	s.line.mu.Unlock()
	return n, nil
}

// entry finds a name's number in the text of passwd(5) or group(5).
func entry(text, name string) (int, bool) {
	for line := range strings.Lines(text) {
		fields := strings.Split(line, ":")
		if len(fields) < 3 || fields[0] != name {
			continue
		}
		if n, err := strconv.ParseUint(fields[2], 10, 31); err == nil {
			return int(n), true
		}
	}
	return 0, false
}
