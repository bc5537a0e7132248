package sshserver

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/pkg/sftp"
)

// Path is the file on this machine that clients know by name.
func (s *Server) Path(name string) string { return tree{root: s.Root}.local(name) }

// tree is a real folder as SFTP clients see it. A client with write access can
// place symlinks that lead out of the root by way of "..": the double is no jail.
type tree struct {
	root     string
	faults   *faults
	noRename bool
}

func (t tree) local(name string) string {
	return filepath.FromSlash(path.Join(filepath.ToSlash(t.root), path.Clean("/"+name)))
}

// Fileread opens a file for reading.
func (t tree) Fileread(r *sftp.Request) (io.ReaderAt, error) {
	return os.Open(t.local(r.Filepath))
}

// Filewrite opens a file for writing.
func (t tree) Filewrite(r *sftp.Request) (io.WriterAt, error) {
	if t.faults.get().DiskFull {
		return nil, syscall.ENOSPC
	}
	return t.open(r, os.O_WRONLY)
}

// OpenFile opens a file for writing and reading.
func (t tree) OpenFile(r *sftp.Request) (sftp.WriterAtReaderAt, error) {
	if t.faults.get().DiskFull {
		return nil, syscall.ENOSPC
	}
	return t.open(r, os.O_RDWR)
}

func (t tree) open(r *sftp.Request, flags int) (sftp.WriterAtReaderAt, error) {
	want := r.Pflags()
	for bit, on := range map[int]bool{os.O_CREATE: want.Creat, os.O_TRUNC: want.Trunc, os.O_EXCL: want.Excl} {
		if on {
			flags |= bit
		}
	}
	f, err := os.OpenFile(t.local(r.Filepath), flags, 0o644)
	if err != nil {
		return nil, err
	}
	return upload{f, t.faults}, nil
}

// upload is an open file on a disk with faults.
type upload struct {
	*os.File
	faults *faults
}

// WriteAt writes what arrived, or what the fault makes of it.
func (u upload) WriteAt(b []byte, off int64) (int, error) {
	now := u.faults.get()
	switch {
	case now.DiskFull:
		return 0, syscall.ENOSPC
	case now.Alter != nil:
		if _, err := u.File.WriteAt(now.Alter(u.Name(), b), off); err != nil {
			return 0, err
		}
		return len(b), nil
	}
	return u.File.WriteAt(b, off)
}

// Filecmd does what is neither reading nor writing.
func (t tree) Filecmd(r *sftp.Request) error {
	name := t.local(r.Filepath)
	switch r.Method {
	case "Setstat":
		return t.setstat(name, r)
	case "Rename": // never over what is there (draft-ietf-secsh-filexfer-02 §6.5)
		to := t.local(r.Target)
		if _, err := os.Lstat(to); err == nil {
			return sftp.ErrSSHFxFailure
		}
		return os.Rename(name, to)
	case "Rmdir":
		return remove(name, true)
	case "Remove":
		return remove(name, false)
	case "Mkdir":
		if t.faults.get().DiskFull {
			return syscall.ENOSPC
		}
		return os.Mkdir(name, 0o755)
	case "Symlink": // the library calls the link's own name Target
		if t.faults.get().DiskFull {
			return syscall.ENOSPC
		}
		to := r.Filepath
		if path.IsAbs(to) {
			to = t.local(to)
		}
		return os.Symlink(to, t.local(r.Target))
	}
	return fmt.Errorf("%s: %w", r.Method, sftp.ErrSSHFxOpUnsupported)
}

// remove keeps apart what os.Remove does not: files and folders.
func remove(name string, folder bool) error {
	info, err := os.Lstat(name)
	if err != nil {
		return err
	}
	if info.IsDir() != folder {
		return sftp.ErrSSHFxFailure
	}
	return os.Remove(name)
}

func (t tree) setstat(name string, r *sftp.Request) error {
	set, to := r.AttrFlags(), r.Attributes()
	if set.Size {
		if err := os.Truncate(name, int64(to.Size)); err != nil {
			return err
		}
	}
	if set.Permissions {
		if err := os.Chmod(name, to.FileMode().Perm()); err != nil {
			return err
		}
	}
	if set.UidGid {
		if err := os.Chown(name, int(to.UID), int(to.GID)); err != nil {
			return err
		}
	}
	if set.Acmodtime {
		return os.Chtimes(name, to.AccessTime(), to.ModTime())
	}
	return nil
}

// renamer is a tree that can rename over what is there.
type renamer struct{ tree }

// PosixRename is posix-rename@openssh.com.
func (t renamer) PosixRename(r *sftp.Request) error {
	return os.Rename(t.local(r.Filepath), t.local(r.Target))
}

// Filelist lists a folder or stats a file.
func (t tree) Filelist(r *sftp.Request) (sftp.ListerAt, error) {
	name := t.local(r.Filepath)
	if r.Method == "Stat" {
		info, err := os.Stat(name)
		return infos{info}, err
	}
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	var all infos
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			all = append(all, info)
		}
	}
	return all, nil
}

// Lstat stats a file without following a symlink.
func (t tree) Lstat(r *sftp.Request) (sftp.ListerAt, error) {
	info, err := os.Lstat(t.local(r.Filepath))
	return infos{info}, err
}

// Readlink returns a symlink's target as the client knows it.
func (t tree) Readlink(name string) (string, error) {
	to, err := os.Readlink(t.local(name))
	if err != nil {
		return "", err
	}
	to = filepath.ToSlash(to)
	if rest, inside := strings.CutPrefix(to, filepath.ToSlash(t.root)+"/"); t.root != "" && inside {
		return "/" + rest, nil
	}
	return to, nil
}

// infos is a listing.
type infos []fs.FileInfo

// ListAt copies the part of the listing that starts at offset.
func (all infos) ListAt(to []fs.FileInfo, offset int64) (int, error) {
	if offset >= int64(len(all)) {
		return 0, io.EOF
	}
	n := copy(to, all[offset:])
	if n < len(to) {
		return n, io.EOF
	}
	return n, nil
}
