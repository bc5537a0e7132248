package api

import (
	"cmp"
	"context"
	"fmt"
	"net/url"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certfarm/certfarm/internal/store"
)

// What shows how far the work is that an answer leaves behind; see Route.Status.
const (
	showsProgress     = inFarm + "/progress" // of the route's site
	showsSites        = inFarm + "/sites"
	showsReplacements = inFarm + "/replacements"
	showsReplacement  = showsReplacements + "/{replacement}"
	showsRollout      = inFarm + "/rollouts/{rollout}"
	showsTarget       = inFarm + "/targets/{target}"
	followPath        = inFarm + "/events/follow"
)

// LinkHeader (RFC 8288) names in the answers of routes that begin long work what shows
// how far it is, with the relation "status" (RFC 8631), and the stream of what happens
// to it from the request on, "monitor" (RFC 5989).
const LinkHeader = "Link"

// linked is an answer that names where its work shows, if it is not refused.
type linked struct {
	humaContext
	links string
}

// SetStatus answers with a status.
func (l *linked) SetStatus(code int) {
	if code >= 200 && code < 300 {
		l.SetHeader(LinkHeader, l.links)
	}
	l.humaContext.SetStatus(code)
}

// linked sees to it that the answer names where the work shows that the route begins.
// It is asked before the work is: so the stream has all of it.
func (s *server) linked(ctx huma.Context, r Route) (huma.Context, error) {
	if r.Status == "" {
		return ctx, nil
	}
	farmName, site := ctx.Param("farm"), ctx.Param("site")
	status := Route{Path: r.Status}.URL(farmName, cmp.Or(ctx.Param("rollout"), ctx.Param("target")))
	if site != "" {
		status += "?" + url.Values{"site": {site}}.Encode()
	}
	query, err := s.fromNow(ctx.Context(), farmName, site)
	if err != nil {
		return nil, err
	}
	monitor := Route{Path: followPath}.URL(farmName)
	if len(query) > 0 {
		monitor += "?" + query.Encode()
	}
	return &linked{ctx, fmt.Sprintf(`<%s>; rel="status", <%s>; rel="monitor"`, status, monitor)}, nil
}

// fromNow asks for the events of a site, or of a farm, that are yet to come. Those of a
// site whose nodes have certificates of their own are events of its parts: there it is
// the farm's.
func (s *server) fromNow(ctx context.Context, farmName, site string) (url.Values, error) {
	q := url.Values{}
	err := s.Store.View(ctx, func(tx *store.Tx) error {
		last, err := tx.Events(ctx, farmName, store.EventQuery{Newest: true, Limit: 1})
		if err != nil {
			return err
		}
		for _, e := range last {
			q.Set("after", e.ID)
		}
		if site == "" {
			return nil
		}
		parts, err := tx.Members(ctx, farmName, site)
		if len(parts) == 0 {
			q.Set("site", site)
		}
		return err
	})
	return q, err
}

// tellLinks describes the header of a route that begins long work.
func (r Route) tellLinks(op *huma.Operation) {
	if r.Status == "" {
		return
	}
	for status, res := range op.Responses {
		if status == "default" {
			continue
		}
		if res.Headers == nil {
			res.Headers = map[string]*huma.Param{}
		}
		res.Headers[LinkHeader] = &huma.Param{
			Description: `what shows how far it is: ` + r.Status + ` (rel="status"), and the stream to follow: ` + followPath + ` (rel="monitor")`,
			Schema:      &huma.Schema{Type: huma.TypeString},
		}
	}
}
