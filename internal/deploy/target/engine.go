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

// engine is a deployer for any server that reads files and can be told to read
// them anew. It remembers nothing between calls.
type engine struct {
	upkeep
	places []place
	format format
	host   host.Host
	links  host.Linker // nil: the host has no symlinks
	// wake makes the server take what the live paths of these targets hold, where
	// that is more than the reload command; nil: it is that command.
	wake func(ctx context.Context, all []area) error
}

// newEngine is the engine of a kind whose server reads PEM files.
func newEngine(o options, s deploy.Setup) *engine {
	return newEngineOf(o.upkeep, o.places(), format{}, s)
}

func newEngineOf(u upkeep, places []place, f format, s deploy.Setup) *engine {
	l, _ := s.Host.(host.Linker)
	f.known = s.Known
	return &engine{upkeep: u, places: places, format: f, host: s.Host, links: l}
}

// own is the target of this engine.
func (e *engine) own() area { return newArea(e.Store, e.places) }

// area is one target's folder in the store, and its places.
type area struct {
	base   string
	places []place
}

func newArea(store string, places []place) area {
	return area{folderOf(store, places), places}
}

func (a area) current() string  { return path.Join(a.base, "current") }
func (a area) previous() string { return path.Join(a.base, "previous") }

// goal is where a live path must lead.
func (a area) goal(f file) string { return path.Join(a.current(), f.Name) }

func (a area) files() []file {
	var all []file
	for _, p := range a.places {
		all = append(all, p.Files...)
	}
	return all
}

// inside is a live path that lies in the store, where none may; empty: none does.
func (a area) inside(store string) string {
	for _, f := range a.files() {
		if fold(f.Live) == fold(store) || strings.HasPrefix(fold(f.Live), strings.TrimSuffix(fold(store), "/")+"/") {
			return f.Live
		}
	}
	return ""
}

// state is what stands on the node.
type state struct {
	current, previous string          // names of folders; empty: none
	linked            map[string]bool // live paths that lead to current, or hold the same
	links             int             // how many
}

func (s state) all(a area) bool { return s.links == len(a.files()) }

// A way is how the live paths come to hold a version of the store.
type way interface {
	// ready says whether the node has what staging needs.
	ready(ctx context.Context, a area) error
	look(ctx context.Context, a area) (state, error)
	// forward makes a staged version live, if what is live is what was at Stage.
	forward(ctx context.Context, s stub) error
	// back makes live what was live at Stage. Where nothing was activated, it
	// changes nothing.
	back(ctx context.Context, s stub) error
}

// way is by symlinks, or by copies on Windows.
func (e *engine) way() way {
	if onWindows(e.Store) {
		return copied{e}
	}
	return linked{e}
}

// look reads what stands on the node.
func (e *engine) look(ctx context.Context, a area) (state, error) { return e.way().look(ctx, a) }

// live reads what the server's paths hold; missing counts those that are not there.
func (e *engine) live(ctx context.Context, a area) (c content, missing int, err error) {
	c = content{}
	for _, f := range a.files() {
		data, err := e.host.Read(ctx, f.Live)
		if errors.Is(err, fs.ErrNotExist) {
			missing++
			continue
		}
		if err != nil {
			return nil, 0, fmt.Errorf("reading what is live: %w", hint(err))
		}
		c[f.Name] = data
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
		data, err := e.host.Read(ctx, path.Join(a.base, folder, f.Name))
		if err != nil {
			return nil, fmt.Errorf("reading version %s in the store: %w", folder, err)
		}
		c[f.Name] = data
	}
	return c, nil
}

// verify reads a version back from the node and checks its pairs, or, where that
// takes a password, that these are the bytes of which Stage checked it.
func (e *engine) verify(ctx context.Context, s stub, folder string) error {
	c, err := e.version(ctx, s.area, folder)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	if err != nil {
		return err
	}
	if sealed(s.area) {
		err = s.holds(folder, c)
	} else {
		err = e.format.matches(c, s.area.places)
	}
	if err != nil {
		return fmt.Errorf("checking version %s on the node: %w", folder, err)
	}
	return nil
}

func sealed(a area) bool {
	return slices.ContainsFunc(a.files(), func(f file) bool { return f.Part.sealed() })
}

// holds says whether a content is that of the folder when it was staged.
func (s stub) holds(folder string, c content) error {
	for _, f := range s.area.files() {
		if s.Sums[path.Join(folder, f.Name)] != digest(c[f.Name]) {
			return fmt.Errorf("%s holds other bytes than were staged: stage anew", f.Name)
		}
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
	in := e.format.see(c, a.places)
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

// write makes a folder, which the sweep left room for: owner and mode before content,
// all of it read back.
func (e *engine) write(ctx context.Context, a area, folder string, c content) error {
	dir := path.Join(a.base, folder)
	if err := e.folder(ctx, dir); err != nil {
		return fmt.Errorf("making a folder in the store: %w", hint(err))
	}
	mode, err := e.mode()
	if err != nil {
		return err
	}
	for _, f := range a.files() {
		attr := host.Attr{Mode: mode, Owner: e.Owner, Group: e.Group}
		if f.Part.public() {
			attr.Mode = 0o644
		}
		back, err := e.create(ctx, path.Join(dir, f.Name), c[f.Name], attr)
		if err != nil {
			return fmt.Errorf("writing to the store: %w", hint(err))
		}
		if !bytes.Equal(back, c[f.Name]) {
			return fmt.Errorf("version %s holds other bytes than were sent: something on the way or the disk changes them", dir)
		}
	}
	return nil
}

// create makes a file of the store, and returns what the node then holds. On Windows
// what was written is told from what somebody put there by a look of its own.
func (e *engine) create(ctx context.Context, name string, data []byte, a host.Attr) ([]byte, error) {
	if c, can := e.host.(host.Creator); can && !onWindows(e.Store) {
		return c.Create(ctx, name, data, a)
	}
	if err := e.host.Write(ctx, name, data, a); err != nil {
		return nil, err
	}
	return e.host.Read(ctx, name)
}

// drop removes a folder of the store whose files are known.
func (e *engine) drop(ctx context.Context, a area, folder string) error {
	dir := path.Join(a.base, folder)
	for _, f := range a.files() {
		if err := e.host.Remove(ctx, path.Join(dir, f.Name)); err != nil {
			return err
		}
	}
	return e.host.Remove(ctx, dir)
}

// folder makes a folder that everybody may look into.
func (e *engine) folder(ctx context.Context, name string) error {
	m, ok := e.host.(host.Maker)
	if !ok {
		return fmt.Errorf("this host makes no folders: %w", errors.ErrUnsupported)
	}
	return m.Mkdir(ctx, name, host.Attr{Mode: 0o755})
}

// reload makes the server take what the live paths hold.
func (e *engine) reload(ctx context.Context, all []stub) error {
	if e.wake == nil {
		return e.run(ctx, "reload", e.Reload)
	}
	var areas []area
	for _, s := range all {
		areas = append(areas, s.area)
	}
	return e.wake(ctx, areas)
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
