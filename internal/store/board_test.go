package store_test

import (
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// What lists show is what the documents say, in both databases.
func TestBoard(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, c *clock) {
		ctx := t.Context()
		at := c.now()
		update(t, s, func(tx *store.Tx) error {
			if _, err := tx.SaveFarm(ctx, small("a_b", "axb", "c"), nil, "alice", 0); err != nil {
				return err
			}
			v := farm.Version{ID: "v1", Farm: "f", Site: "axb", Leaves: []farm.Leaf{{Fingerprint: "aa11", NotBefore: at, NotAfter: at.Add(time.Hour)}}}
			if err := tx.PutVersion(ctx, v); err != nil {
				return err
			}
			if err := tx.PutCertificate(ctx, farm.Certificate{Farm: "f", Site: "axb", Version: "v1", Failures: 1, Next: at}); err != nil {
				return err
			}
			p, err := tx.Place(ctx, "f", "axb-n1")
			if err != nil {
				return err
			}
			p.Desired, p.Looked, p.Drift = []string{"v1"}, at, "it serves another"
			p.Sights = []farm.Sight{{Fingerprint: []string{"bb22"}}}
			return tx.PutPlace(ctx, p)
		})
		view(t, s, func(tx *store.Tx) error {
			rows, err := tx.Rows(ctx, "f", "", store.ByExpiry, 0, 2)
			same(t, "the first two by expiry", rows, []store.Row{{Site: "a_b"}, {Site: "c"}})
			rows, err2 := tx.Rows(ctx, "f", "AX", store.ByName, 0, 0)
			same(t, "by a part of the name", rows, []store.Row{{Site: "axb", Leaf: "aa11", NotBefore: at, NotAfter: at.Add(time.Hour), Next: at, Failing: true}})
			n, err3 := tx.SiteCount(ctx, "f", "a_")
			same(t, "sites with an underscore", n, 1)
			cells, err4 := tx.Cells(ctx, "f", []string{"axb"})
			same(t, "cells", cells, []store.Cell{{Site: "axb", Node: "n1", Kind: "nginx", Target: "axb-n1", Standing: farm.Drifted, Served: "bb22", Looked: at}})
			tallies, err5 := tx.Tallies(ctx, "f", true)
			same(t, "tallies", tallies, []store.Tally{{Node: "n1", Standing: farm.Drifted, Targets: 1}, {Node: "n1", Standing: farm.Missing, Targets: 2}})
			places, err6 := tx.PlacesIn(ctx, "f", []farm.Standing{farm.Drifted, farm.Missing}, 2)
			if len(places) != 2 || places[0].Target.Name != "axb-n1" {
				t.Errorf("places: %v", places)
			}
			failing, err7 := tx.FailingCertificates(ctx, "f", 5)
			if len(failing) != 1 || failing[0].Site != "axb" {
				t.Errorf("failing: %v", failing)
			}
			tallies, err8 := tx.TalliesOn(ctx, "f", "n0", "n1")
			same(t, "tallies on nodes", tallies, []store.Tally{{Node: "n1", Standing: farm.Drifted, Targets: 1}, {Node: "n1", Standing: farm.Missing, Targets: 2}})
			on, err9 := tx.PlacesOn(ctx, "f", []string{"n1"}, farm.Drifted)
			if len(on) != 1 || on[0].Target.Name != "axb-n1" {
				t.Errorf("places on a node: %v", on)
			}
			elsewhere, err10 := tx.PlacesOn(ctx, "f", []string{"n0"})
			same(t, "places on another", len(elsewhere), 0)
			for _, err := range []error{err, err2, err3, err4, err5, err6, err7, err8, err9, err10} {
				if err != nil {
					t.Error(err)
				}
			}
			return nil
		})
	})
}
