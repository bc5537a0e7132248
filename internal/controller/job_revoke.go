package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
	"github.com/certfarm/certfarm/internal/store"
)

// A revoked is what came of asking the CA to revoke one leaf.
type revoked struct {
	leaf  string // fingerprint
	err   error  // nil: it is revoked
	final bool   // asking again is of no use
	again time.Time
}

// workRevoke has the CA revoke one leaf of a version. Whoever repeats it is told
// that the leaf is revoked already, which is as good.
func (c *Controller) workRevoke(ctx context.Context, j farm.Job) farm.Result {
	var v farm.Version
	var issuer string
	only := false
	err := c.Store.View(ctx, func(tx *store.Tx) (err error) {
		if v, err = tx.Version(ctx, j.Farm, j.Subject); err != nil {
			return err
		}
		if only, err = observing(ctx, tx, j.Farm, v.Site); err != nil {
			return err
		}
		issuer, err = issuerOf(ctx, tx, v)
		return err
	})
	if errors.Is(err, store.ErrNotFound) && v.ID == "" {
		return farm.Result{} // forgotten
	}
	if err == nil && only {
		return farm.Result{Again: c.Now().Add(c.Pace.Late)} // it is of a backup
	}
	left := v.Unrevoked(c.Now())
	if len(left) == 0 {
		return farm.Result{Err: err}
	}
	r := revoked{leaf: left[0].Fingerprint, err: err}
	if err == nil {
		r.err = c.revokeLeaf(ctx, v, left[0], issuer)
	}
	if r.err == nil {
		return farm.Result{Value: r}
	}
	r.final = errors.Is(r.err, issue.Refused)
	r.again = c.Now().Add(min(orderPause(j.Attempt), time.Hour))
	if later, told := errors.AsType[*issue.Later](r.err); told {
		r.again = later.Until
	}
	result := farm.Result{Value: r, Err: r.err, Again: r.again}
	if r.final {
		result.Again = c.Now() // the next leaf
	}
	return result
}

// issuerOf is the issuer at which a version is revoked: the one that issued it, and
// for an imported one the site's, in case it came from there.
func issuerOf(ctx context.Context, tx *store.Tx, v farm.Version) (string, error) {
	if v.Issuer != "" {
		return v.Issuer, nil
	}
	if v.StandsFor != nil && v.StandsFor.Issuer != "" {
		return v.StandsFor.Issuer, nil
	}
	site, err := tx.Site(ctx, v.Farm, v.Site)
	return site.Issuer, err
}

// revokeLeaf asks the CA. The account signs, or the leaf's own key where that is
// still here and the CA does not believe the account.
func (c *Controller) revokeLeaf(ctx context.Context, v farm.Version, l farm.Leaf, issuer string) error {
	account, row, err := c.account(ctx, v.Farm, issuer)
	if err != nil {
		return fmt.Errorf("revoke %s at %s: %w", farm.Short(l.Fingerprint), issuer, err)
	}
	if row.HoldUntil.After(c.Now()) {
		return &issue.Later{Until: row.HoldUntil, Err: fmt.Errorf("issuer %s waits: %s", issuer, row.HoldWhy)}
	}
	var key farm.Secret
	if l.Key.Sealed != "" {
		if key, err = c.unseal(ctx, v.Farm, sealedKey, l.Key.Sealed); unlessGone(err) != nil {
			return err
		}
	}
	return account.Revoke(ctx, l.Chain, v.Revocation.Reason, key)
}

// applyRevoke writes what became of a leaf, and goes on with the next.
func (c *Controller) applyRevoke(ctx context.Context, tx *store.Tx, f farm.Finished) error {
	r, ok := f.Result.Value.(revoked)
	if !ok {
		return nil
	}
	v, err := tx.Version(ctx, f.Job.Farm, f.Job.Subject)
	if err != nil || v.Revocation == nil {
		return unlessGone(err)
	}
	wish := *v.Revocation
	e := farm.Event{Farm: v.Farm, Site: v.Site, Version: v.ID, Kind: "leaf.revoked", Actor: wish.By}
	r.write(&v, &wish, &e, tx.Now())
	news := r.err == nil || r.final || v.Revocation.Error != wish.Error
	v.Revocation = &wish
	if err := tx.PutVersion(ctx, v); err != nil {
		return err
	}
	if news {
		if err := tell(ctx, tx, e); err != nil {
			return err
		}
	}
	if len(v.Unrevoked(tx.Now())) == 0 {
		return errors.Join(eraseOld(ctx, tx, v.Farm, v.Site), armCompromise(ctx, tx, v.Farm, v.Site))
	}
	if r.err == nil {
		return arm(ctx, tx, v.Farm, "revoke", v.ID, tx.Now())
	}
	return nil // the job runs again by itself
}

// write says on the leaf and the wish what became of it, and tells.
func (r revoked) write(v *farm.Version, wish *farm.Revocation, e *farm.Event, now time.Time) {
	i := slices.IndexFunc(v.Leaves, func(l farm.Leaf) bool { return l.Fingerprint == r.leaf })
	if i < 0 {
		return
	}
	l, short := &v.Leaves[i], farm.Short(r.leaf)
	wish.Error, wish.Again = "", time.Time{}
	switch {
	case r.err == nil:
		l.Revoked = now
		e.Text = fmt.Sprintf("%s is revoked (%s)", short, issue.ReasonName(wish.Reason))
	case r.final:
		l.NotRevoked = r.err.Error()
		e.Kind, e.Level, e.Text = "leaf.not-revoked", farm.Alarm, fmt.Sprintf("%s is not revoked: %v", short, r.err)
		e.Hint = "revoke it yourself at the CA that issued it; its serial number is " + l.Serial
	default:
		wish.Error, wish.Again = r.err.Error(), r.again
		e.Kind, e.Level, e.Text = "leaf.unrevoked", farm.Warn, fmt.Sprintf("%s is not revoked yet: %v", short, r.err)
		e.Hint = "it is tried again by itself at " + r.again.UTC().Format("2006-01-02 15:04:05 MST")
	}
}
