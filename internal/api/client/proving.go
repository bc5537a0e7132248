package client

import (
	"context"
	"net/url"

	"github.com/certfarm/certfarm/internal/adopt"
	"github.com/certfarm/certfarm/internal/api"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/snippet"
)

// Preflight asks now what the CA would ask; external also orders at the CA's
// staging directory.
func (c *Client) Preflight(ctx context.Context, farmName, site string, external bool) (controller.PreflightReport, error) {
	return answered[controller.PreflightReport](ctx, c, ask{
		route: "preflight", words: []string{farmName, site}, body: api.PreflightAsk{External: external},
	})
}

// Snippet is the rule by which a server helps to answer challenges for a site.
func (c *Client) Snippet(ctx context.Context, farmName, site string, a controller.SnippetAsk) (snippet.Snippet, error) {
	q := url.Values{"server": {a.Server}, "controller": a.Controllers}
	if a.Via != "" {
		q.Set("via", a.Via)
	}
	return answered[snippet.Snippet](ctx, c, ask{route: "snippet", words: []string{farmName, site}, query: q})
}

// SnippetDNS is the DNS records by which a site's names are proven and pinned.
func (c *Client) SnippetDNS(ctx context.Context, farmName, site string) (snippet.Snippet, error) {
	return answered[snippet.Snippet](ctx, c, ask{route: "records", words: []string{farmName, site}})
}

// Sudoers is the sudoers rule that a node needs.
func (c *Client) Sudoers(ctx context.Context, farmName, node string) (snippet.Snippet, error) {
	return answered[snippet.Snippet](ctx, c, ask{route: "sudoers", words: []string{farmName, node}})
}

// NodePolicy is the policy that a node needs which decides for itself.
func (c *Client) NodePolicy(ctx context.Context, farmName, node string) (snippet.Snippet, error) {
	return answered[snippet.Snippet](ctx, c, ask{route: "node-policy", words: []string{farmName, node}})
}

// NodeReceiver is the line of authorized_keys for a node's receiver.
func (c *Client) NodeReceiver(ctx context.Context, farmName, node string) (snippet.Snippet, error) {
	return answered[snippet.Snippet](ctx, c, ask{route: "node-receiver", words: []string{farmName, node}})
}

// RollOver gives the account at an issuer a new key, or says what is in the way.
func (c *Client) RollOver(ctx context.Context, farmName, issuer string) (controller.Rollover, error) {
	return answered[controller.Rollover](ctx, c, ask{route: "roll-over", words: []string{farmName, issuer}})
}

// Adopt finds the certificate files that a node's servers use, and the lines of
// farm.yaml for them.
func (c *Client) Adopt(ctx context.Context, farmName, node string, a controller.AdoptAsk) (adopt.Report, error) {
	return answered[adopt.Report](ctx, c, ask{route: "adopt", words: []string{farmName, node}, body: api.AdoptAsk{Server: a.Server, Config: a.Config}})
}
