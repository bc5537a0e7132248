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
// may be a lock, too. The end of the context is not in the error's chain: that the
// call took its whole time is what a lock means, and not what went wrong.
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
			return fmt.Errorf("%w: it was waited for for %s (Get-SmbOpenFile on the file server shows who it is; a scanner of viruses, say): %w",
				ErrLocked, time.Since(begin).Round(time.Millisecond), err)
		}
		pause = min(2*pause, longPause)
	}
}

// never is for what is denied by rights alone.
func never() bool { return false }
