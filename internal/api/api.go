// Package api is the door for programs: the controller's questions as routes
// under /v1, described by OpenAPI, over a unix socket or over TCP with tokens.
//
//	CLI ── client ──┐ unix socket, 0600: the same user
//	                ├─→ who calls? ─→ may they? ─→ route ─→ controller.Controller
//	programs ───────┘ https, or http on loopback: a bearer token (package access)
//
// Its invariants: every route stands in one table with the permission that it
// needs and the object that it is about; no answer holds a secret, or what a caller
// sent as one, but for a token that was just made, and a key leaves by the two routes
// that need KeyExport alone, once the audit has it; a POST with an Idempotency-Key is
// done once; errors become problems (RFC 9457) in one place, and package client turns
// them back into the same Go types.
package api

import (
	"cmp"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/audit"
	"github.com/certfarm/certfarm/internal/controller"
)

// Config is what the API takes.
type Config struct {
	Controller *controller.Controller
	Version    string // of the program
	Log        *slog.Logger
	Metrics    http.Handler // of /metrics; nil: there are none
}

// server answers the routes.
type server struct {
	*controller.Controller
	guard      *access.Guard
	desk       access.Desk
	doorkeeper audit.Doorkeeper
	version    string
	log        *slog.Logger
	handed     handouts
	metrics    http.Handler
}

// New returns the API's handler. Each request must carry a Caller in its context
// (see access.WithCaller): without one it is refused.
func New(c Config) http.Handler {
	mux := http.NewServeMux()
	s := &server{Controller: c.Controller, version: c.Version, log: cmp.Or(c.Log, slog.New(slog.DiscardHandler)), metrics: c.Metrics}
	if c.Controller != nil {
		s.guard, s.desk = access.NewGuard(c.Controller.Store, nil), access.Desk{Store: c.Controller.Store}
		s.doorkeeper = audit.Doorkeeper{Book: audit.Book{Store: c.Controller.Store}, Log: s.log}
	}
	if err := document(mux, describe(s, mux).OpenAPI()); err != nil {
		s.log.Error("there is no page of the API", "error", err) // its test would have failed
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, problem(NotFound, "there is no route "+r.Method+" "+r.URL.Path, "the routes are listed at /api/docs"))
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
		r.bind(s, a, r.operation(s, a))
		r.tellLinks(operationOf(a.OpenAPI().Paths[r.Path], r.Method))
	}
	// Nothing answers with huma's own errors: see ours.
	for _, unused := range []string{"ErrorModel", "ErrorDetail"} {
		delete(config.Components.Schemas.Map(), unused)
	}
	return a
}

// The words of the description for what a route needs: a permission, on an object.
const (
	needs = "x-permission"
	about = "x-object"
)

// bodyWithin bounds how long a request's body may take.
const bodyWithin = 30 * time.Second

// operation describes the route.
func (r Route) operation(s *server, a huma.API) huma.Operation {
	return huma.Operation{
		OperationID: r.ID, Method: r.Method, Path: r.Path, Summary: r.Summary,
		Tags:            []string{r.Tag},
		Extensions:      map[string]any{needs: string(r.Needs), about: string(r.Object)},
		MaxBodyBytes:    cmp.Or(r.Body, maxBody),
		BodyReadTimeout: bodyWithin,
		Middlewares:     huma.Middlewares{r.guard(s, a)},
		Responses: map[string]*huma.Response{"default": {
			Description: "What went wrong",
			Content: map[string]*huma.MediaType{problemJSON: {
				Schema: a.OpenAPI().Components.Schemas.Schema(problemType, true, "Problem"),
			}},
		}},
	}
}
