package ccs

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/windows"
)

// heldOpen says that somebody has a file open. Replacing such a file is "access
// denied" on Windows, as it is where a right is missing.
func heldOpen(err error) bool {
	return errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, fs.ErrPermission)
}
