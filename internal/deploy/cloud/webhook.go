package cloud

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/outbound"
)

// webhook are the options of the kind webhook.
type webhook struct {
	URL          string   `json:"url" doc:"where the calls go, https; http is for calls that deliver nothing"`
	Deliver      bool     `json:"deliver" doc:"hand over chain and private key when staging; false: the call tells fingerprints alone"`
	Timeout      string   `json:"timeout" doc:"how long one call may take, as in 30s"`
	AllowPrivate []string `json:"allow_private,omitempty" doc:"networks that the calls may go to although they are not public, as in 10.1.2.0/24"`
	CA           string   `json:"ca,omitempty" doc:"certificates, PEM, that vouch for the server; empty: the system's"`
	Lag          string   `json:"lag,omitempty" doc:"how long readers may take to fetch a new version, as in 4h"`
}

// The bounds of the option timeout.
const (
	minTimeout = time.Second
	maxTimeout = 10 * time.Minute
)

// Facts checks the options; see deploy.Options.
func (o webhook) Facts() (identity, group string, err error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http" {
		return "", "", &deploy.FieldError{Field: "url", Problem: "it is no URL to call", Hint: "as in https://hooks.example.org/certfarm, without a user or password in it"}
	}
	if o.Deliver && u.Scheme != "https" {
		return "", "", &deploy.FieldError{Field: "url", Problem: "a private key would cross the network in the clear", Hint: "https, with ca if its certificate is from a CA of your own"}
	}
	_, err1 := timeoutOf(o.Timeout)
	_, err2 := guarded(o.AllowPrivate)
	_, err3 := lagOf(o.Lag)
	if err := first(err1, err2, err3, checkRoots("ca", o.CA)); err != nil {
		return "", "", err
	}
	u.Host = strings.ToLower(u.Host)
	identity = "webhook " + u.String()
	return identity, identity, nil
}

// guarded reads the option allow_private.
func guarded(networks []string) (outbound.Guard, error) {
	g, err := outbound.NewGuard(networks)
	if wide, ok := errors.AsType[*outbound.WideError](err); ok {
		return g, &deploy.FieldError{Field: fmt.Sprintf("allow_private[%d]", wide.At), Problem: wide.Error(), Hint: "as in 10.1.2.0/24 or 192.168.1.7"}
	}
	return g, err
}

// timeoutOf reads the option timeout.
func timeoutOf(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < minTimeout || d > maxTimeout {
		return 0, &deploy.FieldError{Field: "timeout", Problem: fmt.Sprintf("%q is no time from %s to %s", text, minTimeout, maxTimeout), Hint: "as in 30s"}
	}
	return d, nil
}

// Webhook is whatever answers a signed HTTP call: it stages, activates and
// restores, and says what it holds. What it keeps is its own affair.
func Webhook() deploy.Kind {
	return deploy.Define(deploy.Kind{
		Name:     "webhook",
		Doc:      "a signed HTTP call to a service of your own",
		Fence:    "unfenced",
		Nodeless: true,
		Secrets:  []deploy.Secret{{Name: "hmac", Doc: "what signs the calls, at least 32 bytes, known to the receiver"}},
	}, webhook{Timeout: "30s"}, openWebhook)
}

func openWebhook(o webhook, s deploy.Setup) (deploy.Deployer, error) {
	g, err := guarded(o.AllowPrivate)
	if err != nil {
		return nil, err
	}
	t, err := outbound.NewTransport(o.CA, s.Proxy)
	if err != nil {
		return nil, err
	}
	return newWebhook(o, s, s.Wire.Around(g.Transport(t)))
}

func newWebhook(o webhook, s deploy.Setup, over http.RoundTripper) (deploy.Deployer, error) {
	identity, _, err := o.Facts()
	if err != nil {
		return nil, err
	}
	key := farm.NewSecret([]byte(outbound.Word(s.Secrets["hmac"])))
	if n := len(key.Reveal()); n < outbound.MinHMAC {
		return nil, fmt.Errorf("opening %s: the secret hmac has %d bytes, and needs %d: make one with `openssl rand -hex 32`", identity, n, outbound.MinHMAC)
	}
	line := hookLine{o.URL, key, outbound.NewClient(over)}
	if line.client.Timeout, err = timeoutOf(o.Timeout); err != nil {
		return nil, err
	}
	lag, err := lagOf(o.Lag)
	return &caller{identity: identity, deliver: o.Deliver, lag: lag, epoch: s.Lease.Epoch, secret: key, send: line.send}, err
}
