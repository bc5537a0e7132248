package provider

import (
	"cmp"
	"context"

	"github.com/certfarm/certfarm/internal/prove/dns01"
)

// powerDNS looks what is at a name at a PowerDNS server
// (https://doc.powerdns.com/authoritative/http-api/zone.html); lego's client adds
// and removes single values.
func powerDNS(_ context.Context, s settings) (own, error) {
	api := rest{base: s["PDNS_API_URL"], header: map[string]string{"X-API-Key": s["PDNS_API_KEY"]}}
	server := "/api/v1/servers/" + cmp.Or(s["PDNS_SERVER_NAME"], "localhost")
	return own{has: func(ctx context.Context, r dns01.Record) (bool, error) {
		var zone struct {
			Sets []struct {
				Name, Type string
				Records    []struct{ Content string }
			} `json:"rrsets"`
		}
		// Servers before 4.6 do not know the filter, and answer with the whole zone.
		path := server + "/zones/" + r.Zone + "." + query("rrset_name", r.Name+".", "rrset_type", "TXT")
		if err := api.do(ctx, "GET", path, nil, &zone); err != nil {
			return false, err
		}
		for _, set := range zone.Sets {
			if set.Name != r.Name+"." || set.Type != "TXT" {
				continue
			}
			for _, rec := range set.Records {
				if plain(rec.Content) == r.Value {
					return true, nil
				}
			}
		}
		return false, nil
	}}, nil
}
