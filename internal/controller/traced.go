package controller

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/trace"
)

// What is done for a rollout is logged and traced with the same words, so that one id
// finds all of it: in the log of every controller, in the journal and in the traces.

// words are what a line or a span says of a rollout.
func words(r farm.Rollout) []slog.Attr {
	return []slog.Attr{
		slog.String("farm", r.Farm), slog.String("site", r.Site), slog.String("rollout", r.ID), slog.String("version", r.To.ID),
		slog.String("trace_id", farm.TraceID(r.ID)),
	}
}

// words are what a line or a span says of an act, beside those of its rollout.
func (a act) words(verb farm.Verb) []slog.Attr {
	node, _, _ := strings.Cut(a.step.Group, "/")
	return append(words(a.Rollout),
		slog.String("job", a.job), slog.String("node", node), slog.String("target", a.step.Target), slog.String("act", string(verb)),
		slog.Int("wave", a.step.Wave), slog.Int("attempt", a.step.Attempt),
	)
}

// at is where an act belongs in its rollout's trace: what is done before anything goes
// live, and what is put back, is of no wave.
func (a act) at(verb farm.Verb) trace.Place {
	p := trace.Place{Rollout: a.ID, Wave: trace.Whole}
	if verb == farm.DoActivate || verb == farm.DoVerify {
		p.Wave = a.step.Wave
	}
	return p
}

// doing begins what is counted, logged and traced of an act; end takes its answer.
func (c *Controller) doing(ctx context.Context, verb farm.Verb, a act) (within context.Context, end func(farm.Answer)) {
	began := a.began
	if began.IsZero() {
		began = time.Now()
	}
	about := a.words(verb)
	within, ended := c.Tracer.Begin(ctx, a.at(verb), string(verb), began, append(about, slog.String("controller", c.Owner))...)
	return within, func(answer farm.Answer) {
		took := time.Since(began)
		c.Meter.Acted(verb, resultOf(answer), took)
		ended(answer.Error, slog.String("fault", string(answer.Fault)))
		about = append(about, slog.Duration("took", took))
		if answer.Error == "" {
			c.Log.LogAttrs(ctx, slog.LevelInfo, "act done", about...)
			return
		}
		c.Log.LogAttrs(ctx, slog.LevelWarn, "act failed", append(about, slog.String("fault", string(answer.Fault)), slog.String("error", answer.Error))...)
	}
}

// resultOf is an answer in one word, for a Meter.
func resultOf(a farm.Answer) string {
	switch {
	case a.Error == "":
		return "done"
	case a.Lost:
		return "lost"
	}
	return "failed"
}

// decided logs what a rollout decided, once it is written, and at its end writes the
// spans that are known only then.
func (c *Controller) decided(ctx context.Context, tx *store.Tx, was, is farm.Rollout) error {
	log := func(level slog.Level, text string, more ...slog.Attr) {
		about := append(words(is), more...)
		tx.After(func() { c.Log.LogAttrs(ctx, level, text, about...) })
	}
	if was.Back == "" && is.Back != "" {
		log(slog.LevelWarn, "rollout goes back", slog.String("error", is.Back))
	}
	if is.Outcome == farm.Running {
		log(slog.LevelDebug, "rollout decided")
		return nil
	}
	log(slog.LevelInfo, "rollout ended", slog.String("outcome", string(is.Outcome)), slog.String("why", is.Why))
	spans, err := c.spans(ctx, tx, is)
	tx.After(func() {
		c.Meter.Ended(is.Farm, is.Outcome)
		for _, s := range spans {
			c.Tracer.Write(s)
		}
	})
	return err
}

// spans are those of a rollout as a whole: of its orders, its waves and itself.
func (c *Controller) spans(ctx context.Context, tx *store.Tx, r farm.Rollout) ([]trace.Span, error) {
	if c.Tracer == nil {
		return nil, nil
	}
	all, err := orderSpans(ctx, tx, r)
	whole := trace.Span{
		At: trace.Place{Rollout: r.ID, Wave: trace.Whole}, Name: "rollout", Head: true, Begin: r.Created, End: r.Ended,
		About: append(words(r), slog.String("reason", r.Reason), slog.String("outcome", string(r.Outcome))),
	}
	if r.Outcome != farm.Done && r.Outcome != farm.Superseded {
		whole.Why = r.Why
	}
	for _, s := range all {
		if s.Begin.Before(whole.Begin) {
			whole.Begin = s.Begin
		}
	}
	return append(append(all, waveSpans(r)...), whole), err
}

// waveSpans are the waves that went live: each from the end of the one before, the first
// from when all was staged.
func waveSpans(r farm.Rollout) (all []trace.Span) {
	begin, ends := r.Created, make([]time.Time, len(r.Waves))
	for _, s := range r.Steps {
		begin = later(begin, s.Staged)
		if !s.Activated.IsZero() && s.Wave < len(ends) {
			ends[s.Wave] = later(ends[s.Wave], later(s.Activated, s.Verified))
		}
	}
	for i, end := range ends {
		if end.IsZero() {
			continue
		}
		all = append(all, trace.Span{
			At: trace.Place{Rollout: r.ID, Wave: i}, Name: "wave", Head: true, Begin: begin, End: later(begin, end),
			About: append(words(r), slog.Int("wave", i), slog.String("name", r.Waves[i].Name)),
		})
		begin = later(begin, end)
	}
	return all
}

// orderSpans are the orders that gave a rollout's version, until a rollout of it has
// ended well: those after that have nothing to do with them.
func orderSpans(ctx context.Context, tx *store.Tx, r farm.Rollout) (all []trace.Span, err error) {
	v, err := tx.Version(ctx, r.Farm, r.To.ID)
	if err != nil || !v.Proven.IsZero() {
		return nil, unlessGone(err)
	}
	for _, l := range v.Leaves {
		id := l.Key.Sealed // the key has the id of the order that it was made for
		if id == "" {
			continue
		}
		o, err := tx.Order(ctx, r.Farm, id)
		if err := unlessGone(err); err != nil {
			return nil, err
		}
		if o.State != farm.OrderDone {
			continue
		}
		all = append(all, trace.Span{
			At: trace.Place{Rollout: r.ID, Wave: trace.Whole}, Name: "order", Begin: o.Created, End: o.Updated,
			About: append(words(r), slog.String("order", o.ID), slog.String("issuer", o.Issuer), slog.String("key_type", string(o.KeyType))),
		})
	}
	return all, nil
}
