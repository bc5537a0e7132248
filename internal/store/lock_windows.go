package store

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// lockFile makes this process the only one that writes the database. The lock
// ends with the process, however it ends; the file stays.
func lockFile(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	err = windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, new(windows.Overlapped))
	switch {
	case errors.Is(err, windows.ERROR_LOCK_VIOLATION):
		err = errors.New("another certfarm uses it: one controller at a time; talk to that one, stop it, or use PostgreSQL for several")
	case err != nil:
		err = fmt.Errorf("lock %s: %w", path, err)
	default:
		return f.Close, nil
	}
	return nil, errors.Join(err, f.Close())
}
