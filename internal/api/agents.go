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

func (s *server) agentsCA(ctx context.Context, _ *struct{}) (controller.AgentsCA, error) {
	return s.AgentsCA(ctx)
}

// AgentsRollover says how the CA of the agents is to be followed by another.
type AgentsRollover struct {
	Now bool `json:"now,omitempty" doc:"it signs at once: agents that do not know of it yet must join anew"`
}

type agentsRolloverAsk struct{ Body AgentsRollover }

func (s *server) rollOverAgents(ctx context.Context, in *agentsRolloverAsk) (controller.AgentsCA, error) {
	return s.RollOverAgentsCA(ctx, by(ctx), in.Body.Now)
}

type banAsk struct {
	InNode
	Body Switch
}

func (s *server) banAgent(ctx context.Context, in *banAsk) error {
	return s.BanAgent(ctx, in.Farm, in.Node, by(ctx), in.Body.On)
}
