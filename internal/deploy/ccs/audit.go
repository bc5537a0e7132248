package ccs

import (
	"cmp"
	"context"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
)

// The troubles that a file of a store may have.
const (
	Missing    = "missing"    // a name of the site has no file
	Unreadable = "unreadable" // it cannot be read, or is no PFX
	Password   = "password"   // it does not open with the store's password
	Cipher     = "cipher"     // a reader cannot read it
	Mismatch   = "mismatch"   // the key is not the leaf's
	Expired    = "expired"
	Uncovered  = "uncovered" // the certificate is not for the file's name
	Shadow     = "shadow"    // it hides a wildcard that holds another certificate
	Orphan     = "orphan"    // no target that is known writes it
)

// inspector is one audit under way.
type inspector struct {
	*Store
	now     time.Time
	ours    []string               // files of the target's names
	written []string               // files that a target writes, ours among them
	named   []string               // files of the names of all sites that are known
	opened  map[string]farm.Bundle // what each readable file holds
	all     []deploy.Flaw
}

// Audit looks through the whole root and changes nothing; see deploy.Auditor. The
// files of the target's own names must be there; those of the names and places that
// are known are no orphans. The findings are sorted by file.
func (d *Store) Audit(ctx context.Context, a deploy.Audit) ([]deploy.Flaw, error) {
	ours, err := filesOf(d.names)
	if err != nil {
		return nil, err
	}
	i := inspector{Store: d, now: a.Now, ours: ours, written: slices.Clone(ours), opened: map[string]farm.Bundle{}}
	for _, name := range a.Names {
		files, _ := fileNames(name) // a name that can have no file, such as an address, hides none
		i.named = append(i.named, files...)
	}
	for _, place := range slices.Concat(d.options.Places(), a.Places) {
		_, file := split(place)
		i.written = append(i.written, file)
	}
	entries, err := d.files.List(ctx, d.options.root())
	if err != nil {
		return nil, fmt.Errorf("looking at the store: %w", err)
	}
	var files []string
	for _, e := range entries {
		name := strings.ToLower(e.Name) // IIS does not tell cases apart
		if e.Mode.IsDir() || !isFileName(name) {
			continue
		}
		files = append(files, name)
		if err := i.look(ctx, e.Name); err != nil {
			return nil, err
		}
	}
	i.compare(files)
	slices.SortStableFunc(i.all, func(a, b deploy.Flaw) int { return strings.Compare(a.Place, b.Place) })
	return i.all, nil
}

func (i *inspector) found(file, trouble, hint, format string, args ...any) {
	i.all = append(i.all, deploy.Flaw{Place: file, Trouble: trouble, Problem: fmt.Sprintf(format, args...), Hint: hint})
}

// look judges a file by itself.
func (i *inspector) look(ctx context.Context, file string) error {
	data, err := i.files.Read(ctx, join(i.options.root(), file))
	if errors.Is(err, host.ErrUnreachable) || ctx.Err() != nil {
		return fmt.Errorf("looking at the store: %w", err)
	}
	if err != nil {
		i.found(file, Unreadable, "look at its rights", "it cannot be read: %v", err)
		return nil
	}
	if cipher, err := encode.PFXCipherOf(data); err != nil {
		i.found(file, Unreadable, "take it away, or write it again", "it is no PFX that the readers open: %s", whyUnread(err))
		return nil
	} else if !i.options.reads(cipher) {
		i.found(file, Cipher, "write it again: a rollout of its site does", "it is protected by %s, which not all readers (%s) can read", cipher, i.options.Readers)
	}
	b, err := encode.OpenPFX(data, i.password)
	switch {
	case errors.Is(err, encode.ErrPassword):
		i.found(file, Password, "write it with the store's password, or take it away", "it does not open with the store's password, so no reader opens it")
		return nil
	case errors.Is(err, encode.ErrMismatch):
		i.found(file, Mismatch, "write it again: a rollout of its site does", "it holds a key that belongs to no certificate in it")
		return nil
	case err != nil:
		i.found(file, Unreadable, "take it away, or write it again", "%v", err)
		return nil
	}
	i.opened[strings.ToLower(file)] = b
	return i.judge(file, b)
}

// whyUnread is why a file is no PFX, without the parser's own account of a structure
// that is none.
func whyUnread(err error) string {
	_, structure := errors.AsType[asn1.StructuralError](err)
	_, syntax := errors.AsType[asn1.SyntaxError](err)
	if structure || syntax {
		return "what is in it is something else"
	}
	return err.Error()
}

// reads says whether all readers can read a cipher.
func (o Options) reads(c encode.PFXCipher) bool {
	return c == encode.PFXLegacy || c == encode.PFXModern && o.Readers == Readers2019
}

// judge looks at the certificate that a file holds.
func (i *inspector) judge(file string, b farm.Bundle) error {
	leaf, err := encode.Leaf(b.Chain)
	if err != nil {
		return err
	}
	if i.now.After(leaf.NotAfter) {
		i.found(file, Expired, "renew it, or take it away", "its certificate expired on %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	covered := false
	for _, name := range b.Names {
		files, err := fileNames(name)
		covered = covered || err == nil && slices.Contains(files, strings.ToLower(file))
	}
	if !covered && leaf.VerifyHostname(hostOf(file)) != nil {
		i.found(file, Uncovered, "clients see a warning: write the right one, or take it away", "its certificate is for %s", cmp.Or(strings.Join(b.Names, ", "), "no name at all"))
	}
	return nil
}

// compare judges files by what else is there.
func (i *inspector) compare(files []string) {
	for _, name := range i.ours {
		if !slices.Contains(files, name) {
			i.found(name, Missing, "a rollout of the site writes it", "the site has this name and the store no file for it")
		}
	}
	for _, file := range files {
		if slices.Contains(i.written, file) {
			continue
		}
		wild := wildcardOf(file)
		held, readable := i.opened[wild]
		if readable && i.opened[file].Leaf != held.Leaf {
			i.found(file, Shadow, "take it away, then readers serve "+wild, "nobody renews it, and it hides %s, which holds another certificate", wild)
			continue
		}
		if slices.Contains(i.named, file) {
			continue
		}
		i.found(file, Orphan, "take it away if nothing uses it; IIS may serve it to whoever asks for the name", "no site of the farm has the name %s in this store", hostOf(file))
	}
}
