package notify

import (
	"context"
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
)

// teams are the options of the kind teams.
type teams struct{ way }

// Teams is a channel or chat of Microsoft Teams, by a workflow that posts what a webhook
// gets. The connectors of Office 365, which took another format, are no more.
func Teams() Kind {
	return define(Kind{
		Name: "teams", Doc: "a channel or chat of Microsoft Teams, by a workflow (\"When a Teams webhook request is received\")",
		Secrets: []Setting{{Name: "url", Doc: "the workflow's URL, https://….powerplatform.com/… or https://….logic.azure.com/…"}},
	}, teams{}, func(o teams, s Setup) (Sender, error) {
		c, err := hooked(o.way, s)
		return teamsHook{c}, err
	})
}

type teamsHook struct{ secretURL }

// Send is Sender's. The payload is a message with one Adaptive Card, of the version that
// Teams shows everywhere.
func (h teamsHook) Send(ctx context.Context, m Message) error {
	colour := map[farm.Severity]string{farm.ForInfo: "Default", farm.ForTicket: "Warning", farm.ForPage: "Attention"}[m.Severity]
	if m.State == Over {
		colour = "Good"
	}
	body := []any{map[string]any{"type": "TextBlock", "text": m.Title, "weight": "Bolder", "size": "Medium", "color": colour, "wrap": true}}
	for paragraph := range strings.SplitSeq(strings.TrimPrefix(m.Text, m.Title), "\n\n") {
		if text := strings.TrimSpace(paragraph); text != "" && text != m.Link {
			body = append(body, map[string]any{"type": "TextBlock", "text": strings.ReplaceAll(text, "\n", "\n\n"), "wrap": true})
		}
	}
	card := map[string]any{"$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.4", "body": body}
	if m.Link != "" {
		card["actions"] = []any{map[string]any{"type": "Action.OpenUrl", "title": "Open the dashboard", "url": m.Link}}
	}
	return post(ctx, h.client, string(h.url.Reveal()), map[string]any{
		"type":        "message",
		"attachments": []any{map[string]any{"contentType": "application/vnd.microsoft.card.adaptive", "content": card}},
	}, nil)
}
