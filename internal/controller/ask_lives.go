package controller

import (
	"context"
	"time"

	"github.com/certfarm/certfarm/internal/renew"
	"github.com/certfarm/certfarm/internal/store"
)

// A Life is a certificate from its beginning to its end, and what is to come between.
type Life struct {
	Site        string    `json:"site"`
	NotBefore   time.Time `json:"not_before,omitzero" doc:"of the version that counts; not set: there is none"`
	NotAfter    time.Time `json:"not_after,omitzero"`
	WindowStart time.Time `json:"window_start,omitzero" doc:"of the window that the CA suggests for its renewal (RFC 9773)"`
	WindowEnd   time.Time `json:"window_end,omitzero"`
	Planned     time.Time `json:"planned,omitzero" doc:"when it becomes due"`
	LastSafe    time.Time `json:"last_safe,omitzero" doc:"the last moment at which its renewal may begin and be everywhere in time"`
}

// Lives tells of the sites' certificates, in the order asked; a site that is gone is
// left out.
func (c *Controller) Lives(ctx context.Context, farmName string, sites []string) (all []Life, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		for _, name := range sites {
			s, err := stand(ctx, tx, farmName, name)
			if err := unlessGone(err); err != nil {
				return err
			}
			if err != nil {
				continue
			}
			l := Life{Site: name, Planned: renew.Planned(s.facts()), LastSafe: s.lastSafe()}
			if len(s.newest.Leaves) > 0 {
				l.NotBefore, l.NotAfter = s.newest.NotBefore(), s.newest.NotAfter()
			}
			if s.cert.ARI.Leaf == s.newest.Leaf() {
				l.WindowStart, l.WindowEnd = s.cert.ARI.Start, s.cert.ARI.End
			}
			all = append(all, l)
		}
		return nil
	})
	return all, err
}

// LookNow has every endpoint of a site asked now what it serves. What is seen is
// written down, and healed where it should be.
func (c *Controller) LookNow(ctx context.Context, farmName, site string) error {
	return c.Store.Update(ctx, func(tx *store.Tx) error {
		if _, err := tx.Site(ctx, farmName, site); err != nil {
			return err
		}
		return arm(ctx, tx, farmName, "look", site, tx.Now())
	})
}
