// Package trace writes the spans of rollouts, for OpenTelemetry.
//
//	rollout ─┬─ order            what got the certificate
//	         ├─ stage … stage    each target
//	         ├─ wave ─┬─ activate
//	         │        └─ verify ── probe …
//	         └─ restore          where it goes back
//
// Its invariant: nothing is remembered. A rollout's trace and the spans that others are
// in have ids that are made of the rollout's own, so that any controller adds to the
// same trace, before and after a restart; the whole and its waves are written at the
// end, from what the store knows of them. No span has a key, a token or what a person
// typed as a secret.
package trace

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/certfarm/certfarm/internal/farm"
)

// Config says where spans go.
type Config struct {
	// Endpoint is the base URL of a collector that takes OTLP over HTTP, such as
	// http://127.0.0.1:4318; empty: what the environment says, OTEL_EXPORTER_OTLP_ENDPOINT
	// and its kin.
	Endpoint string
	Version  string // of the program
}

// A Tracer writes spans. A nil one writes none.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
}

// tracesPath is where a collector takes traces (OTLP specification, OTLP/HTTP).
const tracesPath = "/v1/traces"

// New makes a tracer. Nothing is sent before there is a span; what cannot be sent is
// told to OpenTelemetry's error handler, and holds nothing up.
func New(ctx context.Context, c Config) (*Tracer, error) {
	var to []otlptracehttp.Option
	if c.Endpoint != "" {
		u, err := url.Parse(c.Endpoint)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("traces: %q is no URL of a collector: http://host:4318", c.Endpoint)
		}
		if !strings.HasSuffix(u.Path, tracesPath) {
			u = u.JoinPath(tracesPath)
		}
		to = append(to, otlptracehttp.WithEndpointURL(u.String()))
	}
	out, err := otlptracehttp.New(ctx, to...)
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	about, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "certfarm"), attribute.String("service.version", c.Version)),
		resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("traces: what OTEL_RESOURCE_ATTRIBUTES says: %w", err)
	}
	p := sdk.NewTracerProvider(sdk.WithBatcher(out), sdk.WithResource(about), sdk.WithIDGenerator(ids{}), sdk.WithSampler(sdk.AlwaysSample()))
	return &Tracer{provider: p, tracer: p.Tracer("certfarm")}, nil
}

// Close sends what is left, as long as ctx lasts.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// A Place is where in a rollout's trace a span belongs.
type Place struct {
	Rollout string
	Wave    int // from 0; Whole: it is of no wave
}

// Whole is the wave of what is not done wave by wave.
const Whole = -1

// span is the id of the span of a place: of the rollout, or of one of its waves.
func (p Place) span() (id trace.SpanID) {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s wave %d", p.Rollout, p.Wave))
	copy(id[:], sum[:])
	return id
}

func (p Place) trace() (id trace.TraceID) {
	_, _ = hex.Decode(id[:], []byte(farm.TraceID(p.Rollout))) // it is hex of that length
	return id
}

// under is a context in which spans are begun at a place, whoever wrote that.
func (p Place) under(ctx context.Context) context.Context {
	return trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: p.trace(), SpanID: p.span(), TraceFlags: trace.FlagsSampled, Remote: true,
	}))
}

// An End ends a span; why is what went wrong, or empty.
type End func(why string, more ...slog.Attr)

// Begin begins a span at a place, as of began. What is done in the context that it
// returns is a part of it: see Part.
func (t *Tracer) Begin(ctx context.Context, at Place, name string, began time.Time, about ...slog.Attr) (context.Context, End) {
	if t == nil {
		return ctx, func(string, ...slog.Attr) {}
	}
	return t.begin(at.under(ctx), name, began, about)
}

// Part begins a span within the one that ctx is of. Outside of any it writes none.
func (t *Tracer) Part(ctx context.Context, name string, about ...slog.Attr) (context.Context, End) {
	if t == nil || !trace.SpanContextFromContext(ctx).IsValid() {
		return ctx, func(string, ...slog.Attr) {}
	}
	return t.begin(ctx, name, time.Now(), about)
}

func (t *Tracer) begin(ctx context.Context, name string, began time.Time, about []slog.Attr) (context.Context, End) {
	ctx, span := t.tracer.Start(ctx, name, trace.WithTimestamp(began), trace.WithAttributes(words(about)...))
	return ctx, func(why string, more ...slog.Attr) { end(span, why, more) }
}

func end(span trace.Span, why string, more []slog.Attr, at ...trace.SpanEndOption) {
	span.SetAttributes(words(more)...)
	if why != "" {
		span.SetStatus(codes.Error, why)
	}
	span.End(at...)
}

// A Span is one that is over.
type Span struct {
	At    Place
	Name  string
	Head  bool // it is the span of the place itself; else it is within that
	Begin time.Time
	End   time.Time
	Why   string // it failed; empty: it did not
	About []slog.Attr
}

// Write writes a span that is over. Those of the same place that are heads have the
// same id, whoever writes them.
func (t *Tracer) Write(s Span) {
	if t == nil {
		return
	}
	ctx := context.Background()
	options := []trace.SpanStartOption{trace.WithTimestamp(s.Begin), trace.WithAttributes(words(s.About)...)}
	within := Place{s.At.Rollout, Whole}
	switch {
	case s.Head && s.At.Wave == Whole:
		options = append(options, trace.WithNewRoot())
	case s.Head:
		ctx = within.under(ctx)
	default:
		ctx = s.At.under(ctx)
	}
	if s.Head {
		ctx = context.WithValue(ctx, wantedKey{}, s.At)
	}
	_, span := t.tracer.Start(ctx, s.Name, options...)
	end(span, s.Why, nil, trace.WithTimestamp(s.End))
}

// words are attributes as OpenTelemetry takes them, without the empty ones.
func words(all []slog.Attr) (out []attribute.KeyValue) {
	for _, a := range all {
		if text := a.Value.String(); text != "" {
			out = append(out, attribute.String("certfarm."+a.Key, text))
		}
	}
	return out
}

// ids gives spans the ids of their places, and all others ones by chance.
type ids struct{}

type wantedKey struct{}

// NewIDs is called for the first span of a trace.
func (g ids) NewIDs(ctx context.Context) (t trace.TraceID, s trace.SpanID) {
	if at, ok := ctx.Value(wantedKey{}).(Place); ok {
		return at.trace(), at.span()
	}
	for !t.IsValid() {
		t = trace.TraceID(random(len(t)))
	}
	return t, g.NewSpanID(ctx, t)
}

// NewSpanID is called for every other.
func (ids) NewSpanID(ctx context.Context, _ trace.TraceID) (s trace.SpanID) {
	if at, ok := ctx.Value(wantedKey{}).(Place); ok {
		return at.span()
	}
	for !s.IsValid() {
		s = trace.SpanID(random(len(s)))
	}
	return s
}

func random(n int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(rand.Uint32())
	}
	return out
}
