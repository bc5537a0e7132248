package cloud

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/outbound"
)

// A shelf is a place in a vault that holds one certificate with its key, by
// versions: Key Vault's certificate, Vault's secret.
type shelf interface {
	// look says what is current. It changes nothing.
	look(ctx context.Context) (held, error)
	// ready says why a bundle could not be put over what is current, or be of no use to
	// those who read it, as far as that can be known beforehand.
	ready(ctx context.Context, b farm.Bundle, current held) error
	// keeps says why the current version could not be read again by old, once
	// another is current.
	keeps(ctx context.Context, current held) error
	// old reads an earlier version, with its key, by the ref that look gave.
	old(ctx context.Context, ref string) (farm.Bundle, error)
	// put makes a new version current, over what look has just seen.
	put(ctx context.Context, p parcel, over held) error
}

// held is what is current on a shelf. Without a leaf it is nothing of use.
type held struct {
	ref         string // the version, in the shelf's words
	leaf        string // fingerprint
	key         string // SHA-256 of its public key
	farm, site  string // who put it there; empty: not told
	gone        string // fingerprint of a leaf that is deleted, and comes back when its name is taken again
	notAfter    time.Time
	mismatch    bool // a key that is not the leaf's
	placeholder bool
	fields      map[string]any // all that Vault holds there, not ours too
}

// text names what is held.
func (h held) text() string {
	if h.leaf == "" {
		return "nothing of use"
	}
	return farm.Short(h.leaf)
}

// A parcel is what is put on a shelf.
type parcel struct {
	farm.Bundle
	farm, site string
}

// keeper is the Deployer of a shelf.
type keeper struct {
	shelf
	past     past
	identity string
	undo     bool          // a way back is demanded
	perish   bool          // the shelf takes no expired certificates
	lag      time.Duration // until readers see a change
	secrets  []farm.Secret // that no error may hold
	records  deploy.Records
}

// shelfNote is a receipt's note. It names no key and no secret.
type shelfNote struct {
	Place string   // identity of the target
	Site  string   // whose it is
	Names []string // for a placeholder
	New   string   // fingerprint of what was staged
	Prev  string   `json:",omitempty"` // fingerprint of what was live at Stage; empty: nothing of use
	Ref   string   `json:",omitempty"` // and its version
	Gone  string   `json:",omitempty"` // see held
}

// back reports that what was deleted is there again, and nothing more: an
// activation was cut between.
func (n shelfNote) back(now held) bool { return now.leaf != "" && now.leaf == n.Gone }

// errForeign is that somebody else has changed what is live.
var errForeign = errors.New("it was changed by somebody else since it was staged, and is left alone: stage anew")

// With is deploy.Borrower's.
func (k *keeper) With(r deploy.Records) deploy.Deployer {
	with := *k
	with.records = r
	return &with
}

// Inspect is deploy.Deployer's.
func (k *keeper) Inspect(ctx context.Context) (deploy.Installed, error) {
	h, err := k.look(ctx)
	if err != nil {
		return deploy.Installed{}, k.told("looking at", err)
	}
	in := deploy.Installed{Mismatch: h.mismatch, Placeholder: h.placeholder}
	if h.leaf != "" {
		in.Leaves = []string{h.leaf}
	}
	return in, nil
}

// Stage is deploy.Deployer's. It puts nothing there.
func (k *keeper) Stage(ctx context.Context, s deploy.Stage) (deploy.Receipt, error) {
	r, err := k.stage(ctx, s)
	return r, k.told("staging for", err)
}

func (k *keeper) stage(ctx context.Context, s deploy.Stage) (deploy.Receipt, error) {
	b, err := single(s, time.Now())
	if err != nil {
		return deploy.Receipt{}, err
	}
	if k.records.Bundle == nil {
		return deploy.Receipt{}, errors.New("there is nothing that could give the certificate again when it is activated")
	}
	now, err := k.look(ctx)
	if err != nil {
		return deploy.Receipt{}, err
	}
	if err := k.ours(now, s.Site); err != nil {
		return deploy.Receipt{}, err
	}
	if err := k.ready(ctx, b, now); err != nil {
		return deploy.Receipt{}, err
	}
	noUndo, err := k.final(ctx, now, b.Leaf)
	if err != nil {
		return deploy.Receipt{}, err
	}
	text, err := json.Marshal(shelfNote{Place: k.identity, Site: s.Site, Names: s.Names, New: b.Leaf, Prev: now.leaf, Ref: now.ref, Gone: now.gone})
	return deploy.Receipt{Note: text, NoUndo: noUndo, Lag: k.lag}, err
}

// single is the one leaf of a stage, checked at now.
func single(s deploy.Stage, now time.Time) (farm.Bundle, error) {
	if len(s.Bundles) != 1 {
		return farm.Bundle{}, fmt.Errorf("%d leaves, and there is place for one: give the site one key type, or each its own target", len(s.Bundles))
	}
	b := s.Bundles[0]
	if err := encode.Check(b, now); err != nil {
		return b, err
	}
	b.Names = s.Names
	if err := encode.Fits(b); err != nil {
		return b, err
	}
	b.Leaf = farm.LeafFingerprint(b.Chain)
	return b, nil
}

// ours refuses a place that another site, or another farm, has written.
func (k *keeper) ours(now held, site string) error {
	if now.site != "" && now.site != site || now.farm != "" && k.records.Farm != "" && now.farm != k.records.Farm {
		return fmt.Errorf("it belongs to the site %s of the farm %q: choose another name, or take its tags away", now.site, now.farm)
	}
	return nil
}

// final says whether there is no way back. Where one is demanded and there is
// none, it is an error: nothing has been changed yet.
func (k *keeper) final(ctx context.Context, now held, next string) (bool, error) {
	if now.leaf == "" || now.leaf == next {
		return false, nil
	}
	if !k.undo || k.perish && time.Now().After(now.notAfter) {
		return true, nil
	}
	if _, err := k.records.Bundle(ctx, now.leaf); err == nil {
		return false, nil
	}
	if err := k.keeps(ctx, now); err != nil {
		return true, fmt.Errorf("what is live, %s, is not from here and could not be put back: %w; or say `undo: false`, and the target is changed last", farm.Short(now.leaf), err)
	}
	return false, nil
}

// read takes a receipt of this target apart.
func (k *keeper) read(r deploy.Receipt) (n shelfNote, err error) {
	if err := json.Unmarshal(r.Note, &n); err != nil {
		return n, fmt.Errorf("reading a receipt: %w", err)
	}
	if n.Place != k.identity || n.New == "" {
		return n, fmt.Errorf("reading a receipt: it is for %q: stage anew", n.Place)
	}
	return n, nil
}

// each does something for every receipt; one failure does not hold the others.
func (k *keeper) each(ctx context.Context, doing string, rs []deploy.Receipt, do func(context.Context, shelfNote, held) error) error {
	var all []error
	for _, r := range rs {
		n, err := k.read(r)
		if err != nil {
			all = append(all, err)
			continue
		}
		now, err := k.look(ctx)
		if err == nil {
			err = do(ctx, n, now)
		}
		all = append(all, err)
	}
	return k.told(doing, errors.Join(all...))
}

// Activate is deploy.Deployer's.
func (k *keeper) Activate(ctx context.Context, rs []deploy.Receipt) error {
	return k.each(ctx, "activating", rs, func(ctx context.Context, n shelfNote, now held) error {
		switch {
		case now.leaf == n.New:
			return nil // the answer of the call before was lost, or it was there already
		case now.leaf != n.Prev && !n.back(now):
			return fmt.Errorf("it holds %s: %w", now.text(), errForeign)
		}
		b, err := k.records.Bundle(ctx, n.New)
		if err != nil {
			return fmt.Errorf("getting %s again: %w", farm.Short(n.New), err)
		}
		return k.replace(ctx, n, b, now)
	})
}

// Restore is deploy.Deployer's.
func (k *keeper) Restore(ctx context.Context, rs []deploy.Receipt) error {
	return k.each(ctx, "restoring", rs, func(ctx context.Context, n shelfNote, now held) error {
		switch {
		case now.leaf == n.Prev:
			return nil
		case now.leaf != n.New && !n.back(now):
			return fmt.Errorf("it holds %s: %w", now.text(), errForeign)
		}
		b, err := k.before(ctx, n)
		if err != nil {
			return err
		}
		return k.replace(ctx, n, b, now)
	})
}

// before is what was live at Stage: from the controller's own memory or else the
// shelf's. Where that was nothing, it is a placeholder.
func (k *keeper) before(ctx context.Context, n shelfNote) (farm.Bundle, error) {
	if n.Prev == "" {
		return encode.Placeholder(n.Names, time.Now())
	}
	if k.records.Bundle != nil {
		if b, err := k.records.Bundle(ctx, n.Prev); err == nil {
			return b, nil
		}
	}
	b, err := k.old(ctx, n.Ref)
	if err != nil {
		return b, fmt.Errorf("getting %s again: %w", farm.Short(n.Prev), err)
	}
	if got := farm.LeafFingerprint(b.Chain); got != n.Prev {
		return b, fmt.Errorf("getting %s again: there is %s in its place", farm.Short(n.Prev), farm.Short(got))
	}
	return b, nil
}

// replace puts a bundle there and looks whether it arrived.
func (k *keeper) replace(ctx context.Context, n shelfNote, b farm.Bundle, now held) error {
	if _, err := encode.Pair(b.Chain, b.Key.Reveal()); err != nil {
		return fmt.Errorf("checking %s: %w", b, err)
	}
	if err := k.put(ctx, parcel{Bundle: b, farm: k.records.Farm, site: n.Site}, now); err != nil {
		return outbound.Clean(err, b.Key)
	}
	then, err := k.look(ctx)
	if err != nil {
		return fmt.Errorf("looking whether it arrived: %w", err)
	}
	want := farm.LeafFingerprint(b.Chain)
	if then.leaf != want && !(then.placeholder && n.Prev == "") {
		return fmt.Errorf("%s was put there, and now it holds %s: %w", farm.Short(want), then.text(), errForeign)
	}
	return nil
}

// Discard is deploy.Deployer's. Nothing was put beside what is live, and what the
// vault keeps of earlier versions is its own affair, until a key is to be forgotten.
func (k *keeper) Discard(_ context.Context, r deploy.Receipt) error {
	_, err := k.read(r)
	return err
}

// told names the place in an error, and takes secrets out.
func (k *keeper) told(doing string, err error) error {
	if err == nil {
		return nil
	}
	return outbound.Clean(fmt.Errorf("%s %s: %w", doing, k.identity, err), k.secrets...)
}

// pemBundle is a leaf from PEM texts.
func pemBundle(chain, key []byte) (farm.Bundle, error) {
	leaf, err := encode.Pair(chain, key)
	if err != nil {
		return farm.Bundle{}, err
	}
	return farm.Bundle{Leaf: farm.Fingerprint(leaf.Raw), Chain: chain, Key: farm.NewSecret(key)}, nil
}
