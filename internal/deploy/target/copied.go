package target

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/certfarm/certfarm/internal/host"
)

// copied is the way of Windows, where nothing is a symlink: the live file holds a
// copy of a version, and replacing it is the switch. So it is one file for each
// leaf, with chain and key: of two, a server that starts between the two
// replacements would find a key that is not the leaf's.
//
//	C:/Apache24/conf/tls/shop.pem              a copy of
//	STORE/ID/7-5f3a9c01/combined.pem           what is live; or was staged
//	STORE/ID/4-91bb02de/combined.pem           the one before
//	STORE/ID/current, STORE/ID/previous        their names, written when it is done
//
// What is live is told by its bytes, and never by the names: a cut leaves old bytes,
// new ones, or, where the server cannot rename over a file, none; and all of them can
// be gone on from and back from, with the receipt.
type copied struct{ *engine }

// ready wants the folders to be there. Rights on Windows come down from the folder,
// and a folder made here would have those of a disk's root: readable for everybody.
func (e copied) ready(ctx context.Context, a area) error {
	folders := []string{e.Store}
	for _, f := range a.files() {
		folders = append(folders, path.Dir(f.Live))
	}
	for _, folder := range folders {
		if strings.HasSuffix(folder, ":") {
			continue // a drive
		}
		_, err := e.host.List(ctx, folder)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the folder %s is not there: make it, with rights for the server, administrators and the SSH user alone, since keys get their folder's rights on Windows", folder)
		}
		if err != nil {
			return fmt.Errorf("looking at %s: %w", folder, hint(err))
		}
	}
	return nil
}

// look compares what is live with what the store says is.
func (e copied) look(ctx context.Context, a area) (state, error) {
	s := state{linked: map[string]bool{}}
	for name, to := range map[string]*string{a.current(): &s.current, a.previous(): &s.previous} {
		text, err := e.host.Read(ctx, name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return s, fmt.Errorf("looking at the store: %w", hint(err))
		}
		if folder := strings.TrimSpace(string(text)); folderName.MatchString(folder) {
			*to = folder
		}
	}
	if s.current == "" {
		return s, nil
	}
	live, _, err := e.live(ctx, a)
	if err != nil {
		return s, err
	}
	is, err := e.stored(ctx, a, s.current)
	if err != nil || is == nil {
		return s, err
	}
	for _, f := range a.files() {
		if data, there := live[f.Name]; there && bytes.Equal(data, is[f.Name]) {
			s.linked[f.Live] = true
			s.links++
		}
	}
	return s, nil
}

// standing is what the live files of a receipt hold.
type standing struct {
	live, next, before content // next and before are nil where the store has them no more
	done               int     // files that hold the staged version
	kept               int     // files that hold what Restore goes back to
	gone               int     // files that are not there
	strange            string  // a file that holds anything else; empty: none
}

func (e copied) stand(ctx context.Context, s stub) (at standing, err error) {
	if at.live, _, err = e.live(ctx, s.area); err != nil {
		return at, err
	}
	if at.next, err = e.stored(ctx, s.area, s.New); err != nil {
		return at, err
	}
	if at.before, err = e.stored(ctx, s.area, s.Prev); err != nil {
		return at, err
	}
	for _, f := range s.area.files() {
		data, there := at.live[f.Name]
		next, isNext := at.next[f.Name]
		before, isBefore := at.before[f.Name]
		switch {
		case !there:
			at.gone++
		case isNext && bytes.Equal(data, next):
			at.done++
		case isBefore && bytes.Equal(data, before):
			at.kept++
		case !s.First || s.Was[f.Live] != digest(data):
			at.strange = f.Live
		}
	}
	return at, nil
}

// stored is a version of the store; nil where it is there no more.
func (e copied) stored(ctx context.Context, a area, folder string) (content, error) {
	c, err := e.version(ctx, a, folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return c, err
}

// forward copies a staged version to the live paths, unless somebody else was there.
func (e copied) forward(ctx context.Context, s stub) error {
	at, err := e.stand(ctx, s)
	if err != nil {
		return err
	}
	if at.strange != "" {
		return fmt.Errorf("%s: %w", at.strange, errChanged)
	}
	if at.done < len(s.area.files()) {
		if err := e.say(ctx, s.area.previous(), s.Prev); err != nil { // the sweep of the next Stage leaves it alone
			return err
		}
	}
	return e.copy(ctx, s, s.New, at.next, at.live)
}

// back copies what was live at Stage to the live paths.
func (e copied) back(ctx context.Context, s stub) error {
	at, err := e.stand(ctx, s)
	if err != nil {
		return err
	}
	switch {
	case at.strange != "":
		return fmt.Errorf("%s: %w", at.strange, errChanged)
	case s.First && at.done+at.kept == 0:
		return nil // nothing was activated
	case at.kept == len(s.area.files()) && s.Convert:
		if st, err := e.look(ctx, s.area); err != nil || st.current != s.New {
			return err // the same
		}
	}
	if err := e.verify(ctx, s, s.Prev); err != nil {
		return err
	}
	return e.copy(ctx, s, s.Prev, at.before, at.live)
}

// copy makes the live files those of a version, each read back, and says so in the
// store.
func (e copied) copy(ctx context.Context, s stub, folder string, c, live content) error {
	mode, err := e.mode()
	if err != nil {
		return err
	}
	if c == nil {
		return fmt.Errorf("version %s: %w", folder, errGone)
	}
	for _, f := range s.area.files() {
		if data, there := live[f.Name]; there && bytes.Equal(data, c[f.Name]) {
			continue
		}
		if err := e.host.Write(ctx, f.Live, c[f.Name], host.Attr{Mode: mode}); err != nil {
			return fmt.Errorf("replacing %s by version %s: %w", f.Live, folder, hint(err))
		}
		back, err := e.host.Read(ctx, f.Live)
		if err != nil {
			return fmt.Errorf("reading %s back: %w", f.Live, hint(err))
		}
		if !bytes.Equal(back, c[f.Name]) {
			return fmt.Errorf("%s holds other bytes than were written: something on the way or the disk changes them", f.Live)
		}
	}
	return e.say(ctx, s.area.current(), folder)
}

// say writes which version is live, or was before.
func (e copied) say(ctx context.Context, name, folder string) error {
	if err := e.host.Write(ctx, name, []byte(folder+"\n"), host.Attr{Mode: 0o600}); err != nil {
		return fmt.Errorf("noting %s as %s: %w", folder, path.Base(name), hint(err))
	}
	return nil
}
