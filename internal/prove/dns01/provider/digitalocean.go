package provider

import (
	"cmp"
	"context"
	"strconv"

	"github.com/certfarm/certfarm/internal/prove/dns01"
)

// digitalOcean finds and removes records at DigitalOcean
// (https://docs.digitalocean.com/reference/api/reference/domain-records/).
func digitalOcean(_ context.Context, s settings) (own, error) {
	api := rest{
		base:   cmp.Or(s["DO_API_URL"], "https://api.digitalocean.com"),
		header: map[string]string{"Authorization": "Bearer " + s["DO_AUTH_TOKEN"]},
	}
	records := func(r dns01.Record) string { return "/v2/domains/" + r.Zone + "/records" }
	find := func(ctx context.Context, r dns01.Record) (ids []string, err error) {
		var list struct {
			Records []struct {
				ID   int64
				Data string
			} `json:"domain_records"`
		}
		path := records(r) + query("type", "TXT", "name", r.Name, "per_page", "200")
		if err := api.do(ctx, "GET", path, nil, &list); err != nil {
			return nil, err
		}
		for _, rec := range list.Records {
			if plain(rec.Data) == r.Value {
				ids = append(ids, strconv.FormatInt(rec.ID, 10))
			}
		}
		return ids, nil
	}
	drop := func(ctx context.Context, r dns01.Record, id string) error {
		err := api.do(ctx, "DELETE", records(r)+"/"+id, nil, nil)
		if missing(err) {
			return nil // somebody else was quicker
		}
		return err
	}
	return byID{find: find, drop: drop}.own(), nil
}
