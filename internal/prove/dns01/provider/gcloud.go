package provider

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"golang.org/x/oauth2"
	oauth "golang.org/x/oauth2/google"

	"github.com/certfarm/certfarm/internal/prove/dns01"
)

const (
	googleDNS   = "https://www.googleapis.com/auth/ndev.clouddns.readwrite"
	googleCloud = "https://www.googleapis.com/auth/cloud-platform"
)

// google edits record sets at Google Cloud DNS
// (https://cloud.google.com/dns/docs/reference/rest/v1/changes). A change deletes
// the set as it was read and adds the new one, and is refused if the set is no
// longer so.
func google(ctx context.Context, s settings) (own, error) {
	g, err := googleAPI(ctx, s)
	if err != nil {
		return own{}, fmt.Errorf("gcloud: %w", err)
	}
	return own{
		has: func(ctx context.Context, r dns01.Record) (bool, error) {
			_, now, err := g.get(ctx, r)
			return now != nil && holds(now.Data, r.Value), err
		},
		put: func(ctx context.Context, r dns01.Record) error {
			return g.edit(ctx, r, func(values []string) []string { return append(others(values, r.Value), strconv.Quote(r.Value)) })
		},
		remove: func(ctx context.Context, r dns01.Record) error {
			return g.edit(ctx, r, func(values []string) []string { return others(values, r.Value) })
		},
	}, nil
}

type googleZone struct {
	api  rest // of the project
	zone string
	ttl  int
	all  bool // private zones, too
}

// A googleSet is a ResourceRecordSet.
type googleSet struct {
	Name string   `json:"name"`
	Type string   `json:"type"`
	TTL  int      `json:"ttl"`
	Data []string `json:"rrdatas"`
}

func googleAPI(ctx context.Context, s settings) (*googleZone, error) {
	scope := googleDNS
	if s["GCE_IMPERSONATE_SERVICE_ACCOUNT"] != "" {
		scope = googleCloud
	}
	tokens, project, err := googleTokens(ctx, s["GCE_SERVICE_ACCOUNT"], scope)
	if err != nil {
		return nil, err
	}
	if who := s["GCE_IMPERSONATE_SERVICE_ACCOUNT"]; who != "" {
		if tokens, err = impersonate(ctx, tokens, who); err != nil {
			return nil, err
		}
	}
	if project = cmp.Or(s["GCE_PROJECT"], project); project == "" {
		return nil, errors.New("the project is not known; set GCE_PROJECT")
	}
	ttl, err := strconv.Atoi(cmp.Or(s["GCE_TTL"], "120"))
	if err != nil {
		return nil, fmt.Errorf("GCE_TTL: %w", err)
	}
	return &googleZone{
		api:  rest{base: "https://dns.googleapis.com/dns/v1/projects/" + url.PathEscape(project), client: oauth2.NewClient(ctx, tokens)},
		zone: s["GCE_ZONE_ID"], ttl: ttl, all: s["GCE_ALLOW_PRIVATE_ZONE"] == "true",
	}, nil
}

// googleTokens are of a service account's key, or of the machine's own account.
func googleTokens(ctx context.Context, key, scope string) (tokens oauth2.TokenSource, project string, err error) {
	if key == "" {
		found, err := oauth.FindDefaultCredentials(ctx, scope)
		if err != nil {
			return nil, "", err
		}
		return found.TokenSource, found.ProjectID, nil
	}
	account, err := oauth.JWTConfigFromJSON([]byte(key), scope)
	if err != nil {
		return nil, "", fmt.Errorf("GCE_SERVICE_ACCOUNT: %w", err)
	}
	var names struct {
		Project string `json:"project_id"`
	}
	if err := json.Unmarshal([]byte(key), &names); err != nil {
		return nil, "", errors.New("GCE_SERVICE_ACCOUNT is not the JSON of a key")
	}
	return account.TokenSource(ctx), names.Project, nil
}

// impersonate gets a token of another account
// (https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken).
func impersonate(ctx context.Context, as oauth2.TokenSource, who string) (oauth2.TokenSource, error) {
	api := rest{base: "https://iamcredentials.googleapis.com/v1", client: oauth2.NewClient(ctx, as)}
	in := map[string][]string{"scope": {googleDNS}}
	var out struct {
		Token string `json:"accessToken"`
	}
	if err := api.do(ctx, http.MethodPost, "/projects/-/serviceAccounts/"+url.PathEscape(who)+":generateAccessToken", in, &out); err != nil {
		return nil, err
	}
	return oauth2.StaticTokenSource(&oauth2.Token{AccessToken: out.Token}), nil
}

// get is the set at a name; nil: none.
func (g *googleZone) get(ctx context.Context, r dns01.Record) (zone string, now *googleSet, err error) {
	if zone, err = g.find(ctx, r); err != nil {
		return "", nil, err
	}
	var list struct {
		Sets []googleSet `json:"rrsets"`
	}
	err = g.api.do(ctx, http.MethodGet, zone+"/rrsets"+query("name", r.Name+".", "type", "TXT"), nil, &list)
	if err != nil || len(list.Sets) == 0 {
		return zone, nil, err
	}
	return zone, &list.Sets[0], nil
}

// find is the path of the zone.
func (g *googleZone) find(ctx context.Context, r dns01.Record) (string, error) {
	if g.zone != "" {
		return "/managedZones/" + url.PathEscape(g.zone), nil
	}
	var list struct {
		Zones []struct{ Name, Visibility string } `json:"managedZones"`
	}
	if err := g.api.do(ctx, http.MethodGet, "/managedZones"+query("dnsName", r.Zone+"."), nil, &list); err != nil {
		return "", err
	}
	for _, z := range list.Zones {
		if z.Visibility != "private" || g.all {
			return "/managedZones/" + url.PathEscape(z.Name), nil
		}
	}
	return "", fmt.Errorf("there is no zone %s in the project that may be seen", r.Zone)
}

// edit changes the set as it is, again if somebody was quicker.
func (g *googleZone) edit(ctx context.Context, r dns01.Record, change func([]string) []string) error {
	const tries = 5
	for range tries {
		zone, now, err := g.get(ctx, r)
		if err != nil {
			return err
		}
		err = g.api.do(ctx, http.MethodPost, zone+"/changes", g.change(r, now, change), nil)
		no, refused := errors.AsType[*refusal](err)
		if !refused || no.status != http.StatusConflict && no.status != http.StatusPreconditionFailed && no.status != http.StatusNotFound {
			return err
		}
	}
	return fmt.Errorf("the TXT records of %s were changed by somebody else, %d times", r.Name, tries)
}

// A googleChange is refused as a whole if a deletion is not what is there.
type googleChange struct {
	Deletions []googleSet `json:"deletions,omitzero"`
	Additions []googleSet `json:"additions,omitzero"`
}

func (g *googleZone) change(r dns01.Record, now *googleSet, change func([]string) []string) (c googleChange) {
	next := googleSet{Name: r.Name + ".", Type: "TXT", TTL: g.ttl}
	if now != nil {
		next.TTL, next.Data = now.TTL, now.Data
		c.Deletions = []googleSet{*now}
	}
	if next.Data = change(next.Data); len(next.Data) > 0 {
		c.Additions = []googleSet{next}
	}
	return c
}
