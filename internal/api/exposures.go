package api

import (
	"context"

	"github.com/certfarm/certfarm/internal/controller"
)

type compromiseAccountAsk struct {
	InFarm
	Issuer string `path:"issuer" minLength:"1"`
	Body   controller.CompromiseAsk
}

func (s *server) compromiseAccount(ctx context.Context, in *compromiseAccountAsk) (controller.AccountFlight, error) {
	return s.CompromiseAccount(ctx, in.Farm, in.Issuer, in.Body, by(ctx))
}

type compromiseNodeAsk struct {
	InNode
	Body controller.NodeCompromiseAsk
}

func (s *server) compromiseNode(ctx context.Context, in *compromiseNodeAsk) (controller.NodeFlight, error) {
	r, err := s.CompromiseNode(ctx, in.Farm, in.Node, in.Body, by(ctx))
	r.Sites, r.Credentials = list(r.Sites), list(r.Credentials)
	return r, err
}
