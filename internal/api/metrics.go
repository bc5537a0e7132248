package api

import (
	"context"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// MetricsPath is where a Prometheus looks by default.
const MetricsPath = "/metrics"

// metrics binds the route of the metrics: what it answers is no JSON, and is written by
// the handler that counts them.
func metrics(s *server, a huma.API, op huma.Operation) {
	op.Responses["200"] = &huma.Response{
		Description: "The text format of Prometheus, or another that was asked for",
		Content:     map[string]*huma.MediaType{"text/plain": {Schema: &huma.Schema{Type: huma.TypeString}}},
	}
	huma.Register(a, op, func(context.Context, *struct{}) (*huma.StreamResponse, error) {
		if s.metrics == nil {
			return nil, problem(NotFound, "there are no metrics here", "`certfarm serve` has them")
		}
		return &huma.StreamResponse{Body: func(ctx huma.Context) {
			r, w := humago.Unwrap(ctx)
			s.metrics.ServeHTTP(w, r)
		}}, nil
	})
}
