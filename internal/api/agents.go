package api

import (
	"context"

	"github.com/certfarm/certfarm/internal/controller"
)

type agentTokenAsk struct {
	InFarm
	Body controller.AgentTokenAsk
}

// newAgentToken takes a token's digest; the token itself is made by who asks.
func (s *server) newAgentToken(ctx context.Context, in *agentTokenAsk) (controller.AgentToken, error) {
	return s.NewAgentToken(ctx, in.Farm, in.Body, by(ctx))
}

type banAsk struct {
	InNode
	Body Switch
}

func (s *server) banAgent(ctx context.Context, in *banAsk) error {
	return s.BanAgent(ctx, in.Farm, in.Node, by(ctx), in.Body.On)
}
