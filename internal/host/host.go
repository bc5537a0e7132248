// Package host reaches machines. A deployer is written once against Host and
// runs on the controller's own machine (host/local), over SSH and SFTP
// (host/ssh), or in memory for tests (host/hosttest).
package host

import (
	"context"
	"errors"
	"io/fs"
	"net"
)

// A Host is what a node offers: its files, its commands, and the network as it
// is seen from there. It may be used by many goroutines at once.
type Host interface {
	Files
	Runner
	Dialer
}

// Files are a node's files. Names are absolute, with forward slashes: /etc/x, or
// C:/x on Windows.
type Files interface {
	// Read returns a file's content. The error of a file that is not there is
	// fs.ErrNotExist. Files over 4 MiB are refused.
	Read(ctx context.Context, name string) ([]byte, error)
	// Write replaces a file in one step: a reader sees the old content or the
	// new, never a part. Owner and mode are set before there is content; file
	// and folder are synced, or read back where the server has no fsync.
	//
	// On Windows a file that somebody has open is waited for, at most LockTime, and
	// rights are the folder's: the mode says nothing. Where the server cannot rename
	// over a file, there is none for the time of a step; see Replace.
	Write(ctx context.Context, name string, data []byte, a Attr) error
	// Rename moves a file or a symlink over whatever is there, in one step.
	Rename(ctx context.Context, from, to string) error
	// Remove deletes a file, a symlink, or a folder with all in it; what is not
	// there is no error. A symlink is never followed.
	Remove(ctx context.Context, name string) error
	// List names what is in a folder, sorted; fs.ErrNotExist if it is not there.
	List(ctx context.Context, folder string) ([]Entry, error)
}

// Maker is a host on which folders can be made.
type Maker interface {
	// Mkdir makes a folder and its parents, with the mode, if it is not there.
	Mkdir(ctx context.Context, name string, a Attr) error
}

// Creator is a host that makes a file and reads it back in one go, with far fewer
// requests than a Write and a Read. It is for a file in a folder of one's own, which
// nobody looks into yet: a cut may leave a part of it.
type Creator interface {
	// Create makes a file that must not be there, with owner and mode set before there
	// is content, syncs it where the server has fsync, and returns what the node then
	// reads. Whether that is what was sent is for the caller to see.
	Create(ctx context.Context, name string, data []byte, a Attr) (back []byte, err error)
}

// Linker is a host whose files may be symlinks. Paths on Windows are never made
// symlinks: who may make one there is a right of its own, and none is replaced in
// one step.
type Linker interface {
	Maker
	// Link makes name a symlink to target, replacing what is there in one step.
	Link(ctx context.Context, target, name string) error
	// Readlink returns a symlink's target; fs.ErrNotExist if nothing is there,
	// ErrNotLink if something else is.
	Readlink(ctx context.Context, name string) (string, error)
}

// Attr is the mode and owner of a file. Owner and Group may be names or numbers;
// empty leaves what the file has that is replaced, or what the login gives.
type Attr struct {
	Mode         fs.FileMode
	Owner, Group string
}

// An Entry is a file in a folder.
type Entry struct {
	Name string
	Mode fs.FileMode // with the type bits
	Size int64
}

// Runner runs commands. A command is a list of words, never a shell string; the
// host quotes for the shell that the node speaks.
type Runner interface {
	// Run returns what the command wrote to both its outputs (at most 64 KiB). A
	// command that ends with another status than 0 is an *ExitError; a command
	// that does not end by the context's deadline is ended on the node too.
	Run(ctx context.Context, argv []string, stdin []byte) (output []byte, err error)
}

// Dialer opens connections from the node's side.
type Dialer interface {
	Dial(ctx context.Context, network, address string) (net.Conn, error)
}

// An ExitError is a command that ran and said no.
type ExitError struct {
	Argv   []string
	Status int
	Output []byte // the end of what it wrote
}

// The errors that callers tell apart.
var (
	// ErrUnreachable wraps every failure to open or keep the line to a node; what
	// was asked for may or may not have happened.
	ErrUnreachable = errors.New("node cannot be reached")
	// ErrHostKey wraps a host key that is not the pinned one. It is final.
	ErrHostKey = errors.New("host key is not the one that is pinned")
	// ErrNotLink says that something else than a symlink is there.
	ErrNotLink = errors.New("not a symbolic link")
)
