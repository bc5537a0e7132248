package client

import (
	"context"

	"github.com/certfarm/certfarm/internal/api"
	"github.com/certfarm/certfarm/internal/controller"
)

// NewAgentToken lets agents join with a token whose digest is given.
func (c *Client) NewAgentToken(ctx context.Context, farmName string, what controller.AgentTokenAsk) (controller.AgentToken, error) {
	return answered[controller.AgentToken](ctx, c, ask{route: "agent-token", words: []string{farmName}, body: what})
}

// AgentsCA tells how the CA of the agents is.
func (c *Client) AgentsCA(ctx context.Context) (controller.AgentsCA, error) {
	return answered[controller.AgentsCA](ctx, c, ask{route: "agents-ca"})
}

// RollOverAgentsCA has another CA follow that of the agents; with now it does not wait
// until they know of it.
func (c *Client) RollOverAgentsCA(ctx context.Context, now bool) (controller.AgentsCA, error) {
	return answered[controller.AgentsCA](ctx, c, ask{route: "roll-over-agents", body: api.AgentsRollover{Now: now}})
}

// BanAgent turns a node's agent away, or lets it in again.
func (c *Client) BanAgent(ctx context.Context, farmName, node string, on bool) error {
	return told(ctx, c, ask{route: "ban", words: []string{farmName, node}, body: api.Switch{On: on}})
}
