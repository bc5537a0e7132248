package notify

import (
	"context"
	"errors"
	"net/http"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/outbound"
)

// Ping calls the URL of a sign of life, once. The error does not hold it.
func Ping(ctx context.Context, to farm.Secret, allowPrivate []string, proxy string) error {
	d := discreet{secrets: map[string]farm.Secret{"url": to}}
	at := outbound.Word(to)
	if address(at, "") != nil {
		return errors.New("what is in the secret url is no URL to call: https://…")
	}
	c, err := way{AllowPrivate: allowPrivate}.client(proxy)
	if err != nil {
		return d.about(err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, at, nil)
	if err != nil {
		return d.about(err)
	}
	return d.about(call(c, r))
}
