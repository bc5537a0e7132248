package provider

import (
	"context"
	"net/http"

	"github.com/certfarm/certfarm/internal/prove/dns01"
)

// gandi removes one value of a name at Gandi (https://api.gandi.net/docs/livedns/).
func gandi(_ context.Context, s settings) (own, error) {
	auth := "Apikey " + s["GANDIV5_API_KEY"]
	if token := s["GANDIV5_PERSONAL_ACCESS_TOKEN"]; token != "" {
		auth = "Bearer " + token
	}
	api := rest{base: "https://api.gandi.net/v5/livedns", header: map[string]string{"Authorization": auth}}
	path := func(r dns01.Record) string { return "/domains/" + r.Zone + "/records/" + label(r) + "/TXT" }
	type set struct {
		TTL    int      `json:"rrset_ttl,omitzero"`
		Values []string `json:"rrset_values"`
	}
	get := func(ctx context.Context, r dns01.Record) (set, error) {
		var now set
		err := api.do(ctx, http.MethodGet, path(r), nil, &now)
		if missing(err) {
			err = nil
		}
		return now, err
	}
	return own{
		has: func(ctx context.Context, r dns01.Record) (bool, error) {
			now, err := get(ctx, r)
			return holds(now.Values, r.Value), err
		},
		remove: func(ctx context.Context, r dns01.Record) error {
			now, err := get(ctx, r)
			if err != nil {
				return err
			}
			if now.Values = others(now.Values, r.Value); len(now.Values) > 0 {
				return api.do(ctx, http.MethodPut, path(r), now, nil)
			}
			return api.do(ctx, http.MethodDelete, path(r), nil, nil)
		},
	}, nil
}
