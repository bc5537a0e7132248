package api

import (
	"context"

	"github.com/certfarm/certfarm/internal/controller"
)

type revokeAsk struct {
	InSite
	Body controller.RevokeAsk
}

func (s *server) revoke(ctx context.Context, in *revokeAsk) (controller.Revoking, error) {
	return s.Revoke(ctx, in.Farm, in.Site, in.Body, by(ctx))
}

type compromiseAsk struct {
	InSite
	Body controller.CompromiseAsk
}

func (s *server) compromise(ctx context.Context, in *compromiseAsk) (controller.Compromised, error) {
	return s.Compromise(ctx, in.Farm, in.Site, in.Body, by(ctx))
}
