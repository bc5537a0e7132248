// Package iis puts certificates on IIS: into the certificate store of a Windows node,
// where the HTTPS bindings are pointed to them, or into a folder of the node that
// is its Centralized Certificate Store, with the bindings and settings that it needs. It
// also makes them right on the servers that read a store on a share, for the kind ccs.
//
//	Cert:\LocalMachine\My      9f2a… the old one      http.sys  www.example.com:443 ──▶ 9f2a…
//	                           4c11… the new one,                                   (Activate: 4c11…)
//	                                beside it since Stage
//	HKLM\SOFTWARE\Certfarm\IIS      who brought which, and which is the way back
//
// Its invariant: what http.sys serves is read before and after every change, and what
// is not meant must be as it was, or all goes back; the old certificate stays in the
// store until Discard; a certificate is taken away only if it was brought by us and
// nobody on the node uses it.
//
// Everything goes through host.Host.Run as one of six constant scripts, with its
// parameters and secrets on the standard input. There is no script text that is
// made of input.
package iis

import (
	"context"
	"crypto/sha1" //nolint:gosec // it is how Windows names certificates, and guards nothing
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
)

// mendTime is how long setting right what went wrong may take when the time for
// the call itself is over.
const mendTime = 30 * time.Second

// errForeign is that somebody else has changed what is live.
var errForeign = errors.New("it was changed by somebody else since it was staged, and is left alone: stage anew")

// machine is the Deployer of a target in the machine's certificate store.
type machine struct {
	shell
	options Options
}

// note is a receipt's note. It has all that another target of the node needs to act
// on it, and no key.
type note struct {
	ID    string // of the memo
	Place string
	Store string
	New   string // thumb of what was staged
	Leaf  string // its fingerprint
	Only  bool   `json:",omitempty"` // the store alone
	Prev  string `json:",omitempty"` // with Only: thumb of what was live at Stage
	Slots []slot `json:",omitempty"`
}

// id names the memo of a target.
func (o Options) id() string {
	sum := sha256.Sum256([]byte(strings.Join(o.Places(), "\n")))
	return hex.EncodeToString(sum[:8])
}

// Inspect is deploy.Deployer's: what http.sys serves at the bindings that are meant,
// or with store-only what was made live last.
func (d *machine) Inspect(ctx context.Context) (in deploy.Installed, err error) {
	n, err := d.look(ctx)
	if err != nil {
		return in, err
	}
	if d.options.Mode == StoreOnly {
		if h, ok := n.memos[d.options.id()].live(); ok {
			n.add(&in, h.Store, h.Thumb)
		}
		return in, nil
	}
	slots, err := n.slots(d.options)
	if err != nil {
		return deploy.Installed{}, err
	}
	return n.installed(slots), nil
}

// Stage is deploy.Deployer's: it brings the certificate into the store and looks
// whether it arrived with its key.
func (d *machine) Stage(ctx context.Context, s deploy.Stage) (deploy.Receipt, error) {
	b, err := single(s)
	if err != nil {
		return deploy.Receipt{}, err
	}
	n, err := d.look(ctx)
	if err != nil {
		return deploy.Receipt{}, err
	}
	leaf, err := encode.Leaf(b.Chain)
	if err != nil {
		return deploy.Receipt{}, err
	}
	sum := sha1.Sum(leaf.Raw) //nolint:gosec // see the import
	o := d.options
	t := note{ID: o.id(), Place: o.Places()[0], Store: o.Certificates, New: hex.EncodeToString(sum[:]), Leaf: b.Leaf, Only: o.Mode == StoreOnly}
	if t.Only {
		was, _ := n.memos[t.ID].live()
		t.Prev = was.Thumb
	} else if t.Slots, err = n.slots(o); err == nil {
		err = n.fit(o, t.Slots)
	}
	if err != nil {
		return deploy.Receipt{}, fmt.Errorf("staging: %w", err)
	}
	if err := d.bring(ctx, n, t, b); err != nil {
		ctx, cancel := mending(ctx)
		defer cancel()
		return deploy.Receipt{}, errors.Join(fmt.Errorf("staging: %w", err), d.discard(ctx, t))
	}
	text, err := json.Marshal(t)
	return deploy.Receipt{Note: text}, err
}

// single is the one leaf of a stage: a binding has one certificate.
func single(s deploy.Stage) (farm.Bundle, error) {
	if len(s.Bundles) != 1 {
		return farm.Bundle{}, fmt.Errorf("%d leaves, and a binding has one certificate: give the site one key type", len(s.Bundles))
	}
	b := s.Bundles[0]
	if err := encode.Check(b, time.Now()); err != nil {
		return b, err
	}
	b.Leaf = farm.LeafFingerprint(b.Chain)
	return b, nil
}

// bring puts a certificate into the store beside what is there, and takes away what
// no receipt needs any more.
func (d *machine) bring(ctx context.Context, n node, t note, b farm.Bundle) error {
	m := n.memos[t.ID]
	m.Place = t.Place
	there := n.has(t.Store, t.New)
	if _, known := m.held(t.New); !known {
		m = m.with(held{Thumb: t.New, Leaf: t.Leaf, Store: t.Store, Role: staged, Own: !there || n.brought(t.New)})
	}
	if !there {
		if err := d.put(ctx, m.writing(t.ID), b); err != nil {
			return err
		}
		after, err := d.look(ctx)
		if err != nil {
			return err
		}
		if c, ok := after.find(t.Store, t.New); !ok || !strings.EqualFold(c.store, t.Store) || c.leaf != t.Leaf {
			return fmt.Errorf("%s was put into %s, and is not there with its key", b, t.Store)
		}
	}
	return d.erase(ctx, n, t.ID, m, m.leftovers(t.New))
}

// put imports a PFX under a password that is made for it and forgotten.
func (d *machine) put(ctx context.Context, memory writing, b farm.Bundle) error {
	password := encode.NewPFXPassword()
	pfx, err := encode.PFX(b, encode.PFXOptions{Password: password, Cipher: d.options.cipher()})
	if err != nil {
		return err
	}
	_, err = d.run(ctx, importScript, map[string]any{
		"pfx": pfx, "password": string(password.Reveal()), "store": d.options.Certificates,
		"exportable": d.options.Exportable, "notes": []writing{memory},
	}, password)
	if err != nil {
		return fmt.Errorf("importing %s: %w", b, err)
	}
	return nil
}

// Discard is deploy.Deployer's.
func (d *machine) Discard(ctx context.Context, r deploy.Receipt) error {
	t, err := read(r)
	if err != nil {
		return err
	}
	return d.discard(ctx, t)
}

func (d *machine) discard(ctx context.Context, t note) error {
	n, err := d.look(ctx)
	if err != nil {
		return err
	}
	m := n.memos[t.ID]
	var gone []held
	for _, h := range m.Held {
		if h.Thumb == t.New && h.Role == staged || h.Role == kept && h.For == t.New {
			gone = append(gone, h)
		}
	}
	return d.erase(ctx, n, t.ID, m, gone)
}

// erase forgets certificates, and takes those away that were brought by us and that
// nobody uses. What is remembered is written if it is news.
func (d *machine) erase(ctx context.Context, n node, id string, m memo, gone []held) error {
	certs := []held{}
	for _, h := range gone {
		others := n.needed(h.Thumb, id)
		if n.served(h.Thumb) && !others {
			continue // a person made it live: it is remembered, and goes another time
		}
		m = m.without(h.Thumb)
		if h.Own && !others {
			certs = append(certs, h)
		}
	}
	if len(certs) == 0 && slices.Equal(m.Held, n.memos[id].Held) {
		return nil
	}
	if _, err := d.run(ctx, removeScript, map[string]any{"certs": certs, "notes": []writing{m.writing(id)}}); err != nil {
		return fmt.Errorf("taking %d certificates away: %w", len(certs), err)
	}
	return nil
}

// mending is a context for setting things right after the call's own has ended.
func mending(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), mendTime)
}
