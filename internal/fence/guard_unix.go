//go:build unix

package fence

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
)

// guarded refuses a file that others than root and its owner may write, or that
// belongs to somebody else than root or this process's own user.
func guarded(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o022 != 0 {
		return errors.New("others may write it: chmod go-w")
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok && s.Uid != 0 && int(s.Uid) != os.Getuid() {
		return fmt.Errorf("it belongs to user %d: chown root", s.Uid)
	}
	return nil
}

// lock takes the lock of a file that is open; another process or an earlier call may
// have it.
func lock(ctx context.Context, f *os.File) error {
	return patiently(ctx, func() (bool, error) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
			return false, nil
		}
		return true, err
	})
}

// syncFolder makes a rename in a folder durable.
func syncFolder(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
