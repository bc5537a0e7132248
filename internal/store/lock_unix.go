//go:build !windows

package store

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// lockFile makes this process the only one that writes the database. The lock
// ends with the process, however it ends; the file stays.
func lockFile(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(taken(path, err), f.Close())
	}
	if err := f.Truncate(0); err == nil {
		_, err = f.WriteString(strconv.Itoa(os.Getpid()) + "\n")
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return f.Close, nil
}

// taken says who has the lock.
func taken(path string, err error) error {
	if !errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	who := "another certfarm"
	if b, err := os.ReadFile(path); err == nil && len(b) > 1 {
		who += " (process " + strings.TrimSpace(string(b)) + ")"
	}
	return fmt.Errorf("%s uses it: one controller at a time; talk to that one, stop it, or use PostgreSQL for several", who)
}
