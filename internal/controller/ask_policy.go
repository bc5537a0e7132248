package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/certfarm/certfarm/internal/deploy/remote"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/snippet"
	"github.com/certfarm/certfarm/internal/store"
)

// NodePolicy writes the policy that a node needs which decides for itself: what its
// targets in farm.yaml reach there, and no more.
func (c *Controller) NodePolicy(ctx context.Context, farmName, name string) (s snippet.Snippet, err error) {
	a := snippet.PolicyAsk{Node: name, Farm: farmName}
	uses := map[string][][]string{}
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		if _, err := tx.Node(ctx, farmName, name); err != nil {
			return err
		}
		places, err := tx.Places(ctx, farmName, "")
		if err != nil {
			return err
		}
		for _, p := range places {
			if p.Target.Node != name || p.Released {
				continue
			}
			site, err := tx.Site(ctx, farmName, p.Target.Site)
			if err != nil {
				return err
			}
			if err := c.needs(&a, uses, p.Target, site); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return s, err
	}
	a.Commands = snippet.Named(uses)
	for _, list := range []*[]string{&a.Names, &a.Kinds, &a.Folders, &a.Sockets, &a.KeyTypes} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	if s, err = snippet.Policy(a); err != nil {
		return s, &Refusal{err.Error(), ""}
	}
	return s, nil
}

// needs adds what one target reaches.
func (c *Controller) needs(a *snippet.PolicyAsk, uses map[string][][]string, t farm.Target, site farm.Site) error {
	n, err := remote.NeedsOf(c.Kinds[t.Kind], t.Options, slices.Collect(maps.Keys(t.Secrets))...)
	if err != nil {
		return fmt.Errorf("target %s: %w", t.Name, err)
	}
	a.Names, a.Kinds = append(a.Names, site.Names...), append(a.Kinds, t.Kind)
	a.Folders, a.Sockets = append(a.Folders, n.Folders...), append(a.Sockets, n.Sockets...)
	for _, k := range site.KeyTypes {
		a.KeyTypes = append(a.KeyTypes, string(k))
	}
	for option, argv := range n.Commands {
		uses[option] = append(uses[option], argv)
	}
	return nil
}

// NodeReceiver writes the line of authorized_keys by which the controllers' login on a
// node can do nothing but call it.
func (c *Controller) NodeReceiver(ctx context.Context, farmName, name string) (s snippet.Snippet, err error) {
	n, err := c.Node(ctx, farmName, name)
	if err != nil {
		return s, err
	}
	if n.SSH == nil {
		return s, &Refusal{"nobody logs in at node " + name, "a receiver is the forced command of an SSH login; a node with agent: true needs none"}
	}
	a := snippet.ReceiverAsk{Node: name, User: n.SSH.User, Signed: n.SSH.Certificate != "" || !n.SSH.CertificateFrom.IsZero() || n.SSH.CertificateCommand != ""}
	key, err := c.Secret(ctx, farmName, n.SSH.Key)
	if err != nil {
		return s, fmt.Errorf("login key of %s: %w", name, err)
	}
	signer, err := ssh.ParsePrivateKey(key.Reveal())
	if err != nil {
		return s, &Refusal{"the login key of node " + name + " cannot be read", "see `certfarm secret set`: it is a private key without a passphrase"}
	}
	a.Key = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	if s, err = snippet.Receiver(a); err != nil {
		return s, &Refusal{err.Error(), ""}
	}
	return s, nil
}
