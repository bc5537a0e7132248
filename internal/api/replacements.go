package api

import (
	"context"
	"slices"

	"github.com/certfarm/certfarm/internal/controller"
)

// Replacements is a page of the mass replacements of a farm, the newest first.
type Replacements struct {
	Replacements []controller.CampaignStatus `json:"replacements"`
	More
}

type listReplacements struct {
	InFarm
	Page
}

func (s *server) listReplacements(ctx context.Context, in *listReplacements) (Replacements, error) {
	all, err := s.Replacements(ctx, in.Farm)
	if err != nil {
		return Replacements{}, err
	}
	if in.After != "" {
		at := slices.IndexFunc(all, func(r controller.CampaignStatus) bool { return r.ID == in.After })
		if at < 0 {
			return Replacements{}, noPlace()
		}
		all = all[at+1:]
	}
	all, more := first(all, in.Limit, func(r controller.CampaignStatus) string { return r.ID })
	return Replacements{all, more}, nil
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

func (s *server) getReplacement(ctx context.Context, in *inReplacement) (controller.CampaignStatus, error) {
	return s.Replacement(ctx, in.Farm, in.Replacement)
}

func (s *server) pauseReplacement(ctx context.Context, in *inReplacement) error {
	return s.PauseReplacement(ctx, in.Farm, in.Replacement, by(ctx))
}

func (s *server) resumeReplacement(ctx context.Context, in *inReplacement) error {
	return s.ResumeReplacement(ctx, in.Farm, in.Replacement, by(ctx))
}

func (s *server) cancelReplacement(ctx context.Context, in *inReplacement) error {
	return s.CancelReplacement(ctx, in.Farm, in.Replacement, by(ctx))
}
