package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"go.opentelemetry.io/otel"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/metrics"
	"github.com/certfarm/certfarm/internal/trace"
)

// openWatched opens the house for a controller that is counted and traced.
func (a *app) openWatched(ctx context.Context, s serving, log *slog.Logger) (*house, *metrics.Book, error) {
	h, err := a.open(ctx, s.keeping, log)
	if err != nil {
		return nil, nil, err
	}
	book := metrics.New(version())
	h.Version, h.Meter = version(), book
	if h.Tracer, err = s.tracer(ctx, log); err != nil {
		return nil, nil, errors.Join(err, h.Close())
	}
	return h, book, nil
}

// scraped is what a Prometheus reads of a controller.
func (a *app) scraped(book *metrics.Book, ctl *controller.Controller) http.Handler {
	return book.Handler(metrics.Source{Measure: ctl.Measure, Backup: a.lastBackup, Log: ctl.Log})
}

// backupStamp is the file in the state folder whose time is that of the last backup.
const backupStamp = "backup.stamp"

// stampBackup notes that a backup was made. Where the state folder cannot be written the
// backup is good all the same.
func (a *app) stampBackup() {
	file := filepath.Join(a.state, backupStamp)
	if err := os.WriteFile(file, []byte(time.Now().UTC().Format(time.RFC3339)+"\n"), 0o600); err != nil {
		a.say("The metrics will not tell of this backup: %v", err)
	}
}

// lastBackup is when the last backup was made with this state folder; zero: never.
func (a *app) lastBackup() time.Time {
	info, err := os.Stat(filepath.Join(a.state, backupStamp))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// tracer writes spans to --otlp-endpoint, or where OpenTelemetry's own environment says;
// without either it is nil, and writes none.
func (s serving) tracer(ctx context.Context, log *slog.Logger) (*trace.Tracer, error) {
	if s.otlp == "" && os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
		return nil, nil
	}
	t, err := trace.New(ctx, trace.Config{Endpoint: s.otlp, Version: version()})
	if err != nil {
		return nil, usage("for example --otlp-endpoint http://127.0.0.1:4318", "%w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("traces", "error", err) }))
	return t, nil
}

// The formats of the log.
const (
	logText = "text"
	logJSON = "json"
)

// serveLog is the log of `certfarm serve`, in the format that was asked for; with none
// --json decides.
func (a *app) serveLog(s serving) (*slog.Logger, error) {
	o := &slog.HandlerOptions{Level: slog.LevelInfo}
	if s.debug {
		o.Level = slog.LevelDebug
	}
	switch s.logFormat {
	case "":
		return a.logger(o.Level.Level()), nil
	case logText:
		return slog.New(slog.NewTextHandler(a.err, o)), nil
	case logJSON:
		return slog.New(slog.NewJSONHandler(a.err, o)), nil
	}
	return nil, usage("there are "+logText+" and "+logJSON, "--log-format %s is no format", s.logFormat)
}
