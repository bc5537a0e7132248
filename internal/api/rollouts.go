package api

import (
	"context"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/sse"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// Rollouts is a page of rollouts, newest first.
type Rollouts struct {
	Rollouts []farm.Rollout `json:"rollouts"`
	More
}

type listRollouts struct {
	OfSite
	From
	Limit int `query:"limit" minimum:"1" maximum:"1000" default:"20"`
}

func (s *server) listRollouts(ctx context.Context, in *listRollouts) (Rollouts, error) {
	l, err := s.lens(ctx, in.Farm)
	if err != nil {
		return Rollouts{}, err
	}
	all, more, err := paged(Page{in.From, in.Limit}, func(after string, limit int) ([]farm.Rollout, error) {
		return s.RolloutsAfter(ctx, in.Farm, in.Site, after, limit)
	}, func(r farm.Rollout) string { return r.ID }, seen(l, func(r farm.Rollout) string { return r.Site }))
	for i := range all {
		all[i] = all[i].Shown()
	}
	return Rollouts{all, more}, err
}

// InRollout is a request about a rollout.
type InRollout struct {
	InFarm
	Rollout string `path:"rollout" minLength:"1" doc:"the rollout's id, or the name of a site for its newest"`
}

func (s *server) getRollout(ctx context.Context, in *InRollout) (farm.Rollout, error) {
	r, err := s.Rollout(ctx, in.Farm, in.Rollout)
	return r.Shown(), err
}

func (s *server) pause(ctx context.Context, in *InRollout) (farm.Rollout, error) {
	return s.say(ctx, in, controller.Pause, "")
}

func (s *server) resume(ctx context.Context, in *InRollout) (farm.Rollout, error) {
	return s.say(ctx, in, controller.Resume, "")
}

func (s *server) abort(ctx context.Context, in *InRollout) (farm.Rollout, error) {
	return s.say(ctx, in, controller.Abort, "")
}

type approveAsk struct {
	InRollout
	Wave string `query:"wave" doc:"the wave that may begin; not set: the next that waits"`
}

func (s *server) approve(ctx context.Context, in *approveAsk) (farm.Rollout, error) {
	return s.say(ctx, &in.InRollout, controller.Approve, in.Wave)
}

func (s *server) say(ctx context.Context, in *InRollout, word, wave string) (farm.Rollout, error) {
	r, err := s.Tell(ctx, in.Farm, in.Rollout, word, wave, by(ctx))
	return r.Shown(), err
}

// Events is a page of lines of the journal.
type Events struct {
	Events []farm.Event `json:"events"`
	More
}

// OfJournal says which lines of the journal are wanted.
type OfJournal struct {
	InFarm
	Site    string `query:"site" doc:"only of this site"`
	Rollout string `query:"rollout" doc:"only of this rollout"`
	Kind    string `query:"kind" doc:"only of this kind"`
	Level   string `query:"level" enum:"info,warning,alarm" doc:"only of this level"`
	After   string `query:"after" pattern:"^ev_[0-9A-Z]{26}$" patternDescription:"the id of an event" doc:"only what comes after the event with this id"`
}

func (in OfJournal) query() store.EventQuery {
	return store.EventQuery{Site: in.Site, Rollout: in.Rollout, Kind: in.Kind, Level: farm.Level(in.Level), After: in.After}
}

type listEvents struct {
	OfJournal
	Limit  int  `query:"limit" minimum:"1" maximum:"1000" default:"100"`
	Newest bool `query:"newest" doc:"newest first: with the limit the last ones, and after an event what was before it"`
}

func (s *server) listEvents(ctx context.Context, in *listEvents) (Events, error) {
	l, err := s.lens(ctx, in.Farm)
	if err != nil {
		return Events{}, err
	}
	all, err := fill(l, in.Limit, func(limit int) ([]farm.Event, error) {
		q := in.query()
		if q.Limit, q.Newest = limit, in.Newest; q.Newest {
			q.After, q.Before = "", in.After
		}
		return s.Events(ctx, in.Farm, q)
	}, func(e farm.Event) string { return e.Site })
	out := Events{Events: list(all)}
	if len(all) == in.Limit {
		out.Next = all[len(all)-1].ID
	}
	return out, err
}

// An Alive is sent while nothing happens, so that both ends and what is between
// them know that the line is open. The first one comes at once.
type Alive struct {
	At time.Time `json:"at"`
}

// aliveEvery is shorter than the minute after which proxies close a silent line.
const aliveEvery = 20 * time.Second

// follow binds the stream of events: "event" for each, "alive" in between.
func follow(s *server, a huma.API, op huma.Operation) {
	words := map[string]any{"event": farm.Event{}, "alive": Alive{}}
	sse.Register(a, op, words, func(ctx context.Context, in *OfJournal, send sse.Sender) {
		ctx, stop := context.WithCancel(ctx)
		var mu sync.Mutex
		say := func(v any) error {
			mu.Lock()
			defer mu.Unlock()
			return send.Data(v)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			defer stop()
			for every := time.Tick(aliveEvery); ; {
				if !access.Still(ctx) || say(Alive{time.Now().UTC()}) != nil {
					return
				}
				select {
				case <-ctx.Done():
					return
				case <-every:
				}
			}
		})
		err := s.Follow(ctx, in.Farm, in.query(), func(e farm.Event) error {
			l, err := s.lens(ctx, in.Farm) // anew for each: tags change, and a site may be new
			if err != nil || !l.Site(e.Site) {
				return err
			}
			return say(e)
		})
		if err != nil && ctx.Err() == nil {
			s.log.Error("following events", "farm", in.Farm, "error", err)
		}
		stop()
		wg.Wait()
	})
}
