package client

import (
	"context"

	"github.com/certfarm/certfarm/internal/api"
	"github.com/certfarm/certfarm/internal/controller"
)

// Replacements tells how far mass replacements are, the newest first.
func (c *Client) Replacements(ctx context.Context, farmName string) ([]controller.CampaignStatus, error) {
	return walked(ctx, c, ask{route: "list-replacements", words: []string{farmName}}, 0,
		func(p api.Replacements) ([]controller.CampaignStatus, string) { return p.Replacements, p.Next })
}

// PlanReplace says what a mass replacement would take. Nothing is changed.
func (c *Client) PlanReplace(ctx context.Context, farmName string, what controller.ReplaceAsk) (controller.ReplacePlan, error) {
	return answered[controller.ReplacePlan](ctx, c, ask{route: "plan-replacement", words: []string{farmName}, body: what})
}

// Replace begins a mass replacement.
func (c *Client) Replace(ctx context.Context, farmName string, what controller.ReplaceAsk) (controller.CampaignStatus, error) {
	return answered[controller.CampaignStatus](ctx, c, ask{route: "replace", words: []string{farmName}, body: what})
}

// Replacement tells how far a mass replacement is.
func (c *Client) Replacement(ctx context.Context, farmName, id string) (controller.CampaignStatus, error) {
	return answered[controller.CampaignStatus](ctx, c, ask{route: "get-replacement", words: []string{farmName, id}})
}

// PauseReplacement orders nothing more of a mass replacement for now.
func (c *Client) PauseReplacement(ctx context.Context, farmName, id string) error {
	return told(ctx, c, ask{route: "pause-replacement", words: []string{farmName, id}})
}

// ResumeReplacement has a mass replacement go on.
func (c *Client) ResumeReplacement(ctx context.Context, farmName, id string) error {
	return told(ctx, c, ask{route: "resume-replacement", words: []string{farmName, id}})
}

// CancelReplacement ends a mass replacement; what is not ordered yet stays.
func (c *Client) CancelReplacement(ctx context.Context, farmName, id string) error {
	return told(ctx, c, ask{route: "cancel-replacement", words: []string{farmName, id}})
}

// CompromiseAccount begins the journey away from an account's key, which others know.
func (c *Client) CompromiseAccount(ctx context.Context, farmName, issuer string, what controller.CompromiseAsk) (controller.AccountFlight, error) {
	return answered[controller.AccountFlight](ctx, c, ask{route: "compromise-account", words: []string{farmName, issuer}, body: what})
}

// CompromiseNode begins the journey away from every key that lay on a node.
func (c *Client) CompromiseNode(ctx context.Context, farmName, node string, what controller.NodeCompromiseAsk) (controller.NodeFlight, error) {
	return answered[controller.NodeFlight](ctx, c, ask{route: "compromise-node", words: []string{farmName, node}, body: what})
}
