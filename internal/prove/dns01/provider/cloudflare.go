package provider

import (
	"cmp"
	"context"
	"fmt"

	"github.com/certfarm/certfarm/internal/prove/dns01"
)

// cloudflareOwn finds and removes records at Cloudflare
// (https://developers.cloudflare.com/api/resources/dns/subresources/records/).
func cloudflareOwn(_ context.Context, s settings) (own, error) {
	base := cmp.Or(s["CLOUDFLARE_BASE_URL"], "https://api.cloudflare.com/client/v4")
	as := func(token string) rest {
		if token == "" {
			return rest{base: base, header: map[string]string{
				"X-Auth-Email": s.first("CLOUDFLARE_EMAIL", "CF_API_EMAIL"),
				"X-Auth-Key":   s.first("CLOUDFLARE_API_KEY", "CF_API_KEY"),
			}}
		}
		return rest{base: base, header: map[string]string{"Authorization": "Bearer " + token}}
	}
	edit := s.first("CLOUDFLARE_DNS_API_TOKEN", "CF_DNS_API_TOKEN")
	c := cloudflareRecords{records: as(edit), zones: as(cmp.Or(s.first("CLOUDFLARE_ZONE_API_TOKEN", "CF_ZONE_API_TOKEN"), edit))}
	return byID{find: c.find, drop: c.drop}.own(), nil
}

// A cloudflareRecords has one token for records, and perhaps another one that may only
// look for zones.
type cloudflareRecords struct{ records, zones rest }

func (c cloudflareRecords) find(ctx context.Context, r dns01.Record) (ids []string, err error) {
	zone, err := c.zone(ctx, r)
	if err != nil {
		return nil, err
	}
	var list struct {
		Result []struct{ ID, Content string }
	}
	path := zone + query("type", "TXT", "name", r.Name, "per_page", "100")
	if err := c.records.do(ctx, "GET", path, nil, &list); err != nil {
		return nil, err
	}
	for _, rec := range list.Result {
		if plain(rec.Content) == r.Value {
			ids = append(ids, zone+"/"+rec.ID)
		}
	}
	return ids, nil
}

// zone is the path of a zone's records.
func (c cloudflareRecords) zone(ctx context.Context, r dns01.Record) (string, error) {
	var list struct{ Result []struct{ ID string } }
	if err := c.zones.do(ctx, "GET", "/zones"+query("name", r.Zone, "per_page", "50"), nil, &list); err != nil {
		return "", err
	}
	if len(list.Result) != 1 {
		return "", fmt.Errorf("cloudflare: %d zones of the name %s may be seen, not one", len(list.Result), r.Zone)
	}
	return "/zones/" + list.Result[0].ID + "/dns_records", nil
}

func (c cloudflareRecords) drop(ctx context.Context, _ dns01.Record, id string) error {
	err := c.records.do(ctx, "DELETE", id, nil, nil)
	if missing(err) {
		return nil // somebody else was quicker
	}
	return err
}
