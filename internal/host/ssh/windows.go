package ssh

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/pkg/sftp"

	"github.com/certfarm/certfarm/internal/host"
)

// Files of Windows, as OpenSSH for Windows has them: /C:/x is C:/x. What it offers
// differs by version (posix-rename was not one step before 8.3, and readers' locks
// refuse it in all), so nothing is taken for granted: what was written is read back.

// errNoLinks says that a path is one of Windows.
var errNoLinks = fmt.Errorf("symbolic links are not made on Windows: %w", errors.ErrUnsupported)

// errFolder says that a file would replace a folder.
var errFolder = errors.New("a folder is there")

// wire is a path as SFTP has it.
func wire(name string) string {
	if host.OnDrive(name) {
		return "/" + name
	}
	return name
}

// onDrive reports whether a path of SFTP is one of Windows.
func onDrive(name string) bool { return host.OnDrive(strings.TrimPrefix(name, "/")) }

// inherits refuses an owner: a file on Windows has the rights of its folder.
func inherits(a host.Attr) error {
	if a.Owner != "" || a.Group != "" {
		return fmt.Errorf("files on Windows get the rights of their folder, and no owner over SFTP: %w", errors.ErrUnsupported)
	}
	return nil
}

// held says that somebody may have a file open: Windows' sharing violation is
// "permission denied" over SFTP, or a failure without a reason.
func held(err error) bool {
	if status, ok := errors.AsType[*sftp.StatusError](err); ok {
		return status.FxCode() == sftp.ErrSSHFxFailure || status.FxCode() == sftp.ErrSSHFxPermissionDenied
	}
	return errors.Is(err, fs.ErrPermission)
}

// replaceOnDrive renames over what is there, once nobody has it open: in one step
// where the server can, else in those of host.Replace.
func (s session) replaceOnDrive(from, to string) error {
	act := func() error {
		if _, err := (mover{s}).There(to); err != nil {
			return err
		}
		return s.PosixRename(from, to)
	}
	if _, ok := s.HasExtension(extRename); !ok {
		aside := path.Join(path.Dir(to), "."+path.Base(to)+".certfarm-old")
		act = func() error { return host.Replace(mover{s}, from, to, aside) }
	}
	return host.Patiently(s.ctx, held, act)
}

// removeFree removes what nobody has open.
func (s session) removeFree(name string) error {
	if !onDrive(name) {
		return s.removeAll(name)
	}
	return host.Patiently(s.ctx, held, func() error { return s.removeAll(name) })
}

// mover is a session that renames over nothing.
type mover struct{ session }

// Move renames to where nothing is.
func (m mover) Move(from, to string) error { return m.Client.Rename(from, to) }

// Remove deletes a file.
func (m mover) Remove(name string) error { return m.Client.Remove(name) }

// There reports whether a file is.
func (m mover) There(name string) (bool, error) {
	info, err := m.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil && info.IsDir() {
		return false, errFolder
	}
	return err == nil, err
}
