package agent

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/remote"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/fence"
)

// work is one call while it is done.
type work struct {
	*Answerer
	call   remote.Call
	policy fence.Policy
	sum    string // of the call
	ask    fence.Ask
	notes  []deploy.Receipt // the receipts, as the kind's own deployer knows them
	kept   map[string]time.Time
}

// actOf is a verb in the words of the fence.
func actOf(v remote.Verb) fence.Act {
	switch v {
	case remote.DoStage:
		return fence.Put
	case remote.DoActivate:
		return fence.Switch
	case remote.DoRestore:
		return fence.Back
	case remote.DoDiscard:
		return fence.Drop
	case remote.DoRequest:
		return fence.Make
	case remote.DoForget:
		return fence.Lose
	case remote.DoInspect:
	}
	return fence.Look
}

// understand puts the call into the words of the fence. What the call says of itself
// counts for nothing where the certificate, the options or the receipts say it.
func (w *work) understand() error {
	c := w.call
	w.ask = fence.Ask{
		Act: actOf(c.Do), ID: c.ID, Sum: w.sum, Farm: c.Farm, Node: c.Node, Lane: c.Lane,
		Owner: c.Lease.Owner, Epoch: c.Lease.Epoch, Nonce: c.Lease.Nonce, Kind: c.Kind,
	}
	switch {
	case c.Do == remote.DoRequest:
		w.ask.Kind, w.ask.Names, w.ask.KeyTypes = "", c.Names, []farm.KeyType{c.KeyType}
		if len(c.Names) == 0 {
			w.ask.Malformed = "a signing request for no name"
		}
		return nil
	case c.Do == remote.DoForget:
		w.ask.Kind = ""
		return nil
	case c.Kind == "" && c.Do == remote.DoInspect:
		return nil
	}
	if err := w.target(); err != nil {
		return fmt.Errorf("%w: %w", errUnheard, err)
	}
	if c.Do == remote.DoStage {
		w.bundles()
	}
	w.receipts()
	return nil
}

// target reads what the options reach.
func (w *work) target() error {
	k, known := w.s.Kinds[w.call.Kind]
	if !known {
		return fmt.Errorf("no kind %.40q is known to this version", w.call.Kind)
	}
	if k.Nodeless && !k.OnNode(w.call.Options) {
		return fmt.Errorf("a target of kind %s is on no node", k.Name)
	}
	needs, err := remote.NeedsOf(k, w.call.Options, slices.Collect(maps.Keys(w.call.Secrets))...)
	if err != nil {
		return err
	}
	if needs.Bare && w.call.Do.Changes() {
		w.ask.Malformed = "everybody on this node could read the keys: its option mode is too wide"
	}
	w.ask.Places, w.ask.Folders = needs.Places, needs.Folders
	for _, name := range slices.Sorted(maps.Keys(needs.Commands)) {
		w.ask.Commands = append(w.ask.Commands, needs.Commands[name])
	}
	return nil
}

// bundles reads what the certificates say: their names and their key's type, and not
// what the call says of them.
func (w *work) bundles() {
	w.ask.Names = slices.Clone(w.call.Stage.Names) // a placeholder is made of them
	for _, b := range w.call.Stage.Bundles {
		leaf, err := encode.Leaf(b.Chain)
		if err != nil {
			w.ask.Malformed = "a chain is none: " + err.Error()
			return
		}
		facts, err := encode.Facts(b.Chain)
		if err != nil {
			w.ask.Malformed = "a chain is none: " + err.Error()
			return
		}
		names := slices.Clone(leaf.DNSNames)
		for _, ip := range leaf.IPAddresses {
			names = append(names, ip.String())
		}
		if len(names) == 0 || len(leaf.EmailAddresses)+len(leaf.URIs) > 0 {
			w.ask.Malformed = "a leaf has no host name, or other names beside"
			return
		}
		w.ask.Names = append(w.ask.Names, names...)
		w.ask.KeyTypes = append(w.ask.KeyTypes, facts.KeyType)
		if w.ask.Oldest.IsZero() || leaf.NotBefore.Before(w.ask.Oldest) {
			w.ask.Oldest = leaf.NotBefore
		}
	}
}

// receipts takes the receipts of a call apart. One that was not made here is none, but
// to take away what is not live: the deployer itself touches nothing else then.
func (w *work) receipts() {
	w.ask.Kept = map[string]time.Time{}
	for _, r := range w.call.Receipts {
		n, err := w.receipt.open(r.Note)
		switch {
		case err == nil && n.Kind == w.call.Kind && n.Node == w.call.Node:
			r.Note = n.Note
		case w.call.Do != remote.DoDiscard:
			w.ask.Forged = "a receipt was not made on this node, or what it is signed with is gone: stage anew"
			return
		}
		for place, before := range n.Before {
			if w.call.Do == remote.DoRestore {
				w.ask.Kept[place] = before
			} else {
				w.ask.Kept[place] = n.Oldest
			}
		}
		w.notes = append(w.notes, r)
	}
}
