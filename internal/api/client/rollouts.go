package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/certfarm/certfarm/internal/api"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// Rollout finds a rollout by its id, or the newest of a site by the site's name.
func (c *Client) Rollout(ctx context.Context, farmName, idOrSite string) (farm.Rollout, error) {
	return answered[farm.Rollout](ctx, c, ask{route: "get-rollout", words: []string{farmName, idOrSite}})
}

// Rollouts lists up to limit rollouts (0: all), newest first; site empty: of all sites.
func (c *Client) Rollouts(ctx context.Context, farmName, site string, limit int) ([]farm.Rollout, error) {
	return walked(ctx, c, ask{route: "list-rollouts", words: []string{farmName}, query: given("site", site)}, limit,
		func(p api.Rollouts) ([]farm.Rollout, string) { return p.Rollouts, p.Next })
}

// Tell says one of the controller's words to a running rollout: pause, resume,
// abort or approve. Wave is for approve alone; empty: the next that waits.
func (c *Client) Tell(ctx context.Context, farmName, idOrSite, word, wave string) (farm.Rollout, error) {
	a := ask{route: word, words: []string{farmName, idOrSite}}
	switch word {
	case controller.Approve:
		a.query = given("wave", wave)
	case controller.Pause, controller.Resume, controller.Abort:
	default:
		return farm.Rollout{}, fmt.Errorf("%q is no word for a rollout", word)
	}
	return answered[farm.Rollout](ctx, c, a)
}

// Events reads the journal, at most 1000 lines at once.
func (c *Client) Events(ctx context.Context, farmName string, q store.EventQuery) ([]farm.Event, error) {
	v := given("site", q.Site, "rollout", q.Rollout, "kind", q.Kind, "level", string(q.Level), "after", q.After)
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Newest {
		v.Set("newest", "true")
	}
	out, err := answered[api.Events](ctx, c, ask{route: "list-events", words: []string{farmName}, query: v})
	return out.Events, err
}

// A line that breaks is opened again: the controller may be started anew while
// someone follows.
const (
	reopenAfter = time.Second
	reopenTries = 30
)

// Follow calls f with each event after the given id, once, until the context
// ends or f returns an error.
func (c *Client) Follow(ctx context.Context, farmName string, q store.EventQuery, f func(farm.Event) error) error {
	var stopped error
	tell := func(e farm.Event) error {
		q.After = e.ID
		stopped = f(e)
		return stopped
	}
	for tries := 0; ; tries++ {
		v := given("site", q.Site, "rollout", q.Rollout, "kind", q.Kind, "level", string(q.Level), "after", q.After)
		res, err := c.request(ctx, ask{route: "follow-events", words: []string{farmName}, query: v})
		if err != nil && (!errors.Is(err, ErrNotRunning) || tries == 0 || tries == reopenTries) {
			return err
		}
		if err == nil {
			tries = 0
			_ = stream(res.Body, tell) // where the line breaks, it is opened again
			_ = res.Body.Close()
		}
		if ctx.Err() != nil || stopped != nil {
			return errors.Join(ctx.Err(), stopped)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(reopenAfter):
		}
	}
}

// maxLine bounds one message of a stream.
const maxLine = 1 << 20

// stream reads server-sent events: lines "event:" and "data:", and an empty one
// after each message. It ends with the stream.
func stream(in io.Reader, f func(farm.Event) error) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	var word string
	for lines.Scan() {
		name, value, _ := bytes.Cut(lines.Bytes(), []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "event":
			word = string(value)
		case "data":
			if word != "event" {
				continue
			}
			var e farm.Event
			if err := json.Unmarshal(value, &e); err != nil {
				return fmt.Errorf("read an event: %w", err)
			}
			if err := f(e); err != nil {
				return err
			}
		case "":
			word = ""
		}
	}
	return lines.Err()
}
