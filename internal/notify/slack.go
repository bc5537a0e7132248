package notify

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/outbound"
)

// slack are the options of the kind slack.
type slack struct{ way }

// Slack is a channel of Slack, or of what speaks like it (Mattermost, Rocket.Chat), by an
// incoming webhook.
func Slack() Kind {
	return define(Kind{
		Name: "slack", Doc: "a channel of Slack, by an incoming webhook",
		Secrets: []Setting{{Name: "url", Doc: "the webhook's URL, https://hooks.slack.com/services/…"}},
	}, slack{}, func(o slack, s Setup) (Sender, error) {
		c, err := hooked(o.way, s)
		return slackHook{c}, err
	})
}

// A secretURL is a URL that is itself the credential.
type secretURL struct {
	url    farm.Secret
	client *http.Client
}

// hooked makes the way to the URL in the secret url.
func hooked(w way, s Setup) (secretURL, error) {
	to := outbound.Word(s.Secrets["url"])
	if address(to, "") != nil {
		return secretURL{}, errors.New("what is in the secret url is no URL to call: https://…")
	}
	c, err := w.client(s.Proxy)
	return secretURL{farm.NewSecret([]byte(to)), c}, err
}

type slackHook struct{ secretURL }

// maxSection is the longest text of a section block, in characters.
const maxSection = 3000

// Send is Sender's. The payload is Slack's for incoming webhooks: text is what devices
// show, blocks what the channel does.
func (h slackHook) Send(ctx context.Context, m Message) error {
	body := slackText("*" + strings.ReplaceAll(m.Title, "*", "") + "*" + strings.TrimPrefix(m.Text, m.Title))
	return post(ctx, h.client, string(h.url.Reveal()), map[string]any{
		"text": slackText(m.Title),
		"blocks": []any{map[string]any{
			"type": "section", "text": map[string]any{"type": "mrkdwn", "text": short(body, maxSection)},
		}},
	}, nil)
}

// slackText escapes the three characters by which Slack marks links and mentions.
func slackText(text string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(text)
}

// short is a text of at most n characters.
func short(text string, n int) string {
	if runes := []rune(text); len(runes) > n {
		return string(runes[:n-2]) + " …"
	}
	return text
}
