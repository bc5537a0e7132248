package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/ovh/go-ovh/ovh"

	"github.com/certfarm/certfarm/internal/prove/dns01"
)

// ovhOwn finds and removes records at OVH (https://eu.api.ovh.com/console/?section=%2Fdomain).
// It must look, which the rights that lego's page asks for do not allow: GET on
// /domain/zone/* is needed, too.
func ovhOwn(_ context.Context, s settings) (own, error) {
	client, err := ovhClient(s)
	if err != nil {
		return own{}, fmt.Errorf("ovh: %w", err)
	}
	c := ovhRecords{client}
	return byID{find: c.find, drop: c.drop}.own(), nil
}

func ovhClient(s settings) (*ovh.Client, error) {
	endpoint := cmp.Or(s["OVH_ENDPOINT"], "ovh-eu")
	switch {
	case s["OVH_ACCESS_TOKEN"] != "":
		return ovh.NewAccessTokenClient(endpoint, s["OVH_ACCESS_TOKEN"])
	case s["OVH_CLIENT_SECRET"] != "":
		return ovh.NewOAuth2Client(endpoint, s["OVH_CLIENT_ID"], s["OVH_CLIENT_SECRET"])
	}
	return ovh.NewClient(endpoint, s["OVH_APPLICATION_KEY"], s["OVH_APPLICATION_SECRET"], s["OVH_CONSUMER_KEY"])
}

type ovhRecords struct{ client *ovh.Client }

func (c ovhRecords) find(ctx context.Context, r dns01.Record) (ids []string, err error) {
	records := "/domain/zone/" + r.Zone + "/record"
	name := label(r)
	if name == "@" {
		name = "" // of the zone itself
	}
	var all []int64
	if err := c.get(ctx, records+query("fieldType", "TXT", "subDomain", name), &all); err != nil {
		return nil, err
	}
	for _, id := range all {
		var rec struct{ Target string }
		err := c.get(ctx, records+"/"+strconv.FormatInt(id, 10), &rec)
		if missing(err) {
			continue // somebody else was quicker
		}
		if err != nil {
			return nil, err
		}
		if plain(rec.Target) == r.Value {
			ids = append(ids, strconv.FormatInt(id, 10))
		}
	}
	return ids, nil
}

func (c ovhRecords) get(ctx context.Context, path string, out any) error {
	return asRefusal("GET "+path, c.client.GetWithContext(ctx, path, out))
}

func (c ovhRecords) drop(ctx context.Context, r dns01.Record, id string) error {
	path := "/domain/zone/" + r.Zone + "/record/" + id
	if err := asRefusal("DELETE "+path, c.client.DeleteWithContext(ctx, path, nil)); err != nil && !missing(err) {
		return err
	}
	path = "/domain/zone/" + r.Zone + "/refresh" // or the change is not served
	return asRefusal("POST "+path, c.client.PostWithContext(ctx, path, nil, nil))
}

func asRefusal(what string, err error) error {
	if no, ok := errors.AsType[*ovh.APIError](err); ok && no.Code >= http.StatusBadRequest {
		return &refusal{what, no.Code, no.Message}
	}
	return err
}
