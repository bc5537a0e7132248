package controller

import (
	"context"
	"fmt"

	"github.com/certfarm/certfarm/internal/dnsserve"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/prove/dns01/provider"
	"github.com/certfarm/certfarm/internal/store"
)

// zones is what our own name servers answer from: the zones that farms delegate to
// the controllers, and the values in the store.
type zones struct{ records }

// Zones are those of every farm; see dnsserve.Source.
func (z zones) Zones(ctx context.Context) (all []dnsserve.Zone, err error) {
	err = z.store.View(ctx, func(tx *store.Tx) error {
		farms, err := tx.Farms(ctx)
		if err != nil {
			return err
		}
		for _, name := range farms {
			s, err := tx.Settings(ctx, name)
			if err != nil {
				return err
			}
			for _, d := range s.DNS {
				if d.Provider != farm.Builtin {
					continue
				}
				zone, err := provider.BuiltinZone(d.Options)
				if err != nil {
					return fmt.Errorf("dns %s of farm %s: %w", d.Name, name, err)
				}
				all = append(all, zone)
			}
		}
		return nil
	})
	return all, err
}

// Below reports whether there are values below a name; see dnsserve.Source.
func (z zones) Below(ctx context.Context, name string) (there bool, err error) {
	err = z.store.View(ctx, func(tx *store.Tx) error {
		there, err = tx.RecordsBelow(ctx, name)
		return err
	})
	return there, err
}

// ZoneSource is what our own name servers answer from.
func (c *Controller) ZoneSource() dnsserve.Source { return zones{records{newBoard(c.Store)}} }
