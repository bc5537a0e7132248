package api

import (
	"context"

	"github.com/certfarm/certfarm/internal/controller"
)

// Replacements is the mass replacements of a farm, the newest first.
type Replacements struct {
	Replacements []controller.CampaignStatus `json:"replacements"`
}

func (s *server) listReplacements(ctx context.Context, in *InFarm) (Replacements, error) {
	all, err := s.Replacements(ctx, in.Farm)
	return Replacements{list(all)}, err
}

type replaceAsk struct {
	InFarm
	Body controller.ReplaceAsk
}

func (s *server) planReplacement(ctx context.Context, in *replaceAsk) (controller.ReplacePlan, error) {
	p, err := s.PlanReplace(ctx, in.Farm, in.Body)
	p.Sites, p.Issuers = list(p.Sites), list(p.Issuers)
	return p, err
}

func (s *server) replace(ctx context.Context, in *replaceAsk) (controller.CampaignStatus, error) {
	return s.Replace(ctx, in.Farm, in.Body, by(ctx))
}

type inReplacement struct {
	InFarm
	Replacement string `path:"replacement" minLength:"1"`
}

func (s *server) cancelReplacement(ctx context.Context, in *inReplacement) error {
	return s.CancelReplacement(ctx, in.Farm, in.Replacement, by(ctx))
}
