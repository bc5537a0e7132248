package notify

import (
	"context"
	"errors"
	"net/url"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/outbound"
)

// discreet takes a sender's secrets out of its errors: URLs of chat services are
// credentials, and whoever fails to reach one likes to quote it.
type discreet struct {
	Sender
	secrets map[string]farm.Secret
}

// Send is Sender's.
func (d discreet) Send(ctx context.Context, m Message) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return d.about(d.Sender.Send(ctx, m))
}

// about is the error without the secrets, and without the URL that was called.
func (d discreet) about(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if called, ok := errors.AsType[*url.Error](err); ok && called.Err != nil {
		text = called.Err.Error()
	}
	var all []farm.Secret
	for _, s := range d.secrets {
		all = append(all, s)
		if u, bad := url.Parse(outbound.Word(s)); bad == nil && u.Host != "" { // as others write it
			all = append(all, farm.NewSecret([]byte(u.RequestURI())), farm.NewSecret([]byte(u.Path)), farm.NewSecret([]byte(u.User.String())))
		}
	}
	return outbound.Plain(outbound.Quote(outbound.Hide(text, all...)), err)
}
