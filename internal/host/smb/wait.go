package smb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/certfarm/certfarm/internal/host"
)

// deniedPause is for how long an answer is taken for a lock that may as well be a
// missing right.
const deniedPause = 10 * time.Second

// isLock says that somebody holds the file open. A folder whose files were all
// removed is not empty until the last of their readers has closed.
func isLock(err error) bool {
	switch statusOf(err) {
	case sharingViolation, lockConflict, deletePending, notEmpty:
		return true
	}
	return false
}

// patient is host.Patiently for a share. Windows refuses to replace a file that a
// reader has open with "access denied", as it does where a right is missing: denied
// says whether that may be a lock, too. The end of the context is not in the error's
// chain: that the call took its whole time is what a lock means, and not what went wrong.
func patient(ctx context.Context, act func() error, denied func() bool) error {
	begin := time.Now()
	err := host.Patiently(ctx, func(err error) bool {
		return isLock(err) || errors.Is(err, fs.ErrPermission) && time.Since(begin) < deniedPause && denied()
	}, act)
	if h, ok := errors.AsType[*host.HeldError](err); ok {
		return fmt.Errorf("%w: it was waited for for %s (Get-SmbOpenFile on the file server shows who it is; a scanner of viruses, say): %w",
			ErrLocked, h.Waited.Round(time.Millisecond), h.Err)
	}
	return err
}

// never is for what is denied by rights alone.
func never() bool { return false }
