package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// The mass replacements of a farm stand in this word, the newest first.
const wordCampaigns = "campaigns"

// So many are remembered, and while one runs it is looked at so often.
const (
	campaignsKept = 20
	campaignEvery = 10 * time.Minute
)

// campaigns reads a farm's mass replacements, the newest first.
func campaigns(ctx context.Context, tx *store.Tx, farmName string) (all []farm.Campaign, err error) {
	text, err := tx.Word(ctx, farmName, wordCampaigns)
	if err != nil || text == "" {
		return nil, err
	}
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		return nil, fmt.Errorf("mass replacements of farm %s: %w", farmName, err)
	}
	return all, nil
}

// putCampaign keeps one.
func putCampaign(ctx context.Context, tx *store.Tx, c farm.Campaign) error {
	all, err := campaigns(ctx, tx, c.Farm)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(all, func(had farm.Campaign) bool { return had.ID == c.ID }); i >= 0 {
		all[i] = c
	} else {
		all = slices.Insert(all, 0, c)
	}
	text, err := json.Marshal(all[:min(len(all), campaignsKept)])
	if err != nil {
		return err
	}
	return tx.SetWord(ctx, c.Farm, wordCampaigns, string(text))
}

// campaign finds one by its id.
func campaign(ctx context.Context, tx *store.Tx, farmName, id string) (farm.Campaign, error) {
	all, err := campaigns(ctx, tx, farmName)
	for _, c := range all {
		if err == nil && c.ID == id {
			return c, nil
		}
	}
	if err == nil {
		err = fmt.Errorf("mass replacement %s: %w", id, store.ErrNotFound)
	}
	return farm.Campaign{}, err
}

// replacedNow ends a site's part in a mass replacement when the version that is to go
// is neither the newest nor on any target.
func (s *standing) replacedNow(ctx context.Context, tx *store.Tx) error {
	r := s.cert.Replace
	if r == nil || s.newest.ID == r.Version {
		return nil
	}
	places, err := tx.Places(ctx, s.cert.Farm, s.site.Name)
	if err != nil {
		return err
	}
	for _, p := range places {
		if !p.Released && slices.Contains(p.Desired, r.Version) {
			return nil
		}
	}
	s.cert.Replace = nil
	return arm(ctx, tx, s.cert.Farm, "replace", r.Campaign, tx.Now().Add(gather))
}

// takeOver notes how many certificates each earlier mass replacement has lost to a new
// one, and has it looked at soon: they may be the last that it waited for.
func takeOver(ctx context.Context, tx *store.Tx, farmName string, lost map[string]int) error {
	for id, n := range lost {
		is, err := campaign(ctx, tx, farmName, id)
		if errors.Is(err, store.ErrNotFound) {
			continue // it is so long ago that it is not remembered
		}
		if err != nil {
			return err
		}
		is.Left += n
		if err := putCampaign(ctx, tx, is); err != nil {
			return err
		}
		if err := arm(ctx, tx, farmName, "replace", id, tx.Now().Add(gather)); err != nil {
			return err
		}
	}
	return nil
}

// applyReplace looks how far a mass replacement is, and ends it when nothing is left.
func (c *Controller) applyReplace(ctx context.Context, tx *store.Tx, f farm.Finished) error {
	is, err := campaign(ctx, tx, f.Job.Farm, f.Job.Subject)
	if err != nil || !is.Ended.IsZero() {
		return unlessGone(err)
	}
	left, err := replacing(ctx, tx, is)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		if err := stopReplacing(ctx, tx, is, left); err != nil {
			return err
		}
		return arm(ctx, tx, is.Farm, "replace", is.ID, tx.Now().Add(campaignEvery))
	}
	is.Ended = tx.Now()
	if err := putCampaign(ctx, tx, is); err != nil {
		return err
	}
	text := fmt.Sprintf("certificates replaced and seen on their targets: all %d (%s)", is.Total, is.Reason)
	if is.Left > 0 {
		text = fmt.Sprintf("certificates replaced and seen on their targets: %d of %d; a later replacement took the others over (%s)", is.Total-is.Left, is.Total, is.Reason)
	}
	return tell(ctx, tx, farm.Event{Farm: is.Farm, Kind: "replacement.done", Text: text})
}

// replacing are the certificates that a mass replacement has still to replace.
func replacing(ctx context.Context, tx *store.Tx, is farm.Campaign) (left []farm.Certificate, err error) {
	all, err := tx.Certificates(ctx, is.Farm, "", 0)
	for _, cert := range all {
		if cert.Replace != nil && cert.Replace.Campaign == is.ID {
			left = append(left, cert)
		}
	}
	return left, err
}
