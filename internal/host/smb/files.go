package smb

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"

	"github.com/cloudsoda/go-smb2"

	"github.com/certfarm/certfarm/internal/host"
)

// session is the share in the hands of one call.
type session struct {
	*smb2.Share
	ctx context.Context
}

type nothing = struct{}

// Read returns a file's content; see host.Files.
func (h *Host) Read(ctx context.Context, name string) ([]byte, error) {
	return call(ctx, h, task{op: "reading", name: name}, func(s session) ([]byte, error) {
		at, err := inShare(name)
		if err != nil {
			return nil, err
		}
		return s.read(at, host.MaxFile)
	})
}

func (s session) read(at string, limit int) (data []byte, err error) {
	var f *smb2.File
	try := func() error { f, err = s.Open(at); return err }
	if err = s.patient(try); errors.Is(err, fs.ErrNotExist) {
		err = s.patient(try) // Samba says so, too, when the file is replaced between its look and its open
	}
	if err != nil {
		return nil, err
	}
	data, err = io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err == nil && len(data) > limit {
		err = fmt.Errorf("it is larger than %d bytes", limit)
	}
	return data, errors.Join(err, f.Close())
}

func (s session) patient(act func() error) error { return patient(s.ctx, act, never) }

// Write replaces a file in one step; see host.Files. The new content stands as
// a dot file beside it until it is whole, so it has the rights that the folder
// gives. The mode has no meaning on a share, and an owner cannot be set.
func (h *Host) Write(ctx context.Context, name string, data []byte, a host.Attr) error {
	if a.Owner != "" || a.Group != "" {
		return fmt.Errorf("writing %s: a share takes no owner and no group, the folder's rights count: %w", h.unc.At(name), errors.ErrUnsupported)
	}
	_, err := call(ctx, h, task{op: "writing", name: name}, func(s session) (nothing, error) {
		at, err := inShare(name)
		if err != nil {
			return nothing{}, err
		}
		temp := beside(at)
		if err = s.create(temp, data); err == nil {
			err = s.replace(temp, at)
		}
		if err != nil {
			s.clean(temp)
		}
		return nothing{}, err
	})
	return err
}

// beside is where what replaces a file is made. A later try finds it there: what
// a lost line leaves behind does not pile up.
func beside(at string) string {
	return path.Join(path.Dir(at), "."+path.Base(at)+".certfarm-new")
}

// create makes a file, flushes it to the server's disk, and reads it back.
func (s session) create(temp string, data []byte) error {
	const flags = os.O_WRONLY | os.O_CREATE | os.O_EXCL
	f, err := s.OpenFile(temp, flags, 0o600)
	if errors.Is(err, fs.ErrExist) { // left by a call that was cut
		if err = s.patient(func() error { return s.Share.Remove(temp) }); err == nil {
			f, err = s.OpenFile(temp, flags, 0o600)
		}
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	back, err := s.read(temp, max(len(data), 1))
	if err == nil && !bytes.Equal(back, data) {
		err = errors.New("the server has other bytes than were sent")
	}
	return err
}

// replace renames over what is there, in one step, when no reader has it open.
func (s session) replace(from, to string) error {
	folder := false
	err := patient(s.ctx, func() error { return s.Share.Rename(from, to) }, func() bool {
		info, err := s.Lstat(to)
		folder = err == nil && info.IsDir()
		return err == nil && !folder
	})
	switch {
	case folder:
		return errors.New("a folder is in its place")
	case errors.Is(err, fs.ErrPermission) && !errors.Is(err, ErrLocked):
		return fmt.Errorf("replacing it: %w (or a reader holds it open)", err)
	}
	return err
}

// clean takes away what a call leaves that failed, as far as it can: if the line
// is gone, the next Write does it.
func (s session) clean(temp string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), partingTime)
	defer cancel()
	_ = s.Share.WithContext(ctx).Remove(temp)
}

// Rename moves a file over whatever file is there; see host.Files. A reader of
// either is waited for.
func (h *Host) Rename(ctx context.Context, from, to string) error {
	source, err := inShare(from)
	if err != nil {
		return fmt.Errorf("renaming %s: %w", h.unc.At(from), err)
	}
	target, err := inShare(to)
	if err != nil {
		return fmt.Errorf("renaming to %s: %w", h.unc.At(to), err)
	}
	// A rename must not be tried twice: is the line alive?
	_, err = call(ctx, h, task{op: "renaming", name: from}, func(s session) (nothing, error) {
		_, err := s.Lstat(source)
		return nothing{}, err
	})
	if err != nil {
		return err
	}
	_, err = call(ctx, h, task{op: "renaming", name: from, once: true}, func(s session) (nothing, error) {
		return nothing{}, s.replace(source, target)
	})
	return err
}

// Remove deletes a file or a folder with all in it; see host.Files.
func (h *Host) Remove(ctx context.Context, name string) error {
	_, err := call(ctx, h, task{op: "removing", name: name}, func(s session) (nothing, error) {
		at, err := inShare(name)
		if err == nil && at == "" {
			err = errors.New("the share itself is not removed")
		}
		if err == nil {
			err = s.removeAll(at)
		}
		return nothing{}, err
	})
	return err
}

// removeAll does not look into links: they are removed as they are.
func (s session) removeAll(at string) error {
	info, err := s.Lstat(at)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir() && info.Mode()&fs.ModeSymlink == 0 {
		children, err := s.ReadDir(at)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, c := range children {
			if err := s.removeAll(path.Join(at, c.Name())); err != nil {
				return err
			}
		}
	}
	err = s.patient(func() error { return s.Share.Remove(at) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil // another was quicker
	}
	return err
}

// List names what is in a folder, sorted; see host.Files.
func (h *Host) List(ctx context.Context, folder string) ([]host.Entry, error) {
	return call(ctx, h, task{op: "listing", name: folder}, func(s session) ([]host.Entry, error) {
		at, err := inShare(folder)
		if err != nil {
			return nil, err
		}
		found, err := s.ReadDir(at)
		if err != nil {
			return nil, err
		}
		entries := make([]host.Entry, 0, len(found))
		for _, info := range found {
			entries = append(entries, host.Entry{Name: info.Name(), Mode: info.Mode(), Size: info.Size()})
		}
		slices.SortFunc(entries, func(a, b host.Entry) int { return cmp.Compare(a.Name, b.Name) })
		return entries, nil
	})
}

// Mkdir makes a folder and its parents if they are not there. They have the
// rights that the folder above gives.
func (h *Host) Mkdir(ctx context.Context, name string, _ host.Attr) error {
	_, err := call(ctx, h, task{op: "making folder", name: name}, func(s session) (nothing, error) {
		at, err := inShare(name)
		if err == nil && at != "" {
			err = s.mkdirAll(at)
		}
		return nothing{}, err
	})
	return err
}

func (s session) mkdirAll(at string) error {
	info, err := s.Stat(at)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return errors.New("a file is in its place")
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if parent := path.Dir(at); parent != "." {
		if err := s.mkdirAll(parent); err != nil {
			return err
		}
	}
	err = s.Share.Mkdir(at, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil // another was quicker
	}
	return err
}
