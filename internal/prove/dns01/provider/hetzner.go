package provider

import (
	"context"

	"github.com/certfarm/certfarm/internal/prove/dns01"
)

// hetznerOwn looks what is at a name at Hetzner
// (https://docs.hetzner.cloud/reference/cloud#zone-rrsets); lego's client adds and
// removes single values.
func hetznerOwn(_ context.Context, s settings) (own, error) {
	api := rest{base: "https://api.hetzner.cloud/v1", header: map[string]string{"Authorization": "Bearer " + s["HETZNER_API_TOKEN"]}}
	return own{has: func(ctx context.Context, r dns01.Record) (bool, error) {
		var now struct {
			Set struct{ Records []struct{ Value string } } `json:"rrset"`
		}
		err := api.do(ctx, "GET", "/zones/"+r.Zone+"/rrsets/"+label(r)+"/TXT", nil, &now)
		if missing(err) {
			return false, nil
		}
		for _, rec := range now.Set.Records {
			if plain(rec.Value) == r.Value {
				return true, nil
			}
		}
		return false, err
	}}, nil
}
