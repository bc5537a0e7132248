package local

import (
	"errors"
	"io/fs"
	"os/exec"

	"golang.org/x/sys/windows"
)

// syncFolder does nothing: Windows writes a rename with the file system's own
// journal and opens no folders for writing.
func syncFolder(string) error { return nil }

// ownerOf knows no numbers on Windows; a new file has its folder's rights.
func ownerOf(string) (uid, gid int) { return -1, -1 }

// held says that somebody may have a file open: replacing it is "access denied"
// then, as it is where a right is missing.
func held(err error) bool {
	return errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, fs.ErrPermission)
}

// together leaves the command as it is: the context ends it alone.
func together(*exec.Cmd) {}
