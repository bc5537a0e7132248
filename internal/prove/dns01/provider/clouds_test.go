package provider

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestGoogleCloud(t *testing.T) {
	w := newWorld(t)
	w.hosts["dns.googleapis.com"] = w.google()
	w.hosts["oauth2.googleapis.com"] = http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		reply(rw, http.StatusOK, map[string]any{"access_token": secret, "token_type": "Bearer", "expires_in": 3600})
	})
	suite(t, account{provider: "gcloud", proxy: w.proxy, secrets: map[string]string{"GCE_SERVICE_ACCOUNT": serviceAccount(t)}}, w.values)
}

func serviceAccount(t *testing.T) string {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]string{
		"type": "service_account", "project_id": "farm", "client_email": "certfarm@farm.example", "private_key_id": "1",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "token_uri": "https://oauth2.googleapis.com/token",
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// google refuses a change whose deletions are not what is there, as the API does.
func (w *world) google() http.Handler {
	mux := http.NewServeMux()
	const project = "/dns/v1/projects/farm"
	type set struct {
		Name, Type string
		TTL        int
		Rrdatas    []string
	}
	quoted := func(name string) (all []string) {
		for _, v := range w.at(name) {
			all = append(all, `"`+v+`"`)
		}
		return all
	}
	mux.HandleFunc("GET "+project+"/managedZones", func(rw http.ResponseWriter, r *http.Request) {
		list := []any{map[string]string{"name": "inner", "visibility": "private"}, map[string]string{"name": "z1", "visibility": "public"}}
		if r.FormValue("dnsName") != zone+"." {
			list = nil
		}
		reply(rw, http.StatusOK, map[string]any{"managedZones": list})
	})
	mux.HandleFunc("GET "+project+"/managedZones/z1/rrsets", func(rw http.ResponseWriter, r *http.Request) {
		list := []any{}
		if values := quoted(r.FormValue("name")); len(values) > 0 {
			list = append(list, map[string]any{"name": r.FormValue("name"), "type": "TXT", "ttl": 60, "rrdatas": values})
		}
		reply(rw, http.StatusOK, map[string]any{"rrsets": list})
	})
	mux.HandleFunc("POST "+project+"/managedZones/z1/changes", func(rw http.ResponseWriter, r *http.Request) {
		var in struct{ Additions, Deletions []set }
		read(w.t, r, &in)
		for _, d := range in.Deletions {
			if !slices.Equal(d.Rrdatas, quoted(d.Name)) {
				reply(rw, http.StatusPreconditionFailed, map[string]string{"error": "conditionNotMet"})
				return
			}
			w.set(d.Name, nil)
		}
		for _, a := range in.Additions {
			if len(w.at(a.Name)) > 0 {
				reply(rw, http.StatusConflict, map[string]string{"error": "alreadyExists"})
				return
			}
			for _, v := range a.Rrdatas {
				w.add(a.Name, plain(v))
			}
		}
		reply(rw, http.StatusOK, map[string]string{"status": "pending"})
	})
	return bearer(mux)
}

func TestAzure(t *testing.T) {
	w := newWorld(t)
	w.hosts["management.azure.com"] = w.azure()
	w.hosts["login.microsoftonline.com"] = w.entra()
	suite(t, account{provider: "azuredns", proxy: w.proxy, secrets: map[string]string{"AZURE_CLIENT_SECRET": secret},
		options: `{"AZURE_TENANT_ID":"11111111-2222-3333-4444-555555555555","AZURE_CLIENT_ID":"app","AZURE_SUBSCRIPTION_ID":"s1","AZURE_RESOURCE_GROUP":"rg"}`}, w.values)
}

// entra gives tokens to who knows the secret.
func (w *world) entra() http.Handler {
	const base = "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555"
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/discovery/instance"):
			reply(rw, http.StatusOK, map[string]any{"tenant_discovery_endpoint": base + "/v2.0/.well-known/openid-configuration"})
		case strings.HasSuffix(r.URL.Path, "/openid-configuration"):
			reply(rw, http.StatusOK, map[string]any{"issuer": base + "/v2.0", "authorization_endpoint": base + "/authorize", "token_endpoint": base + "/oauth2/v2.0/token"})
		case r.FormValue("client_secret") == secret:
			reply(rw, http.StatusOK, map[string]any{"access_token": secret, "token_type": "Bearer", "expires_in": 3600})
		default:
			reply(rw, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
		}
	})
}

// azure keeps an etag that changes with every change.
func (w *world) azure() http.Handler {
	mux := http.NewServeMux()
	const id = "/subscriptions/s1/resourceGroups/rg/providers/Microsoft.Network/dnszones/" + zone
	name := func(r *http.Request) string { return r.PathValue("name") + "." + zone }
	etags := map[string]int{}
	stale := func(rw http.ResponseWriter, r *http.Request) bool {
		there, now := len(w.at(name(r))) > 0, fmt.Sprint(etags[name(r)])
		if there && r.Header.Get("If-Match") != now || !there && r.Header.Get("If-None-Match") != "*" {
			reply(rw, http.StatusPreconditionFailed, map[string]any{"error": map[string]string{"code": "PreconditionFailed"}})
			return true
		}
		etags[name(r)]++
		return false
	}
	type text struct {
		Value []string `json:"value"`
	}
	mux.HandleFunc("POST /providers/Microsoft.ResourceGraph/resources", func(rw http.ResponseWriter, r *http.Request) {
		var in struct{ Query string }
		read(w.t, r, &in)
		for _, want := range []string{"type =~ 'microsoft.network/dnszones'", "name =~ '" + zone + "'", "resourceGroup =~ 'rg'", "subscriptionId =~ 's1'"} {
			if !strings.Contains(in.Query, want) {
				w.t.Errorf("the query is %s", in.Query)
			}
		}
		reply(rw, http.StatusOK, map[string]any{"data": []any{map[string]string{"id": id}}})
	})
	mux.HandleFunc("GET "+id+"/TXT/{name}", func(rw http.ResponseWriter, r *http.Request) {
		texts := []text{}
		for _, v := range w.at(name(r)) {
			texts = append(texts, text{[]string{v[:5], v[5:]}})
		}
		if len(texts) == 0 {
			reply(rw, http.StatusNotFound, map[string]any{"error": map[string]string{"code": "NotFound"}})
			return
		}
		reply(rw, http.StatusOK, map[string]any{"etag": fmt.Sprint(etags[name(r)]), "properties": map[string]any{"TTL": 60, "TXTRecords": texts, "fqdn": name(r)}})
	})
	mux.HandleFunc("PUT "+id+"/TXT/{name}", func(rw http.ResponseWriter, r *http.Request) {
		var in struct {
			Properties struct {
				TTL        int
				TXTRecords []text
			}
		}
		read(w.t, r, &in)
		if stale(rw, r) {
			return
		}
		var values []string
		for _, t := range in.Properties.TXTRecords {
			values = append(values, strings.Join(t.Value, ""))
		}
		if in.Properties.TTL != 60 || len(values) == 0 {
			w.t.Errorf("a set of %d values with TTL %d", len(values), in.Properties.TTL)
		}
		w.set(name(r), values)
		reply(rw, http.StatusOK, nil)
	})
	mux.HandleFunc("DELETE "+id+"/TXT/{name}", func(rw http.ResponseWriter, r *http.Request) {
		if !stale(rw, r) {
			w.set(name(r), nil)
		}
	})
	return bearer(mux)
}

func TestRoute53(t *testing.T) {
	w := newWorld(t)
	w.hosts["route53.amazonaws.com"] = w.route53()
	suite(t, account{provider: "route53", proxy: w.proxy, options: `{"AWS_ACCESS_KEY_ID":"AKIA","AWS_REGION":"eu-central-1"}`,
		secrets: map[string]string{"AWS_SECRET_ACCESS_KEY": secret}}, w.values)
}

func (w *world) route53() http.Handler {
	mux := http.NewServeMux()
	type set struct {
		Name            string
		Type            string
		TTL             int
		ResourceRecords []struct{ Value string } `xml:"ResourceRecords>ResourceRecord"`
	}
	answer := func(rw http.ResponseWriter, body any) {
		rw.Header().Set("Content-Type", "text/xml")
		if err := xml.NewEncoder(rw).Encode(body); err != nil {
			w.t.Error(err)
		}
	}
	mux.HandleFunc("GET /2013-04-01/hostedzonesbyname", func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(rw, `<ListHostedZonesByNameResponse><HostedZones><HostedZone><Id>/hostedzone/Z1</Id><Name>`+zone+
			`.</Name><Config><PrivateZone>false</PrivateZone></Config></HostedZone></HostedZones></ListHostedZonesByNameResponse>`)
	})
	mux.HandleFunc("GET /2013-04-01/hostedzone/Z1/rrset", func(rw http.ResponseWriter, r *http.Request) {
		type list struct {
			XMLName xml.Name `xml:"ListResourceRecordSetsResponse"`
			Sets    []set    `xml:"ResourceRecordSets>ResourceRecordSet"`
		}
		var l list
		if values := w.at(r.FormValue("name")); len(values) > 0 {
			s := set{Name: r.FormValue("name"), Type: "TXT", TTL: 10}
			for _, v := range values {
				s.ResourceRecords = append(s.ResourceRecords, struct{ Value string }{`"` + v + `"`})
			}
			l.Sets = append(l.Sets, s)
		}
		answer(rw, l)
	})
	mux.HandleFunc("POST /2013-04-01/hostedzone/Z1/rrset", func(rw http.ResponseWriter, r *http.Request) {
		var in struct {
			Changes []struct {
				Action string
				Set    set `xml:"ResourceRecordSet"`
			} `xml:"ChangeBatch>Changes>Change"`
		}
		if err := xml.NewDecoder(r.Body).Decode(&in); err != nil {
			w.t.Error(err)
		}
		for _, c := range in.Changes {
			w.set(c.Set.Name, nil)
			for _, v := range c.Set.ResourceRecords {
				if c.Action == "UPSERT" {
					w.add(c.Set.Name, plain(v.Value))
				}
			}
		}
		_, _ = io.WriteString(rw, `<ChangeResourceRecordSetsResponse><ChangeInfo><Id>/change/C1</Id><Status>INSYNC</Status><SubmittedAt>2026-01-01T00:00:00Z</SubmittedAt></ChangeInfo></ChangeResourceRecordSetsResponse>`)
	})
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=AKIA/") {
			rw.WriteHeader(http.StatusForbidden)
			return
		}
		mux.ServeHTTP(rw, r)
	})
}
