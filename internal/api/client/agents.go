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

// BanAgent turns a node's agent away, or lets it in again.
func (c *Client) BanAgent(ctx context.Context, farmName, node string, on bool) error {
	return told(ctx, c, ask{route: "ban", words: []string{farmName, node}, body: api.Switch{On: on}})
}
