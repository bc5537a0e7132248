package client

import (
	"context"

	"github.com/certfarm/certfarm/internal/controller"
)

// Revoke has a certificate of a site revoked that no endpoint serves any more.
func (c *Client) Revoke(ctx context.Context, farmName, site string, what controller.RevokeAsk) (controller.Revoking, error) {
	return answered[controller.Revoking](ctx, c, ask{route: "revoke", words: []string{farmName, site}, body: what})
}

// Compromise begins the journey away from a site's keys, which others know.
func (c *Client) Compromise(ctx context.Context, farmName, site string, what controller.CompromiseAsk) (controller.Compromised, error) {
	return answered[controller.Compromised](ctx, c, ask{route: "compromise", words: []string{farmName, site}, body: what})
}
