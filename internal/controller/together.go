package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/certfarm/certfarm/internal/renew"
	"github.com/certfarm/certfarm/internal/store"
)

// A reload group whose certificates are renewed together has this word, with the time
// that was drawn.
const wordDraw = "draw "

// together has a site take part in the draw of its reload group, when its CA was asked
// when it wants the certificate renewed.
func (s *standing) together(ctx context.Context, tx *store.Tx, v checked) error {
	if v.suggestion == nil || v.suggestion.Leaf != leafOf(s.newest) || len(s.site.Targets) == 0 {
		return nil
	}
	var groups []string
	for _, t := range s.site.Targets {
		groups = append(groups, t.Node+"/"+t.Group)
	}
	word := wordDraw + slices.Min(groups) // sites on the same nodes meet in the first of them
	text, err := tx.Word(ctx, s.cert.Farm, word)
	if err != nil {
		return err
	}
	var was renew.Draw
	if text != "" {
		if err := json.Unmarshal([]byte(text), &was); err != nil {
			return fmt.Errorf("the time that was drawn for %s: %w", word, err)
		}
	}
	is, chosen := renew.Join(was, s.cert.ARI, tx.Now())
	s.cert.ARI.Chosen = chosen
	if is == was {
		return nil
	}
	now, err := json.Marshal(is)
	if err != nil {
		return err
	}
	return tx.SetWord(ctx, s.cert.Farm, word, string(now))
}
