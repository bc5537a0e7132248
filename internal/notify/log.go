package notify

import (
	"context"
	"errors"
	"log/slog"

	"github.com/certfarm/certfarm/internal/farm"
)

// Log tells people through a log.
type Log struct {
	Logger *slog.Logger // nil: slog.Default()
}

// Notify writes one record an event, at the event's own level and with its id,
// by which a reader knows one that was told twice. It does not fail.
func (l Log) Notify(ctx context.Context, events []farm.Event) error {
	logger := l.Logger
	if logger == nil {
		logger = slog.Default()
	}
	for _, e := range events {
		logger.LogAttrs(ctx, level(e.Level), e.Text, attrs(e)...)
	}
	return nil
}

func level(l farm.Level) slog.Level {
	switch l {
	case farm.Alarm:
		return slog.LevelError
	case farm.Warn:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

func attrs(e farm.Event) (all []slog.Attr) {
	if !e.At.IsZero() {
		all = append(all, slog.Time("at", e.At))
	}
	for _, f := range []struct{ name, value string }{
		{"event", e.Kind}, {"id", e.ID}, {"farm", e.Farm}, {"site", e.Site}, {"node", e.Node},
		{"target", e.Target}, {"rollout", e.Rollout}, {"order", e.Order}, {"version", e.Version},
		{"trace_id", traceOf(e)}, {"actor", e.Actor}, {"hint", e.Hint},
	} {
		if f.value != "" {
			all = append(all, slog.String(f.name, f.value))
		}
	}
	return all
}

// traceOf is the trace of the rollout that an event is about.
func traceOf(e farm.Event) string {
	if e.Rollout == "" {
		return ""
	}
	return farm.TraceID(e.Rollout)
}

// Many tells people in several ways. One that fails does not keep the others
// from being told; the errors come back joined, and a repetition tells all
// again.
type Many []Notifier

// Notify tells everyone.
func (m Many) Notify(ctx context.Context, events []farm.Event) error {
	var errs []error
	for _, n := range m {
		errs = append(errs, n.Notify(ctx, events))
	}
	return errors.Join(errs...)
}
