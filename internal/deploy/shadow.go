package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
)

// A Shadowed is what the options of a kind offer whose targets can be tried: with a
// throw-away certificate, in a place of the same sort that is not live.
type Shadowed interface {
	// Shadow gives the place, beside the live one and with the same rights, commands
	// and credentials; but nothing makes a running server take what is put there. It
	// is asked of options that Facts has found right, and does no I/O.
	Shadow(t Trial) (Shadow, error)
}

// A Trial says what a shadow place is for.
type Trial struct {
	// Mark is in the name of everything that is made, so that nobody takes it for
	// live: lower-case letters, digits and hyphens.
	Mark string
	// Names are what the throw-away certificate is for: no names that are served.
	Names []string
	// Apart has the place in folders of its own, which may be emptied, with room for
	// one leaf: the contract suite works there. False: as near to the live place as is
	// harmless, with the target's own key types.
	Apart bool
	// Place tells places of one mark and one reload group apart, in the rules of Mark;
	// empty: there is one.
	Place string
	// Reload lets the server be reloaded, whose configuration has not changed.
	Reload bool
}

// A Shadow is a shadow place.
type Shadow struct {
	Kind    string         // that installs there; empty: the target's own
	Options Options        // of the place
	Leaves  []farm.KeyType // of the leaves that go there; nil: one of any type
	// Live are the files that a server would read there, chain and key of each leaf;
	// the same file twice where it has both. Nil: it has no files.
	Live [][2]string
	// Make are folders that must be there first and that deployers do not make, outer
	// ones before inner ones. What they stand in must be there already.
	Make []string
	// Own are files and folders that have nothing in them but what the trial made:
	// they are taken away at its end, in this order.
	Own []string
	// Files is the way to Make and Own, and may be given to the deployer as
	// Setup.Host; nil: the target's node.
	Files func(s Setup) (Folder, error)
	// Bare says that a first installation goes back to nothing: no placeholder is left.
	Bare bool
	// Unpack takes chain and key, PEM, out of one of the live files; nil: they are PEM.
	Unpack func(s Setup, data []byte) (chain, key []byte, err error)
	// Pack makes a live file with chain and key of a leaf, as a person would put it there;
	// nil: both in PEM.
	Pack func(s Setup, b farm.Bundle) ([]byte, error)
	// Drop takes the place away where it is no files, by its deployer; nil: there are
	// only files.
	Drop    func(ctx context.Context, d Deployer) error
	Test    []string // the server's own config test on the node, which fails in every place if it fails now; empty: none
	Touches []string // what is written, in words: people assent to it
	Untried []Untried
}

// A Folder is where files are kept: what every host offers, and a share as well.
type Folder interface {
	host.Files
	host.Maker
}

// An Untried is what a trial in a shadow place does not show.
type Untried struct{ What, Why string }

// ErrNoShadow says that a kind has no place where it could be tried without
// touching what is live.
var ErrNoShadow = errors.New("a target of this kind cannot be tried beside what is live")

// A Place is a shadow place as the rest of the house uses it.
type Place struct {
	Shadow
	Raw []byte // the options, JSON

	kind Kind
}

// Open makes the deployer of the place.
func (p Place) Open(s Setup) (Deployer, error) { return p.kind.open(p.Raw, s) }

// Shadow gives the shadow place of a target with these options, found right by the
// kind that installs there. An error that is ErrNoShadow says why there is none.
func (ks Kinds) Shadow(kind string, options []byte, t Trial) (Place, error) {
	k, ok := ks[kind]
	if !ok {
		return Place{}, fmt.Errorf("no target kind %q", kind)
	}
	o, err := k.read(options)
	if err != nil {
		return Place{}, err
	}
	able, ok := o.(Shadowed)
	if !ok {
		return Place{}, fmt.Errorf("%s: %w", kind, ErrNoShadow)
	}
	p := Place{}
	if p.Shadow, err = able.Shadow(t); err != nil {
		return Place{}, fmt.Errorf("a shadow place of %s: %w", kind, err)
	}
	if p.Kind == "" {
		p.Kind = kind
	}
	if p.Raw, err = json.Marshal(p.Options); err != nil {
		return Place{}, fmt.Errorf("a shadow place of %s: %w", kind, err)
	}
	live, err := k.check(options)
	if err != nil {
		return Place{}, err
	}
	p.kind = ks[p.Kind]
	shadow, err := p.kind.check(p.Raw)
	if err != nil {
		return Place{}, fmt.Errorf("a shadow place of %s: %w", kind, err)
	}
	for _, place := range shadow.Places {
		if slices.Contains(live.Places, place) { // a mistake in the kind, and none may write over what is live
			return Place{}, fmt.Errorf("a shadow place of %s: %s is live", kind, place)
		}
	}
	return p, nil
}

// Prepare makes the folders that a live place has from people.
func (p Place) Prepare(ctx context.Context, s Setup) error {
	if len(p.Make) == 0 {
		return nil
	}
	files, err := p.Folder(s)
	if err != nil {
		return err
	}
	for _, folder := range p.Make {
		if _, err := files.List(ctx, folder[:max(strings.LastIndexByte(folder, '/'), 0)+1]); err != nil {
			return fmt.Errorf("looking at what the shadow place of a trial stands in: %w", err)
		}
		if err := files.Mkdir(ctx, folder, host.Attr{Mode: 0o755}); err != nil {
			return fmt.Errorf("making the shadow place: %w", err)
		}
	}
	return nil
}

// Empty takes away the files that trials made in the place.
func (p Place) Empty(ctx context.Context, s Setup) error {
	if len(p.Own) == 0 {
		return nil
	}
	files, err := p.Folder(s)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range p.Own {
		errs = append(errs, files.Remove(ctx, name))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("taking the shadow place away: %w", err)
	}
	return nil
}

// ErrLeft says that a shadow place could not be taken away. It harms nothing.
var ErrLeft = errors.New("the shadow place is left there")

// Clear takes away what trials made. An error that is ErrLeft says that a place which
// is no files stays, for want of a right, say; the next trial uses it again.
func (p Place) Clear(ctx context.Context, s Setup) error {
	err := p.Empty(ctx, s)
	if p.Drop == nil {
		return err
	}
	d, left := p.Open(s)
	if left == nil {
		left = p.Drop(ctx, d)
	}
	if left != nil {
		err = errors.Join(err, fmt.Errorf("%w: %w", ErrLeft, left))
	}
	return err
}

// Folder is the way to the place's files: Setup.Host where one is given.
func (p Place) Folder(s Setup) (Folder, error) {
	if f, ok := s.Host.(Folder); ok {
		return f, nil
	}
	if s.Host != nil {
		return unmade{s.Host}, nil
	}
	if p.Files == nil {
		return nil, errors.New("there is no way to the files of the place")
	}
	return p.Files(s)
}

// unmade is a host that makes no folders by themselves.
type unmade struct{ host.Files }

// Mkdir says so.
func (unmade) Mkdir(_ context.Context, name string, _ host.Attr) error {
	return fmt.Errorf("making %s: this host makes no folders: %w", name, errors.ErrUnsupported)
}
