package ccs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
)

// private is the mode of all files, where the store's system knows modes: the
// readers of a folder that Samba gives out come by its group.
var private = host.Attr{Mode: 0o640}

// work is one staging under way.
type work struct {
	*Store
	note   note
	bundle farm.Bundle       // for all names, the canary's among them
	live   map[string][]byte // what is in the root, by hash
	pfx    []byte
}

// Stage puts the PFX beside the store, keeps what is live, and checks all of it;
// see deploy.Deployer.
func (d *Store) Stage(ctx context.Context, s deploy.Stage) (deploy.Receipt, error) {
	w, err := d.begin(s)
	if err != nil {
		return deploy.Receipt{}, fmt.Errorf("staging: %w", err)
	}
	if err := w.look(ctx, s); err != nil {
		return deploy.Receipt{}, fmt.Errorf("staging: %w", err)
	}
	err = w.put(ctx)
	if err == nil {
		err = w.verify(ctx)
	}
	if err != nil {
		w.undo(ctx)
		return deploy.Receipt{}, fmt.Errorf("staging: %w", err)
	}
	r := deploy.Receipt{Lag: d.options.lag()}
	if w.note.canary() != "" {
		r.Wait = d.options.patience()
	}
	r.Note, err = json.Marshal(w.note)
	return r, err
}

// begin checks what is to be put, before the share is asked.
func (d *Store) begin(s deploy.Stage) (*work, error) {
	if len(s.Bundles) != 1 {
		return nil, oneKey(s.Bundles)
	}
	names := d.names
	if len(names) == 0 {
		names = s.Names
	}
	w := &work{Store: d, bundle: s.Bundles[0], live: map[string][]byte{}}
	if err := encode.Fits(w.bundle); err != nil {
		return nil, err
	}
	if d.options.Canary != "" {
		names = append([]string{d.options.Canary}, names...)
	}
	w.bundle.Names = names
	if err := encode.Fits(w.bundle); err != nil {
		return nil, fmt.Errorf("a name with a file in the store (option names or canary): %w", err)
	}
	canary := 0
	if d.options.Canary != "" {
		files, err := fileNames(d.options.Canary)
		if err != nil {
			return nil, err
		}
		canary = len(files)
	}
	files, err := filesOf(names)
	if err != nil {
		return nil, err
	}
	w.note.Root, w.note.Target = d.options.root(), d.target
	for i, name := range files {
		w.note.Files = append(w.note.Files, entry{Name: name, Canary: i < canary})
	}
	return w, nil
}

// look reads what is live, sweeps what earlier stagings left, and finds a folder.
func (w *work) look(ctx context.Context, s deploy.Stage) error {
	if _, err := w.files.List(ctx, w.note.Root); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w (the folder that IIS reads must be there: New-Item, or correct `share`)", err)
		}
		return fmt.Errorf("looking at the store: %w", err)
	}
	for i := range w.note.Files {
		e := &w.note.Files[i]
		data, err := w.Store.live(ctx, w.note.Root, e.Name)
		if err != nil {
			return err
		}
		if e.Prev = hashOf(data); data != nil {
			w.live[e.Prev] = data
		}
	}
	if err := w.choose(); err != nil {
		return err
	}
	site := join(w.options.staging(), siteFolder(s.Site, w.note.Files[0]))
	active, err := w.active(ctx, site)
	if err != nil {
		return err
	}
	own := fmt.Sprintf("%d-%.16s", max(s.Epoch, 0), w.bundle.Leaf)
	if active == own {
		own += ".2" // its kept files are the way back from what is live
	}
	w.note.Folder = join(site, own)
	if err := w.former(ctx, site); err != nil {
		return err
	}
	return w.sweep(ctx, site, active)
}

// choose makes the PFX, or takes the live one where it is the same certificate:
// its bytes would differ for the random salts alone, and every reader would load
// it again.
func (w *work) choose() error {
	same := len(w.live) == 1
	for _, e := range w.note.Files {
		data := w.live[e.Prev]
		if same = same && data != nil && w.serves(data); data == nil {
			continue
		}
		if _, err := encode.OpenPFX(data, w.password); errors.Is(err, encode.ErrPassword) {
			return fmt.Errorf("%s does not open with the store's password: IIS has one for all files, so it could not read what is written with another "+
				"(compare it with the readers' PrivateKeyPassword; if that file is what is wrong, take it away): %w", e.Name, err)
		}
	}
	if same {
		w.pfx = w.live[w.note.Files[0].Prev]
	} else {
		data, err := encode.PFX(w.bundle, encode.PFXOptions{Password: w.password, Cipher: w.options.cipher()})
		if err != nil {
			return err
		}
		w.pfx = data
	}
	w.note.New, w.note.Leaf = hashOf(w.pfx), w.bundle.Leaf
	return nil
}

// serves says whether a live PFX is as good as a new one.
func (w *work) serves(data []byte) bool {
	cipher, err := encode.PFXCipherOf(data)
	if err != nil || cipher != w.options.cipher() {
		return false
	}
	b, err := encode.OpenPFX(data, w.password)
	if err != nil || b.Leaf != w.bundle.Leaf {
		return false
	}
	chain, err := encode.ChainPEM(w.bundle)
	return err == nil && bytes.Equal(chain, b.Chain)
}

// put writes the staged file and copies of what is live.
func (w *work) put(ctx context.Context) error {
	if err := w.files.Mkdir(ctx, w.note.Folder, host.Attr{Mode: 0o755}); err != nil {
		return fmt.Errorf("making a folder for what is staged: %w", err)
	}
	if err := w.files.Write(ctx, w.note.staged(), w.pfx, private); err != nil {
		return fmt.Errorf("writing what is staged: %w", err)
	}
	written := map[string]bool{"": true, w.note.New: true}
	for _, e := range w.note.Files {
		if written[e.Prev] {
			continue
		}
		written[e.Prev] = true
		if err := w.files.Write(ctx, w.note.kept(e), w.live[e.Prev], private); err != nil {
			return fmt.Errorf("keeping what is live: %w", err)
		}
	}
	return nil
}

// verify reads all of it back, and opens what was staged as a reader will.
func (w *work) verify(ctx context.Context) error {
	data, err := w.fetch(ctx, w.note.staged(), w.note.New)
	if err != nil {
		return err
	}
	b, err := encode.OpenPFX(data, w.password)
	if err != nil {
		return fmt.Errorf("opening what was staged: %w", err)
	}
	if b.Leaf != w.bundle.Leaf {
		return fmt.Errorf("what was staged holds another leaf, %s", farm.Short(b.Leaf))
	}
	b.Names = w.bundle.Names
	if err := encode.Fits(b); err != nil {
		return fmt.Errorf("what was staged: %w", err)
	}
	for _, e := range w.note.Files {
		if e.Prev == "" || e.Prev == w.note.New {
			continue
		}
		if _, err := w.fetch(ctx, w.note.kept(e), e.Prev); err != nil {
			return err
		}
	}
	return nil
}

// errGone says that a staging was taken away, by Discard or a later one.
var errGone = errors.New("what was staged or kept is gone: stage anew")

// fetch reads a file of a staging, which must have the hash.
func (d *Store) fetch(ctx context.Context, name, hash string) ([]byte, error) {
	data, err := d.files.Read(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", errGone, err)
	}
	if err != nil {
		return nil, fmt.Errorf("reading it back: %w", err)
	}
	if hashOf(data) != hash {
		return nil, fmt.Errorf("%s holds other bytes than were sent: something on the way or the disk changes them", name)
	}
	return data, nil
}

// undo takes away what this staging made, as far as the share can be reached;
// the next one sweeps the rest.
func (w *work) undo(ctx context.Context) {
	ctx, cancel := mending(ctx)
	defer cancel()
	if w.files.Remove(ctx, w.note.Folder) == nil {
		_ = w.tidy(ctx, w.note.site())
	}
}

// active is the folder of the last activation of a site; empty: none.
func (d *Store) active(ctx context.Context, site string) (string, error) {
	text, err := d.files.Read(ctx, join(site, activeFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("looking at the stagings: %w", err)
	}
	name := strings.TrimSpace(string(text))
	if !stagingName.MatchString(name) {
		return "", nil
	}
	return name, nil
}

// sweep takes away the stagings of a site but one: nobody can go to them.
func (d *Store) sweep(ctx context.Context, site, but string) error {
	entries, err := d.files.List(ctx, site)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking through the stagings: %w", err)
	}
	for _, e := range entries {
		if e.Name == but || !stagingName.MatchString(e.Name) {
			continue
		}
		if err := d.files.Remove(ctx, join(site, e.Name)); err != nil {
			return fmt.Errorf("sweeping the stagings: %w", err)
		}
	}
	return nil
}

// tidy removes a site's folder when nothing is left in it.
func (d *Store) tidy(ctx context.Context, site string) error {
	entries, err := d.files.List(ctx, site)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || len(entries) > 0 {
		return err
	}
	return d.files.Remove(ctx, site)
}
