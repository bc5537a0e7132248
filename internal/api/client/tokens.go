package client

import (
	"context"

	"github.com/certfarm/certfarm/internal/api"
	"github.com/certfarm/certfarm/internal/store"
)

// Tokens lists the API tokens by name, expired ones too.
func (c *Client) Tokens(ctx context.Context) ([]store.APIToken, error) {
	return walked(ctx, c, ask{route: "list-tokens"}, 0,
		func(p api.Tokens) ([]store.APIToken, string) { return p.Tokens, p.Next })
}

// CreateToken makes an API token; what opens is in the answer and nowhere else.
func (c *Client) CreateToken(ctx context.Context, what api.TokenAsk) (api.NewToken, error) {
	return answered[api.NewToken](ctx, c, ask{route: "create-token", body: what})
}

// RevokeToken forgets an API token, by its name or id.
func (c *Client) RevokeToken(ctx context.Context, nameOrID string) error {
	return told(ctx, c, ask{route: "revoke-token", words: []string{nameOrID}})
}

// Sessions lists the browsers that are logged in.
func (c *Client) Sessions(ctx context.Context) ([]api.Session, error) {
	out, err := answered[api.Sessions](ctx, c, ask{route: "list-sessions"})
	return out.Sessions, err
}

// EndSession logs a browser out.
func (c *Client) EndSession(ctx context.Context, id string) error {
	return told(ctx, c, ask{route: "end-session", words: []string{id}})
}

// Whoami says who asks, and what they may do.
func (c *Client) Whoami(ctx context.Context) (api.Whoami, error) {
	return answered[api.Whoami](ctx, c, ask{route: "whoami"})
}
