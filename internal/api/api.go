// Package api is the door for programs: the controller's questions as routes
// under /v1, described by OpenAPI, over a unix socket or over TCP with tokens.
//
//	CLI ── client ──┐ unix socket, 0600: the same user
//	                ├─→ who calls? ─→ may they? ─→ route ─→ controller.Controller
//	programs ───────┘ https, or http on loopback: a bearer token
//
// Its invariants: every route stands in one table with the permission that it
// needs; no answer holds a secret, a key, or what a caller sent as one; errors
// become problems (RFC 9457) in one place, and package client turns them back
// into the same Go types.
package api

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/certfarm/certfarm/internal/controller"
)

// Config is what the API takes.
type Config struct {
	Controller *controller.Controller
	Version    string // of the program
	Log        *slog.Logger
}

// server answers the routes.
type server struct {
	*controller.Controller
	version string
	log     *slog.Logger
}

// New returns the API's handler. Each request must carry a Caller in its context
// (see WithCaller): without one it is refused.
func New(c Config) http.Handler {
	mux := http.NewServeMux()
	s := &server{c.Controller, c.Version, cmp.Or(c.Log, slog.New(slog.DiscardHandler))}
	describe(s, mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, problem(NotFound, "there is no route "+r.Method+" "+r.URL.Path, "the routes are in /api/openapi.json"))
	})
	return mux
}

// writeProblem answers where no route has been found yet.
func writeProblem(w http.ResponseWriter, p *Problem) {
	w.Header().Set("Content-Type", problemJSON)
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the caller is gone
}

// OpenAPI is the description of the API, OpenAPI 3.1 in JSON.
func OpenAPI(version string) ([]byte, error) {
	a := describe(&server{version: version}, http.NewServeMux())
	return a.OpenAPI().MarshalJSON()
}

func describe(s *server, mux *http.ServeMux) huma.API {
	config := huma.DefaultConfig("Certfarm", s.version)
	config.Info.Description = "Keeps the TLS certificates of a load-balanced web farm in step. Every error is a problem (RFC 9457) with a stable type and, where there is one, a hint."
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = "/api/openapi", "", ""
	config.CreateHooks = nil // no $schema links in answers
	config.Transformers = []huma.Transformer{ours}
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer"}}
	config.Security = []map[string][]string{{"token": {}}, {}}
	a := humago.New(mux, config)
	for _, r := range Routes() {
		r.bind(s, a, r.operation(a))
	}
	// Nothing answers with huma's own errors: see ours.
	for _, unused := range []string{"ErrorModel", "ErrorDetail"} {
		delete(config.Components.Schemas.Map(), unused)
	}
	return a
}

// needs is the word of the description for a route's permission.
const needs = "x-permission"

// bodyWithin bounds how long a request's body may take.
const bodyWithin = 30 * time.Second

// operation describes the route.
func (r Route) operation(a huma.API) huma.Operation {
	return huma.Operation{
		OperationID: r.ID, Method: r.Method, Path: r.Path, Summary: r.Summary,
		Tags:            []string{r.Tag},
		Extensions:      map[string]any{needs: string(r.Needs)},
		MaxBodyBytes:    cmp.Or(r.Body, maxBody),
		BodyReadTimeout: bodyWithin,
		Middlewares:     huma.Middlewares{r.guard(a)},
		Responses: map[string]*huma.Response{"default": {
			Description: "What went wrong",
			Content: map[string]*huma.MediaType{problemJSON: {
				Schema: a.OpenAPI().Components.Schemas.Schema(problemType, true, "Problem"),
			}},
		}},
	}
}

// guard lets only callers with the route's permission through, and writes down
// who changed something.
func (r Route) guard(a huma.API) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		caller, ok := callerOf(ctx.Context())
		if !ok || !caller.may(r.Needs) {
			p := forbidden(caller, r)
			ctx.SetHeader("Content-Type", problemJSON)
			ctx.SetStatus(p.Status)
			_ = a.Marshal(ctx.BodyWriter(), "application/json", p) // the caller is gone
			return
		}
		next(ctx)
	}
}

type callerKey struct{}

// WithCaller says who asks.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

func callerOf(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	return c, ok
}

// by names who asks, for the journal.
func by(ctx context.Context) string {
	c, _ := callerOf(ctx)
	return c.Name
}
