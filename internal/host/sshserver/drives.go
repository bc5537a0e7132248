package sshserver

import (
	"io"
	"os"
	"path"
	"strings"
	"sync"

	"github.com/pkg/sftp"
)

// held counts who has files open, by their names for clients.
type held struct {
	mu    sync.Mutex
	files map[string]int
}

// Hold opens a file, as in C:/x, the way a server does that shares nothing but
// reading, until free.
func (s *Server) Hold(name string) (free func()) {
	h := &s.held
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.files == nil {
		h.files = map[string]int{}
	}
	h.files["/"+name]++
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.files["/"+name]--
	}
}

// drives is a tree with the ways of Windows.
type drives struct {
	tree
	held *held
}

func (d drives) handlers(renames bool) sftp.Handlers {
	h := sftp.Handlers{FileGet: d, FilePut: d, FileCmd: d, FileList: d}
	if renames {
		h.FileCmd = driveRenamer{d}
	}
	return h
}

// admit refuses names that are none on Windows, and files that somebody has open. A
// sharing violation is "permission denied" in SFTP.
func (d drives) admit(names ...string) error {
	for _, name := range names {
		if len(name) < 3 || name[2] != ':' || strings.ContainsAny(name[3:], `<>:"\|?*`) || (len(name) > 3 && name[3] != '/') {
			return os.ErrNotExist
		}
		d.held.mu.Lock()
		n := d.held.files[name]
		d.held.mu.Unlock()
		if n > 0 {
			return os.ErrPermission
		}
	}
	return nil
}

// Fileread opens a file for reading, which others that read allow.
func (d drives) Fileread(r *sftp.Request) (io.ReaderAt, error) {
	if err := d.admit(path.Dir(r.Filepath)); err != nil {
		return nil, err
	}
	return d.tree.Fileread(r)
}

// OpenFile opens a file for writing and reading.
func (d drives) OpenFile(r *sftp.Request) (sftp.WriterAtReaderAt, error) {
	if err := d.before("Write", r.Filepath); err != nil {
		return nil, err
	}
	return d.tree.OpenFile(r)
}

// Filewrite opens a file for writing.
func (d drives) Filewrite(r *sftp.Request) (io.WriterAt, error) {
	if err := d.before("Write", r.Filepath); err != nil {
		return nil, err
	}
	return d.tree.Filewrite(r)
}

// Filecmd does what is neither reading nor writing: modes say nothing, and nobody
// gets an owner or a symlink.
func (d drives) Filecmd(r *sftp.Request) error {
	names := []string{r.Filepath}
	if r.Method == "Rename" {
		names = append(names, r.Target)
	}
	if err := d.before(r.Method, names...); err != nil {
		return err
	}
	if r.Method == "Symlink" || (r.Method == "Setstat" && r.AttrFlags().UidGid) {
		return sftp.ErrSSHFxOpUnsupported
	}
	if r.Method == "Setstat" && r.AttrFlags().Permissions {
		return nil
	}
	return d.tree.Filecmd(r)
}

func (d drives) before(method string, names ...string) error {
	if f := d.faults.get().Before; f != nil {
		if err := f(method + " " + strings.Join(names, " ")); err != nil {
			return err
		}
	}
	return d.admit(names...)
}

// Readlink finds no symlinks.
func (drives) Readlink(string) (string, error) { return "", sftp.ErrSSHFxOpUnsupported }

// driveRenamer are drives whose server can rename over what is there.
type driveRenamer struct{ drives }

// PosixRename is posix-rename@openssh.com: MoveFileExW in OpenSSH for Windows.
func (d driveRenamer) PosixRename(r *sftp.Request) error {
	if err := d.before("PosixRename", r.Filepath, r.Target); err != nil {
		return err
	}
	return os.Rename(d.local(r.Filepath), d.local(r.Target))
}
