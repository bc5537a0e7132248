// Package shout speaks to the services that the library shoutrrr knows, in a process of
// its own.
//
// Its invariant is: every connection goes through the guard. The library takes no
// transport: most of its services use the one that a whole process shares, so this
// process gives that away; the others are handed a client; and a service that can be
// given neither is not among Services.
package shout

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/nicholas-fedor/shoutrrr/pkg/router"
	"github.com/nicholas-fedor/shoutrrr/pkg/types"

	"github.com/certfarm/certfarm/internal/outbound"
)

// Services are those that can be reached so, by the scheme of their URL. Mail, Slack,
// Teams, PagerDuty and webhooks have kinds of their own.
func Services() []string {
	return []string{
		"bark", "discord", "googlechat", "gotify", "ifttt", "join", "lark", "matrix", "mattermost", "notifiarr", "ntfy",
		"opsgenie", "pushbullet", "pushover", "rocketchat", "signal", "telegram", "wecom", "zulip",
	}
}

// A Request is what a helper reads, as JSON. It holds a credential: the URL.
type Request struct {
	URL          string   `json:"url"`
	Text         string   `json:"text"`
	AllowPrivate []string `json:"allow_private,omitempty"`
	CA           string   `json:"ca,omitempty"`
	Proxy        string   `json:"proxy,omitempty"`
}

// An Answer is what it writes.
type Answer struct {
	Error string `json:"error,omitempty"` // empty: the message was taken
}

// Main is the whole of a helper process: it reads one request, sends it, and writes one
// answer. It changes the transport that this process shares, so nothing else may run here.
func Main(in io.Reader, out io.Writer) error {
	var q Request
	if err := json.NewDecoder(in).Decode(&q); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	var a Answer
	over, err := transport(q)
	if err == nil {
		http.DefaultTransport = over
		err = Send(q, over)
	}
	if err != nil {
		a.Error = err.Error()
	}
	return json.NewEncoder(out).Encode(a)
}

// transport is the guarded way out.
func transport(q Request) (http.RoundTripper, error) {
	g, err := outbound.NewGuard(q.AllowPrivate)
	if err != nil {
		return nil, err
	}
	t, err := outbound.NewTransport(q.CA, q.Proxy)
	if err != nil {
		return nil, err
	}
	return unled{g.Transport(t)}, nil
}

// unled lets no redirect through: clients of the library would follow it.
type unled struct{ http.RoundTripper }

// RoundTrip is http.RoundTripper's.
func (u unled) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := u.RoundTripper.RoundTrip(r)
	if err == nil && answer.StatusCode >= http.StatusMultipleChoices && answer.StatusCode < http.StatusBadRequest {
		_ = answer.Body.Close()
		return nil, outbound.ErrRedirect
	}
	return answer, err
}

// Send sends a request over a transport, which is the one that the process shares. Some
// services of the library panic where a connection fails: that is an error here.
func Send(q Request, over http.RoundTripper) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("the message could not be delivered, and the library does not say why")
		}
	}()
	scheme, _, _ := strings.Cut(q.URL, "://")
	name, _, _ := strings.Cut(scheme, "+")
	if !slices.Contains(Services(), name) {
		return fmt.Errorf("%q is no service that can be reached so", name)
	}
	service, err := (&router.ServiceRouter{}).Locate(q.URL)
	if err != nil {
		return err
	}
	client := outbound.NewClient(over)
	if s, ok := service.(interface{ SetHTTPClient(c *http.Client) }); ok {
		s.SetHTTPClient(client)
	}
	if s, ok := service.(interface{ GetHTTPClient() *http.Client }); ok && s.GetHTTPClient() != nil {
		s.GetHTTPClient().Transport = over
	}
	return service.Send(q.Text, &types.Params{})
}
