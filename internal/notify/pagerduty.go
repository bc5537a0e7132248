package notify

import (
	"context"
	"net/http"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/outbound"
)

// pagerDuty are the options of the kind pagerduty.
type pagerDuty struct {
	URL string `json:"url" doc:"where events go; https://events.eu.pagerduty.com/v2/enqueue in the EU"`
	way
}

func (o pagerDuty) check() error {
	if err := address(o.URL, "url"); err != nil {
		return err
	}
	return o.way.check()
}

// PagerDuty is a service there, by its Events API v2. All messages of a notice are one
// alert: it is triggered, updated and resolved by the notice's id.
func PagerDuty() Kind {
	return define(Kind{
		Name: "pagerduty", Doc: "a service at PagerDuty, by its Events API v2",
		Secrets: []Setting{{Name: "routing_key", Doc: "the integration key of the service"}},
	}, pagerDuty{URL: "https://events.pagerduty.com/v2/enqueue"}, func(o pagerDuty, s Setup) (Sender, error) {
		c, err := o.client(s.Proxy)
		return pager{o.URL, farm.NewSecret([]byte(outbound.Word(s.Secrets["routing_key"]))), c}, err
	})
}

type pager struct {
	url    string
	key    farm.Secret
	client *http.Client
}

// pagerEvent is an alert event as the Events API v2 takes it.
type pagerEvent struct {
	RoutingKey string        `json:"routing_key"`
	Action     string        `json:"event_action"`
	DedupKey   string        `json:"dedup_key"`
	Client     string        `json:"client,omitempty"`
	ClientURL  string        `json:"client_url,omitempty"`
	Payload    *pagerPayload `json:"payload,omitempty"`
	Links      []pagerLink   `json:"links,omitempty"`
}

type pagerPayload struct {
	Summary   string         `json:"summary"` // 1024 characters at most
	Source    string         `json:"source"`
	Severity  string         `json:"severity"`
	Timestamp string         `json:"timestamp"`
	Group     string         `json:"group,omitempty"`
	Class     string         `json:"class,omitempty"`
	Details   map[string]any `json:"custom_details,omitempty"`
}

type pagerLink struct {
	Href string `json:"href"`
	Text string `json:"text"`
}

// maxSummary is the longest summary of an alert.
const maxSummary = 1024

// Send is Sender's.
func (p pager) Send(ctx context.Context, m Message) error {
	e := pagerEvent{RoutingKey: string(p.key.Reveal()), Action: "trigger", DedupKey: "certfarm " + m.Farm + " " + m.Notice, Client: "certfarm", ClientURL: m.Link}
	e.Payload = &pagerPayload{
		Summary: short(m.Title, maxSummary), Source: m.Farm, Timestamp: m.At.UTC().Format(time.RFC3339), Group: m.Farm, Class: m.Cause,
		Severity: map[farm.Severity]string{farm.ForInfo: "info", farm.ForTicket: "warning", farm.ForPage: "critical"}[m.Severity],
		Details:  map[string]any{"message": m.Text, "sites": m.Sites},
	}
	if m.Link != "" {
		e.Links = []pagerLink{{m.Link, "Open the dashboard"}}
	}
	if m.State == Over {
		e.Action = "resolve"
	}
	if err := p.post(ctx, e); err != nil || m.State != Testing {
		return err
	}
	e.Action = "resolve" // nobody is to be woken by a trial
	return p.post(ctx, e)
}

func (p pager) post(ctx context.Context, e pagerEvent) error {
	return post(ctx, p.client, p.url, e, nil)
}
