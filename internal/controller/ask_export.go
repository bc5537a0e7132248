package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// An Offer is a certificate that a consumer may take away with its key. The key is not
// opened yet.
type Offer struct {
	Site    string
	Version string // id
	Names   []string
	Leaf    farm.Leaf
}

// Offer finds what may be handed out of a site: the newest version that a rollout has
// proven, and of it the leaf with a key of some type (empty: the first). What is not
// proven, revoked, expired or known to others is never offered, and neither is the key
// of one node: the errors are *Refusal and store.ErrNotFound.
func (c *Controller) Offer(ctx context.Context, farmName, site string, want farm.KeyType) (o Offer, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		own := "where each node has a key of its own, none is handed out"
		if err := onlyOne(ctx, tx, farmName, site, own); err != nil {
			return err
		}
		s, err := tx.Site(ctx, farmName, site)
		if err != nil {
			return err
		}
		if err := refuseIf(s.Member != nil, own, "let the consumer be a target, or give the site the strategy central"); err != nil {
			return err
		}
		o, err = offered(ctx, tx, farmName, site, func(all []farm.Leaf) int {
			return slices.IndexFunc(all, func(l farm.Leaf) bool { return want == "" || l.KeyType == want })
		})
		return err
	})
	return o, err
}

// offered is what may be handed out of a site that is no part of another. choose says
// which of the leaves is wanted; -1: none of them will do.
func offered(ctx context.Context, tx *store.Tx, farmName, site string, choose func([]farm.Leaf) int) (o Offer, err error) {
	versions, err := tx.Versions(ctx, farmName, site)
	if err != nil {
		return o, err
	}
	now := tx.Now()
	at := slices.IndexFunc(versions, func(v farm.Version) bool { // newest first
		return v.State == farm.VersionGood && !v.Proven.IsZero() && now.Before(v.NotAfter()) && v.HasKeys()
	})
	if at < 0 {
		return o, &Refusal{"site " + site + " has no certificate yet that was proven on its targets", "`certfarm rollout status " + site + "` shows how far it is"}
	}
	v := versions[at]
	i := choose(v.Leaves)
	if i < 0 {
		return o, &Refusal{"the certificate of site " + site + " has no key of that type", "ask for " + strings.Join(keyTypes(v.Leaves), " or ")}
	}
	if node := v.Leaves[i].Key.Node; node != "" {
		return o, &Refusal{"the key of site " + site + " is held on node " + node + " and never leaves it", "let the consumer be a target, or give the site the strategy central"}
	}
	return Offer{Site: site, Version: v.ID, Names: v.Names, Leaf: v.Leaves[i]}, nil
}

func keyTypes(all []farm.Leaf) (names []string) {
	for _, l := range all {
		names = append(names, string(l.KeyType))
	}
	return names
}

// HandOut opens the key of what was offered. It checks that all of it fits together and
// is good at this time.
func (c *Controller) HandOut(ctx context.Context, farmName string, o Offer) (farm.Bundle, error) {
	key, err := c.unseal(ctx, farmName, sealedKey, o.Leaf.Key.Sealed)
	if err != nil {
		return farm.Bundle{}, err
	}
	b := farm.Bundle{Version: o.Version, Leaf: o.Leaf.Fingerprint, KeyType: o.Leaf.KeyType, Names: o.Names, Chain: o.Leaf.Chain, Key: key}
	return b, encode.Check(b, c.Now())
}

// A Hello is what a server that pulls certificates tells of a client's first message.
type Hello struct {
	ServerName string
	ECDSA      bool // the client takes signatures by ECDSA
	RSA        bool
}

// pick is the leaf that a client takes, by ECDSA rather than by RSA.
func (h Hello) pick(all []farm.Leaf) int {
	ec := slices.IndexFunc(all, func(l farm.Leaf) bool { return h.ECDSA && strings.HasPrefix(string(l.KeyType), "ec") })
	if ec >= 0 {
		return ec
	}
	return slices.IndexFunc(all, func(l farm.Leaf) bool { return h.RSA && strings.HasPrefix(string(l.KeyType), "rsa") })
}

// OfferFor finds what may be handed out for a name that a client asks for, among the
// sites that may returns true for. ok is false where there is nothing, whatever the
// reason: who pulls then goes on without.
func (c *Controller) OfferFor(ctx context.Context, farmName string, h Hello, may func(site string) bool) (o Offer, ok bool, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		sites, err := c.signs.of(ctx, tx, farmName, h.ServerName)
		if err != nil {
			return err
		}
		for _, s := range sites {
			if !may(s) {
				continue
			}
			o, err = offered(ctx, tx, farmName, s, h.pick)
			if _, refused := errors.AsType[*Refusal](err); refused {
				continue
			}
			ok = err == nil
			return err
		}
		return nil
	})
	return o, ok, err
}

// signs know which sites are for which names, for each farm at one revision: they are
// asked at every handshake of a server that pulls.
type signs struct {
	mu    sync.Mutex
	farms map[string]signpost
}

type signpost struct {
	revision int64
	sites    map[string][]string // by name, in lower case; without those of one node
}

// of lists the sites for a name: those that have the very name before those that have
// it by a wildcard, which stands for one label (RFC 6125 §6.4.3).
func (s *signs) of(ctx context.Context, tx *store.Tx, farmName, name string) ([]string, error) {
	post, err := s.post(ctx, tx, farmName)
	if err != nil {
		return nil, err
	}
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	_, parent, _ := strings.Cut(name, ".")
	return slices.Concat(post.sites[name], post.sites["*."+parent]), nil
}

func (s *signs) post(ctx context.Context, tx *store.Tx, farmName string) (signpost, error) {
	revision, err := tx.RevisionNumber(ctx, farmName)
	if err != nil {
		return signpost{}, err
	}
	s.mu.Lock()
	known, there := s.farms[farmName]
	s.mu.Unlock()
	if there && known.revision == revision {
		return known, nil
	}
	post := signpost{revision, map[string][]string{}}
	all, err := tx.Sites(ctx, farmName, "", 0)
	if err != nil {
		return post, fmt.Errorf("names of farm %s: %w", farmName, err)
	}
	for _, site := range all {
		if site.Member != nil {
			continue
		}
		for _, n := range site.Names {
			n = strings.ToLower(n)
			post.sites[n] = append(post.sites[n], site.Name)
		}
	}
	if revision > 0 { // names of farms that are none are not remembered: anybody may ask for any
		s.mu.Lock()
		s.farms[farmName] = post
		s.mu.Unlock()
	}
	return post, nil
}
