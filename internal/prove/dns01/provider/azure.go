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
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/certfarm/certfarm/internal/prove/dns01"
)

// azure edits record sets at Azure DNS, public or private
// (https://learn.microsoft.com/rest/api/dns/record-sets). A set is only written
// if it still is as it was read.
func azure(ctx context.Context, s settings) (own, error) {
	z, err := azureAPI(ctx, s)
	if err != nil {
		return own{}, fmt.Errorf("azuredns: %w", err)
	}
	return own{
		has: func(ctx context.Context, r dns01.Record) (bool, error) {
			_, now, err := z.get(ctx, r)
			return holds(now.values(), r.Value), err
		},
		put: func(ctx context.Context, r dns01.Record) error {
			return z.edit(ctx, r, func(values []azureText) []azureText { return append(values, azureText{Value: []string{r.Value}}) })
		},
		remove: func(ctx context.Context, r dns01.Record) error {
			return z.edit(ctx, r, func(values []azureText) (left []azureText) {
				for _, v := range values {
					if v.text() != r.Value {
						left = append(left, v)
					}
				}
				return left
			})
		},
	}, nil
}

// An azureKind is public DNS or private DNS, which differ in small things.
type azureKind struct{ kind, version, texts, ttl string }

var (
	azurePublic  = azureKind{"dnszones", "2018-05-01", "TXTRecords", "TTL"}
	azurePrivate = azureKind{"privatednszones", "2020-06-01", "txtRecords", "ttl"}
)

type azureZones struct {
	api  rest
	kind azureKind
	set  settings
	ttl  int
}

// An azureSet is a record set as it was read; its properties are kept as they are.
type azureSet struct {
	Etag       string                     `json:"etag,omitzero"`
	Properties map[string]json.RawMessage `json:"properties"`
	texts      []azureText
}

// An azureText is one TXT record, in strings of up to 255 bytes.
type azureText struct {
	Value []string `json:"value"`
}

func (t azureText) text() string { return strings.Join(t.Value, "") }

func (s azureSet) values() (all []string) {
	for _, t := range s.texts {
		all = append(all, t.text())
	}
	return all
}

func azureAPI(ctx context.Context, s settings) (*azureZones, error) {
	where, err := azureCloud(s["AZURE_ENVIRONMENT"])
	if err != nil {
		return nil, err
	}
	credential, err := azureCredential(s, azcore.ClientOptions{Cloud: where})
	if err != nil {
		return nil, err
	}
	manager := where.Services[cloud.ResourceManager]
	token, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{manager.Audience + "/.default"}})
	if err != nil {
		return nil, err
	}
	ttl, err := strconv.Atoi(cmp.Or(s["AZURE_TTL"], "60"))
	if err != nil {
		return nil, fmt.Errorf("AZURE_TTL: %w", err)
	}
	z := &azureZones{kind: azurePublic, set: s, ttl: ttl}
	if s["AZURE_PRIVATE_ZONE"] == "true" {
		z.kind = azurePrivate
	}
	z.api = rest{base: manager.Endpoint, header: map[string]string{"Authorization": "Bearer " + token.Token}}
	return z, nil
}

func azureCloud(name string) (cloud.Configuration, error) {
	switch name {
	case "", "public":
		return cloud.AzurePublic, nil
	case "china":
		return cloud.AzureChina, nil
	case "usgovernment":
		return cloud.AzureGovernment, nil
	}
	return cloud.Configuration{}, fmt.Errorf("AZURE_ENVIRONMENT: %q is not public, usgovernment or china", name)
}

// azureCredential is the application that the settings name, or the identity of
// the machine. Azure's command line program is not asked: it is not ours to run.
func azureCredential(s settings, with azcore.ClientOptions) (azcore.TokenCredential, error) {
	switch how := strings.ToLower(s["AZURE_AUTH_METHOD"]); {
	case how == "wli":
		return azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{ClientOptions: with})
	case how == "msi", how == "" && s["AZURE_CLIENT_SECRET"] == "" && s["AZURE_CLIENT_CERTIFICATE_PATH"] == "":
		return azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{ClientOptions: with})
	case how == "", how == "env":
		return azidentity.NewEnvironmentCredential(&azidentity.EnvironmentCredentialOptions{ClientOptions: with})
	default:
		return nil, fmt.Errorf("AZURE_AUTH_METHOD: %q is not env, wli or msi", how)
	}
}

// get is the set at a name, and its path.
func (z *azureZones) get(ctx context.Context, r dns01.Record) (path string, now azureSet, err error) {
	zone, err := z.find(ctx, cmp.Or(z.set["AZURE_ZONE_NAME"], r.Zone))
	if err != nil {
		return "", now, err
	}
	path = zone + "/TXT/" + label(r) + query("api-version", z.kind.version)
	err = z.api.do(ctx, http.MethodGet, path, nil, &now)
	if missing(err) {
		return path, azureSet{Properties: map[string]json.RawMessage{z.kind.ttl: json.RawMessage(strconv.Itoa(z.ttl))}}, nil
	}
	for name, raw := range now.Properties {
		if err == nil && strings.EqualFold(name, z.kind.texts) {
			err = json.Unmarshal(raw, &now.texts)
			delete(now.Properties, name)
		}
	}
	return path, now, err
}

// find is the path of the zone, wherever in the subscriptions it is
// (https://learn.microsoft.com/rest/api/azureresourcegraph).
func (z *azureZones) find(ctx context.Context, zone string) (string, error) {
	ask := []string{"resources", fmt.Sprintf("where type =~ 'microsoft.network/%s'", z.kind.kind), fmt.Sprintf("where name =~ '%s'", kusto(zone))}
	for column, setting := range map[string]string{"subscriptionId": "AZURE_SUBSCRIPTION_ID", "resourceGroup": "AZURE_RESOURCE_GROUP"} {
		if v := z.set[setting]; v != "" {
			ask = append(ask, fmt.Sprintf("where %s =~ '%s'", column, kusto(v)))
		}
	}
	if more := z.set["AZURE_SERVICEDISCOVERY_FILTER"]; more != "" {
		ask = append(ask, more)
	}
	in := map[string]any{"query": strings.Join(append(ask, "project id"), " | "), "options": map[string]string{"resultFormat": "objectArray"}}
	var out struct{ Data []struct{ ID string } }
	if err := z.api.do(ctx, http.MethodPost, "/providers/Microsoft.ResourceGraph/resources"+query("api-version", "2021-03-01"), in, &out); err != nil {
		return "", err
	}
	if len(out.Data) != 1 || !strings.HasPrefix(out.Data[0].ID, "/") {
		return "", fmt.Errorf("%d zones of the name %s may be seen, not one; AZURE_SUBSCRIPTION_ID and AZURE_RESOURCE_GROUP say which", len(out.Data), zone)
	}
	return (&url.URL{Path: out.Data[0].ID}).EscapedPath(), nil
}

// kusto is a text as it may stand in a query.
func kusto(text string) string { return strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) }

// edit reads, changes and writes back a set, again if somebody was quicker.
func (z *azureZones) edit(ctx context.Context, r dns01.Record, change func([]azureText) []azureText) error {
	const tries = 5
	for range tries {
		path, now, err := z.get(ctx, r)
		if err != nil {
			return err
		}
		unchanged := map[string]string{"If-Match": now.Etag}
		if now.Etag == "" {
			unchanged = map[string]string{"If-None-Match": "*"}
		}
		if now.texts = change(now.texts); len(now.texts) == 0 {
			err = z.api.ask(ctx, http.MethodDelete, path, unchanged, nil, nil)
		} else {
			var raw []byte
			if raw, err = json.Marshal(now.texts); err != nil {
				return err
			}
			now.Properties[z.kind.texts], now.Etag = raw, ""
			err = z.api.ask(ctx, http.MethodPut, path, unchanged, now, nil)
		}
		if no, ok := errors.AsType[*refusal](err); !ok || no.status != http.StatusPreconditionFailed {
			return err
		}
	}
	return fmt.Errorf("the TXT records of %s were changed by somebody else, %d times", r.Name, tries)
}
