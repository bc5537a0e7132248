package audit

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// An Ask is a request that goes through a door.
type Ask struct {
	Route  access.Route
	Caller access.Caller
	From   string              // address
	Word   func(string) string // the words of the route's path
}

// Watches reports that a route's acts are written down: all that may change something,
// and those that hand out a key. Who may only look changes nothing, however they ask.
func Watches(r access.Route) bool {
	reads := r.Method == "GET" || r.Method == "HEAD" || r.Needs == access.View
	return !reads || r.Needs == access.KeyExport
}

// first reports that an act is only done once it is written down, as a key only leaves
// then (see HandOver). Renewals are not among these: a full disk must not let a farm
// expire.
func first(p access.Permission) bool {
	return slices.Contains([]access.Permission{access.Edit, access.Secrets, access.Access}, p)
}

// A Doorkeeper writes down what goes through a door.
type Doorkeeper struct {
	Book Book
	Log  *slog.Logger
}

// digest is the SHA-256 of the farm.yaml that counts now; empty: there is none.
func (d Doorkeeper) digest(ctx context.Context, farmName string) (sum string) {
	err := d.Book.Store.View(ctx, func(tx *store.Tx) error {
		r, err := tx.Revision(ctx, farmName)
		if err == nil {
			sum = farm.Fingerprint(r.Text)
		}
		return err
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		d.Log.Error("the audit goes without the sum of farm.yaml", "farm", farmName, "error", err)
	}
	return sum
}

// Begin is called before an act is done. ended must be called after it, with the status
// of the answer. The error is ErrUnwritten where the act must not be done. The words of
// a path are names; a secret is never one of them.
func (d Doorkeeper) Begin(ctx context.Context, a Ask) (ended func(status int), err error) {
	if !Watches(a.Route) || a.Route.Needs == access.KeyExport { // which HandOver writes down, if a key goes out
		return func(int) {}, nil
	}
	e := entry(a)
	edits := a.Route.Needs == access.Edit && e.Farm != ""
	if edits {
		e.Before = d.digest(ctx, e.Farm)
	}
	if first(a.Route.Needs) {
		if err := d.Book.Write(ctx, e); err != nil {
			d.Log.Error("the audit cannot be written: an act is refused", "action", e.Action, "by", e.Actor, "request", e.Request, "error", err)
			return nil, ErrUnwritten
		}
	}
	return func(status int) {
		ctx := context.WithoutCancel(ctx)
		e.Status, e.Result = status, result(status)
		if edits {
			e.After = d.digest(ctx, e.Farm)
		}
		if err := d.Book.Write(ctx, e); err != nil {
			d.Log.Error("the audit cannot be written: an act went on without it", "action", e.Action, "by", e.Actor, "request", e.Request, "error", err)
		}
	}, nil
}

// HandOver is called before a key leaves: leaf is the fingerprint of its certificate.
// The key must not leave where that cannot be written, which is ErrUnwritten.
func (d Doorkeeper) HandOver(ctx context.Context, a Ask, leaf string) error {
	e := entry(a)
	e.After, e.Result, e.Status = leaf, Done, 200
	if err := d.Book.Write(context.WithoutCancel(ctx), e); err != nil {
		d.Log.Error("the audit cannot be written: a key is not handed out", "action", e.Action, "by", e.Actor, "request", e.Request, "error", err)
		return ErrUnwritten
	}
	return nil
}

// Refuse writes down that somebody who is known tried what they may not. When that
// cannot be written, they are refused all the same.
func (d Doorkeeper) Refuse(ctx context.Context, a Ask, status int) {
	if !Watches(a.Route) || !a.Caller.Known() {
		return
	}
	e := entry(a)
	e.Result, e.Status = Refused, status
	if err := d.Book.Write(context.WithoutCancel(ctx), e); err != nil {
		d.Log.Error("the audit cannot be written: a refusal", "action", e.Action, "by", e.Actor, "error", err)
	}
}

func entry(a Ask) Entry {
	return Entry{
		Actor: a.Caller.Name, Via: a.Caller.Via, Role: roles(a.Caller), From: a.From, Request: rand.Text(),
		Action: a.Route.ID, Farm: a.Word("farm"), Object: object(a), Result: Begun,
	}
}

func result(status int) string {
	switch {
	case status >= 500:
		return Failed
	case status >= 400:
		return Refused
	}
	return Done
}

func roles(c access.Caller) string {
	var all []string
	for _, g := range c.Grants {
		if word := string(g.Role); word != "" && !slices.Contains(all, word) {
			all = append(all, word)
		}
	}
	return strings.Join(all, ",")
}

// object names what an act is about: the word of its path beside the farm's.
func object(a Ask) string {
	for _, word := range []string{"site", "target", "rollout", "node", "issuer", "secret", "token", "replacement"} {
		if name := a.Word(word); name != "" {
			return word + " " + name
		}
	}
	return ""
}
