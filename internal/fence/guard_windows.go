package fence

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// guarded trusts the folder's rights: modes say nothing on Windows.
func guarded(*os.File) error { return nil }

// lock takes the lock of a file that is open; another process or an earlier call may
// have it.
func lock(ctx context.Context, f *os.File) error {
	return patiently(ctx, func() (bool, error) {
		err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &windows.Overlapped{})
		if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
			return false, nil
		}
		return true, err
	})
}

// syncFolder does nothing: Windows writes a rename with the file system's own journal.
func syncFolder(string) error { return nil }
