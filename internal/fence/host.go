package fence

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/host"
)

// Linked is a machine that can be fenced in.
type Linked interface {
	host.Host
	host.Linker
}

// A Host is a machine as far as a policy lets it be reached: files below its folders,
// after every symlink on the way has been followed; commands of its list, word for
// word; connections to the machine itself.
//
// A folder of the policy is one that only root and the user of this process write: who
// else writes there could put a symlink between the look and the deed.
type Host struct {
	Linked
	Policy Policy
	// Links reads symlinks, without the faults that a test gives the host; nil: the
	// host does.
	Links interface {
		Readlink(ctx context.Context, name string) (string, error)
	}
	Refused func(error) // is told of what was refused; nil: nobody
}

// enforce is where the kernel says whether SELinux enforces its policy: the one file
// outside that deployers read.
const enforce = "/sys/fs/selinux/enforce"

// maxLinks is how many symlinks are followed on one way, as Linux does.
const maxLinks = 40

// refuse tells of a refusal. To the deployer it is a missing right.
func (h Host) refuse(r *Refusal) error {
	err := fmt.Errorf("%w: %w", r, fs.ErrPermission)
	if h.Refused != nil {
		h.Refused(r)
	}
	return err
}

// Read reads a file below the folders, wherever a symlink leads.
func (h Host) Read(ctx context.Context, name string) ([]byte, error) {
	if name == enforce {
		return h.Linked.Read(ctx, name)
	}
	real, err := h.follow(ctx, name, true)
	if err != nil {
		return nil, err
	}
	return h.Linked.Read(ctx, real)
}

// Write replaces a file below the folders; a symlink there is replaced, not followed.
func (h Host) Write(ctx context.Context, name string, data []byte, a host.Attr) error {
	real, err := h.follow(ctx, name, false)
	if err != nil {
		return err
	}
	return h.Linked.Write(ctx, real, data, a)
}

// Rename moves a file within the folders.
func (h Host) Rename(ctx context.Context, from, to string) error {
	realFrom, err := h.follow(ctx, from, false)
	if err != nil {
		return err
	}
	realTo, err := h.follow(ctx, to, false)
	if err != nil {
		return err
	}
	return h.Linked.Rename(ctx, realFrom, realTo)
}

// Remove deletes what is below the folders, and none of the folders.
func (h Host) Remove(ctx context.Context, name string) error {
	real, err := h.follow(ctx, name, false)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(h.Policy.Folders, func(f string) bool { return same(f, name) }) {
		return h.refuse(&Refusal{Why: fmt.Sprintf("%q is a folder of the policy: it is not taken away", name)})
	}
	return h.Linked.Remove(ctx, real)
}

// List names what is in one of the folders or below.
func (h Host) List(ctx context.Context, folder string) ([]host.Entry, error) {
	real, err := h.follow(ctx, folder, true)
	if err != nil {
		return nil, err
	}
	return h.Linked.List(ctx, real)
}

// Link makes a symlink below the folders that leads to a place below the folders.
func (h Host) Link(ctx context.Context, target, name string) error {
	real, err := h.follow(ctx, name, false)
	if err != nil {
		return err
	}
	goal := target
	if !rooted(goal) {
		goal = path.Join(path.Dir(name), goal)
	}
	if r := h.Policy.Within(goal); r != nil {
		return h.refuse(r)
	}
	return h.Linked.Link(ctx, target, real)
}

// Readlink reads a symlink below the folders.
func (h Host) Readlink(ctx context.Context, name string) (string, error) {
	real, err := h.follow(ctx, name, false)
	if err != nil {
		return "", err
	}
	return h.Linked.Readlink(ctx, real)
}

// Mkdir makes a folder below the folders.
func (h Host) Mkdir(ctx context.Context, name string, a host.Attr) error {
	real, err := h.follow(ctx, name, false)
	if err != nil {
		return err
	}
	return h.Linked.Mkdir(ctx, real, a)
}

// Run runs a command of the list; and those by which a deployer gives files the label
// that SELinux wants, within the folders.
func (h Host) Run(ctx context.Context, argv []string, stdin []byte) ([]byte, error) {
	if r := h.Policy.Command(argv); r != nil && !h.labels(argv) {
		return nil, h.refuse(r)
	}
	return h.Linked.Run(ctx, argv, stdin)
}

// labels reports chcon [-h] --reference=A B, with both below the folders.
func (h Host) labels(argv []string) bool {
	if len(argv) == 4 && argv[1] == "-h" {
		argv = []string{argv[0], argv[2], argv[3]}
	}
	if len(argv) != 3 || argv[0] != "chcon" {
		return false
	}
	from, ok := strings.CutPrefix(argv[1], "--reference=")
	return ok && h.Policy.Within(from) == nil && h.Policy.Within(argv[2]) == nil
}

// Dial opens a connection to the machine itself.
func (h Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if network == "unix" && slices.Contains(h.Policy.Sockets, address) {
		return h.Linked.Dial(ctx, network, address)
	}
	at, err := netip.ParseAddrPort(address)
	if err != nil || !at.Addr().Unmap().IsLoopback() || !strings.HasPrefix(network, "tcp") {
		return nil, h.refuse(&Refusal{Why: fmt.Sprintf("a connection to %s %.100q is not one to this machine itself, by its address", network, address), Add: fmt.Sprintf("sockets: [%.100q], if it is one", address)})
	}
	return h.Linked.Dial(ctx, network, address)
}

// follow is where a name leads when every symlink on its way is followed, the last
// part with them if last says so. It must be below the folders, as it is written and
// where it leads.
func (h Host) follow(ctx context.Context, name string, last bool) (string, error) {
	if r := h.Policy.Within(name); r != nil {
		return "", h.refuse(r)
	}
	real, err := h.walk(ctx, name, last)
	if err != nil {
		return "", err
	}
	var unread error
	for _, f := range h.Policy.Folders {
		base, err := h.walk(ctx, f, true)
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			unread = err
		case err == nil && (same(real, base) || below(real, base)):
			return real, nil
		}
	}
	if unread != nil { // it may be allowed: that is not known, and no reason to say it is not
		return "", unread
	}
	return "", h.refuse(&Refusal{Why: fmt.Sprintf("%.260q leads to %.260q, outside the allowed folders", name, real), Add: fmt.Sprintf("folders: [%.260q]", path.Dir(real))})
}

// walk follows the symlinks on the way to a name. What is not there has none.
func (h Host) walk(ctx context.Context, name string, last bool) (string, error) {
	var links interface {
		Readlink(ctx context.Context, name string) (string, error)
	} = h.Linked
	if h.Links != nil {
		links = h.Links
	}
	root, rest := "/", strings.Split(strings.TrimPrefix(name, "/"), "/")
	if !strings.HasPrefix(name, "/") {
		root, rest = rest[0]+"/", rest[1:]
	}
	at := root
	for n := 0; len(rest) > 0; {
		next := path.Join(at, rest[0])
		rest = rest[1:]
		if len(rest) == 0 && !last {
			return next, nil
		}
		to, err := links.Readlink(ctx, next)
		if errors.Is(err, host.ErrNotLink) || errors.Is(err, fs.ErrNotExist) {
			at = next
			continue
		}
		if err != nil {
			return "", fmt.Errorf("following %s: %w", name, err)
		}
		if n++; n > maxLinks {
			return "", fmt.Errorf("following %s: too many symbolic links", name)
		}
		if rooted(to) {
			at = root
			to = strings.TrimPrefix(to, root)
		}
		rest = append(strings.Split(path.Clean(to), "/"), rest...)
	}
	return at, nil
}
