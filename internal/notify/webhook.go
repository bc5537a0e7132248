package notify

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/outbound"
)

// webhook are the options of the kind webhook.
type webhook struct {
	URL string `json:"url" doc:"where the messages go, as JSON"`
	way
}

func (o webhook) check() error {
	if err := address(o.URL, "url"); err != nil {
		return err
	}
	return o.way.check()
}

// Webhook is a service of your own that gets each message as JSON, signed as the calls
// of a target of kind webhook are.
func Webhook() Kind {
	return define(Kind{
		Name: "webhook", Doc: "a signed HTTP call to a service of your own",
		Secrets: []Setting{{Name: "hmac", Doc: "what signs the calls, at least 32 bytes, known to the receiver"}},
	}, webhook{}, func(o webhook, s Setup) (Sender, error) {
		key := farm.NewSecret([]byte(outbound.Word(s.Secrets["hmac"])))
		if n := len(key.Reveal()); n < outbound.MinHMAC {
			return nil, fmt.Errorf("the secret hmac has %d bytes, and needs %d: make one with `openssl rand -hex 32`", n, outbound.MinHMAC)
		}
		c, err := o.client(s.Proxy)
		return hook{o.URL, key, c}, err
	})
}

type hook struct {
	url    string
	key    farm.Secret
	client *http.Client
}

// Send is Sender's. The id tells a receiver that the message is one that it has.
func (h hook) Send(ctx context.Context, m Message) error {
	return post(ctx, h.client, h.url, m, func(r *http.Request, body []byte) {
		r.Header.Set("Idempotency-Key", m.ID)
		outbound.SignRequest(r, h.key, body, time.Now())
	})
}
