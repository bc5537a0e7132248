package smb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// How a lock is waited for: the first pause, the longest, and for how long an
// answer is taken for a lock that may as well be a missing right.
const (
	firstPause  = 5 * time.Millisecond
	longPause   = 500 * time.Millisecond
	deniedPause = 10 * time.Second
)

// isLock says that somebody holds the file open.
func isLock(err error) bool {
	switch statusOf(err) {
	case sharingViolation, lockConflict, deletePending:
		return true
	}
	return false
}

// patient runs act again while somebody holds the file open, until it is free or
// the context ends. Windows refuses to replace a file that a reader has open with
// "access denied", as it does where a right is missing: denied says whether that
// may be a lock, too.
func patient(ctx context.Context, act func() error, denied func() bool) error {
	pause, begin := firstPause, time.Now()
	for {
		err := act()
		waits := isLock(err)
		if !waits && errors.Is(err, fs.ErrPermission) && time.Since(begin) < deniedPause {
			waits = denied()
		}
		if err == nil || !waits {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w for %s: %w: %w", ErrLocked, time.Since(begin).Round(time.Millisecond), err, ctx.Err())
		}
		pause = min(2*pause, longPause)
	}
}

// never is for what is denied by rights alone.
func never() bool { return false }
