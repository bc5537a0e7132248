package client

import (
	"context"

	"github.com/certfarm/certfarm/internal/api"
	"github.com/certfarm/certfarm/internal/controller"
)

// Notifications tells who is told, how they hear, and of what.
func (c *Client) Notifications(ctx context.Context, farmName string) (controller.Notifications, error) {
	return answered[controller.Notifications](ctx, c, ask{route: "get-notifications", words: []string{farmName}})
}

// TestReceivers sends a message to a receiver, or to all where none is named.
func (c *Client) TestReceivers(ctx context.Context, farmName, receiver string) ([]controller.Trial, error) {
	out, err := answered[api.Trials](ctx, c, ask{route: "test-receivers", words: []string{farmName}, body: api.TestAsk{Receiver: receiver}})
	return out.Trials, err
}
