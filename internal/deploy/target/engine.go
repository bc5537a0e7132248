package target

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/host"
)

// mendTime is how long setting right what went wrong may take when the time
// for the call itself is over.
const mendTime = 30 * time.Second

// engine is a deployer for any server that reads PEM files and takes a command
// to read them anew. It remembers nothing between calls.
type engine struct {
	options options
	host    host.Host
	links   host.Linker // nil: the host has no symlinks
}

func newEngine(o options, h host.Host) *engine {
	l, _ := h.(host.Linker)
	return &engine{options: o, host: h, links: l}
}

// own is the target of this engine.
func (e *engine) own() area { return newArea(e.options.Store, e.options.pairs()) }

// area is one target's folder in the store, and its places.
type area struct {
	base   string
	places []place
}

func newArea(store string, pairs []typed) area {
	return area{folderOf(store, pairs), places(pairs)}
}

func (a area) current() string  { return path.Join(a.base, "current") }
func (a area) previous() string { return path.Join(a.base, "previous") }

// goal is where a live path must lead.
func (a area) goal(f file) string { return path.Join(a.current(), f.name) }

func (a area) files() []file {
	var all []file
	for _, p := range a.places {
		all = append(all, p.files...)
	}
	return all
}

// inside is a live path that lies in the store, where none may; empty: none does.
func (a area) inside(store string) string {
	for _, f := range a.files() {
		if f.live == store || strings.HasPrefix(f.live, strings.TrimSuffix(store, "/")+"/") {
			return f.live
		}
	}
	return ""
}

// state is what stands on the node.
type state struct {
	current, previous string          // names of folders; empty: none
	linked            map[string]bool // live paths that lead to current
	links             int             // how many
}

func (s state) all(a area) bool { return s.links == len(a.files()) }

// look reads the links of a target.
func (e *engine) look(ctx context.Context, a area) (state, error) {
	s := state{linked: map[string]bool{}}
	if e.links == nil {
		return s, fmt.Errorf("installing files: this host has no symbolic links, which the one switch needs: %w", errors.ErrUnsupported)
	}
	for name, to := range map[string]*string{a.current(): &s.current, a.previous(): &s.previous} {
		folder, err := e.links.Readlink(ctx, name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return s, fmt.Errorf("looking at the store: %w", err)
		}
		if folderName.MatchString(folder) {
			*to = folder
		}
	}
	for _, f := range a.files() {
		to, err := e.links.Readlink(ctx, f.live)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, host.ErrNotLink) {
			return s, fmt.Errorf("looking at %s: %w", f.live, err)
		}
		if err == nil && to == a.goal(f) {
			s.linked[f.live] = true
			s.links++
		}
	}
	return s, nil
}

// live reads what the server's paths hold; missing counts those that are not there.
func (e *engine) live(ctx context.Context, a area) (c content, missing int, err error) {
	c = content{}
	for _, f := range a.files() {
		data, err := e.host.Read(ctx, f.live)
		if errors.Is(err, fs.ErrNotExist) {
			missing++
			continue
		}
		if err != nil {
			return nil, 0, fmt.Errorf("reading what is live: %w", hint(err))
		}
		c[f.name] = data
	}
	return c, missing, nil
}

// hint adds what can be done where rights are missing.
func hint(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w (files are read and written as the SSH user, with or without become)", err)
	}
	return err
}

// version reads a folder of the store.
func (e *engine) version(ctx context.Context, a area, folder string) (content, error) {
	c := content{}
	for _, f := range a.files() {
		data, err := e.host.Read(ctx, path.Join(a.base, folder, f.name))
		if err != nil {
			return nil, fmt.Errorf("reading version %s in the store: %w", folder, err)
		}
		c[f.name] = data
	}
	return c, nil
}

// verify reads a version back from the node and checks its pairs.
func (e *engine) verify(ctx context.Context, a area, folder string) error {
	c, err := e.version(ctx, a, folder)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	if err != nil {
		return err
	}
	if err := c.matches(a.places); err != nil {
		return fmt.Errorf("checking version %s on the node: %w", folder, err)
	}
	return nil
}

// Inspect reports what the live paths hold; see deploy.Deployer.
func (e *engine) Inspect(ctx context.Context) (deploy.Installed, error) {
	a := e.own()
	c, missing, err := e.live(ctx, a)
	if err != nil {
		return deploy.Installed{}, err
	}
	in := c.see(a.places)
	in.Mismatch = in.Mismatch || (missing > 0 && len(c) > 0)
	return in, nil
}

// put writes a version's folder and reads it back. A folder that is in use is
// left alone: if it holds the same it serves, otherwise another name is taken.
// made is false where nothing was written.
func (e *engine) put(ctx context.Context, a area, name string, c content, used ...string) (folder string, made bool, err error) {
	for n := 2; ; n++ {
		folder = name
		if n > 2 {
			folder = fmt.Sprintf("%s.%d", name, n-1)
		}
		if !slices.Contains(used, folder) {
			break
		}
		if is, err := e.version(ctx, a, folder); err == nil && is.equal(c) {
			return folder, false, nil
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", false, err
		}
	}
	return folder, true, e.write(ctx, a, folder, c)
}

func (c content) equal(d content) bool {
	for name, data := range c {
		if !bytes.Equal(data, d[name]) {
			return false
		}
	}
	return len(c) == len(d)
}

// write makes a folder anew: owner and mode before content, all of it read back.
func (e *engine) write(ctx context.Context, a area, folder string, c content) error {
	dir := path.Join(a.base, folder)
	if err := e.host.Remove(ctx, dir); err != nil {
		return fmt.Errorf("clearing %s: %w", dir, hint(err))
	}
	if err := e.links.Mkdir(ctx, dir, host.Attr{Mode: 0o755}); err != nil {
		return fmt.Errorf("making a folder in the store: %w", hint(err))
	}
	mode, err := e.options.mode()
	if err != nil {
		return err
	}
	for _, f := range a.files() {
		attr := host.Attr{Mode: mode, Owner: e.options.Owner, Group: e.options.Group}
		if f.part == chainOnly {
			attr.Mode = 0o644
		}
		if err := e.host.Write(ctx, path.Join(dir, f.name), c[f.name], attr); err != nil {
			return fmt.Errorf("writing to the store: %w", hint(err))
		}
	}
	back, err := e.version(ctx, a, folder)
	if err != nil {
		return err
	}
	if !back.equal(c) {
		return fmt.Errorf("version %s holds other bytes than were sent: something on the way or the disk changes them", dir)
	}
	return nil
}

// run runs one of the commands; none is no error.
func (e *engine) run(ctx context.Context, what string, argv []string) error {
	if len(argv) == 0 {
		return nil
	}
	if _, err := e.host.Run(ctx, argv, nil); err != nil {
		return fmt.Errorf("%s (%s): %w", what, strings.Join(argv, " "), err)
	}
	return nil
}

// mending is a context for setting things right after the call's own has ended.
func mending(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), mendTime)
}
