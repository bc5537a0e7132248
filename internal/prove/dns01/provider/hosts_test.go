package provider

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// The APIs, as their documentation has them, as far as they are used. Each refuses
// whoever does not show the secret.

func TestCloudflare(t *testing.T) {
	w := newWorld(t)
	w.hosts["api.cloudflare.com"] = w.cloudflare()
	for name, a := range map[string]account{
		"token": {secrets: map[string]string{"CF_DNS_API_TOKEN": secret}},
		"key":   {options: `{"CLOUDFLARE_EMAIL":"me@example.com"}`, secrets: map[string]string{"CLOUDFLARE_API_KEY": secret}},
	} {
		t.Run(name, func(t *testing.T) {
			a.provider, a.proxy = "cloudflare", w.proxy
			suite(t, a, w.values)
		})
	}
}

func (w *world) cloudflare() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /client/v4/zones", func(rw http.ResponseWriter, r *http.Request) {
		list := []any{}
		if r.FormValue("name") == zone {
			list = append(list, map[string]any{"id": "z1", "name": zone})
		}
		reply(rw, http.StatusOK, map[string]any{"success": true, "result": list})
	})
	mux.HandleFunc("GET /client/v4/zones/z1/dns_records", func(rw http.ResponseWriter, r *http.Request) {
		list := []any{}
		for _, rec := range w.records {
			if rec.name == r.FormValue("name") {
				list = append(list, map[string]any{"id": strconv.Itoa(rec.id), "name": rec.name, "type": "TXT", "content": `"` + rec.value + `"`})
			}
		}
		reply(rw, http.StatusOK, map[string]any{"success": true, "result": list})
	})
	mux.HandleFunc("POST /client/v4/zones/z1/dns_records", func(rw http.ResponseWriter, r *http.Request) {
		var in struct{ Name, Content string }
		read(w.t, r, &in)
		for _, v := range w.at(in.Name) {
			if v == plain(in.Content) {
				reply(rw, http.StatusBadRequest, map[string]any{"errors": []any{map[string]any{"code": 81058, "message": "An identical record already exists."}}})
				return
			}
		}
		reply(rw, http.StatusOK, map[string]any{"success": true, "result": map[string]any{"id": strconv.Itoa(w.add(in.Name, plain(in.Content)))}})
	})
	mux.HandleFunc("DELETE /client/v4/zones/z1/dns_records/{id}", func(rw http.ResponseWriter, r *http.Request) {
		w.delete(rw, r.PathValue("id"), http.StatusOK)
	})
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		byKey := r.Header.Get("X-Auth-Key") == secret && r.Header.Get("X-Auth-Email") == "me@example.com"
		if r.Header.Get("Authorization") != "Bearer "+secret && !byKey {
			reply(rw, http.StatusForbidden, map[string]any{"errors": []any{map[string]any{"code": 9109, "message": "Invalid access token " + r.Header.Get("Authorization")}}})
			return
		}
		mux.ServeHTTP(rw, r)
	})
}

func TestDigitalOcean(t *testing.T) {
	w := newWorld(t)
	w.hosts["api.digitalocean.com"] = w.digitalOcean()
	suite(t, account{provider: "digitalocean", proxy: w.proxy, secrets: map[string]string{"DO_AUTH_TOKEN": secret}}, w.values)
}

func (w *world) digitalOcean() http.Handler {
	mux := http.NewServeMux()
	const records = "/v2/domains/" + zone + "/records"
	mux.HandleFunc("GET "+records, func(rw http.ResponseWriter, r *http.Request) {
		list := []any{}
		for _, rec := range w.records {
			if rec.name == r.FormValue("name") {
				list = append(list, map[string]any{"id": rec.id, "type": "TXT", "name": strings.TrimSuffix(rec.name, "."+zone), "data": rec.value})
			}
		}
		reply(rw, http.StatusOK, map[string]any{"domain_records": list})
	})
	mux.HandleFunc("POST "+records, func(rw http.ResponseWriter, r *http.Request) {
		var in struct{ Name, Data string }
		read(w.t, r, &in)
		reply(rw, http.StatusCreated, map[string]any{"domain_record": map[string]any{"id": w.add(in.Name, in.Data)}})
	})
	mux.HandleFunc("DELETE "+records+"/{id}", func(rw http.ResponseWriter, r *http.Request) {
		w.delete(rw, r.PathValue("id"), http.StatusNoContent)
	})
	return bearer(mux)
}

func TestGandi(t *testing.T) {
	w := newWorld(t)
	w.hosts["api.gandi.net"] = w.gandi()
	suite(t, account{provider: "gandiv5", proxy: w.proxy, secrets: map[string]string{"GANDIV5_PERSONAL_ACCESS_TOKEN": secret}}, w.values)
}

func (w *world) gandi() http.Handler {
	mux := http.NewServeMux()
	const path = "/v5/livedns/domains/" + zone + "/records/{name}/TXT"
	name := func(r *http.Request) string { return r.PathValue("name") + "." + zone }
	mux.HandleFunc("GET "+path, func(rw http.ResponseWriter, r *http.Request) {
		values := []string{}
		for _, v := range w.at(name(r)) {
			values = append(values, `"`+v+`"`)
		}
		if len(values) == 0 {
			reply(rw, http.StatusNotFound, map[string]any{"message": "Can't find the DNS record"})
			return
		}
		reply(rw, http.StatusOK, map[string]any{"rrset_type": "TXT", "rrset_ttl": 300, "rrset_values": values})
	})
	mux.HandleFunc("PUT "+path, func(rw http.ResponseWriter, r *http.Request) {
		var in struct {
			Values []string `json:"rrset_values"`
		}
		read(w.t, r, &in)
		for i, v := range in.Values {
			in.Values[i] = plain(v)
		}
		w.set(name(r), in.Values)
		reply(rw, http.StatusCreated, map[string]any{"message": "DNS Record Created"})
	})
	mux.HandleFunc("DELETE "+path, func(rw http.ResponseWriter, r *http.Request) {
		w.set(name(r), nil)
		rw.WriteHeader(http.StatusNoContent)
	})
	return bearer(mux)
}

func TestHetzner(t *testing.T) {
	w := newWorld(t)
	w.hosts["api.hetzner.cloud"] = w.hetzner()
	suite(t, account{provider: "hetzner", proxy: w.proxy, secrets: map[string]string{"HETZNER_API_TOKEN": secret}}, w.values)
}

func (w *world) hetzner() http.Handler {
	mux := http.NewServeMux()
	const path = "/v1/zones/" + zone + "/rrsets/{name}/TXT"
	name := func(r *http.Request) string { return r.PathValue("name") + "." + zone }
	type set struct{ Records []struct{ Value string } }
	done := map[string]any{"action": map[string]any{"id": 1, "status": "success"}}
	mux.HandleFunc("GET "+path, func(rw http.ResponseWriter, r *http.Request) {
		list := []any{}
		for _, v := range w.at(name(r)) {
			list = append(list, map[string]string{"value": `"` + v + `"`})
		}
		if len(list) == 0 {
			reply(rw, http.StatusNotFound, map[string]any{"error": map[string]any{"code": "not_found", "message": "rrset not found"}})
			return
		}
		reply(rw, http.StatusOK, map[string]any{"rrset": map[string]any{"records": list}})
	})
	mux.HandleFunc("POST "+path+"/actions/add_records", func(rw http.ResponseWriter, r *http.Request) {
		var in set
		read(w.t, r, &in)
		w.add(name(r), plain(in.Records[0].Value))
		reply(rw, http.StatusCreated, done)
	})
	mux.HandleFunc("POST "+path+"/actions/remove_records", func(rw http.ResponseWriter, r *http.Request) {
		var in set
		read(w.t, r, &in)
		if !w.drop(func(rec record) bool { return rec.name == name(r) && rec.value == plain(in.Records[0].Value) }) {
			reply(rw, http.StatusNotFound, map[string]any{"error": map[string]any{"code": "not_found", "message": "record not found"}})
			return
		}
		reply(rw, http.StatusCreated, done)
	})
	mux.HandleFunc("GET /v1/actions/1", func(rw http.ResponseWriter, _ *http.Request) { reply(rw, http.StatusOK, done) })
	return bearer(mux)
}

func TestOVH(t *testing.T) {
	w := newWorld(t)
	w.hosts["eu.api.ovh.com"] = w.ovh()
	suite(t, account{provider: "ovh", proxy: w.proxy, options: `{"OVH_ENDPOINT":"ovh-eu"}`,
		secrets: map[string]string{"OVH_ACCESS_TOKEN": secret}}, w.values)
}

func (w *world) ovh() http.Handler {
	mux := http.NewServeMux()
	const records = "/1.0/domain/zone/" + zone + "/record"
	mux.HandleFunc("GET "+records, func(rw http.ResponseWriter, r *http.Request) {
		ids := []int{}
		for _, rec := range w.records {
			if rec.name == r.FormValue("subDomain")+"."+zone {
				ids = append(ids, rec.id)
			}
		}
		reply(rw, http.StatusOK, ids)
	})
	mux.HandleFunc("GET "+records+"/{id}", func(rw http.ResponseWriter, r *http.Request) {
		for _, rec := range w.records {
			if strconv.Itoa(rec.id) == r.PathValue("id") {
				reply(rw, http.StatusOK, map[string]any{"id": rec.id, "target": `"` + rec.value + `"`})
				return
			}
		}
		reply(rw, http.StatusNotFound, map[string]string{"message": "This service does not exist"})
	})
	mux.HandleFunc("POST "+records, func(rw http.ResponseWriter, r *http.Request) {
		var in struct{ SubDomain, Target string }
		read(w.t, r, &in)
		reply(rw, http.StatusOK, map[string]any{"id": w.add(in.SubDomain+"."+zone, in.Target)})
	})
	mux.HandleFunc("DELETE "+records+"/{id}", func(rw http.ResponseWriter, r *http.Request) {
		w.delete(rw, r.PathValue("id"), http.StatusOK)
	})
	mux.HandleFunc("POST /1.0/domain/zone/"+zone+"/refresh", func(rw http.ResponseWriter, _ *http.Request) { reply(rw, http.StatusOK, nil) })
	return bearer(mux)
}

func (w *world) netlify() http.Handler {
	mux := http.NewServeMux()
	records := "/api/v1/dns_zones/" + strings.ReplaceAll(zone, ".", "_") + "/dns_records"
	mux.HandleFunc("POST "+records, func(rw http.ResponseWriter, r *http.Request) {
		var in struct{ Hostname, Value string }
		read(w.t, r, &in)
		reply(rw, http.StatusCreated, map[string]any{"id": strconv.Itoa(w.add(in.Hostname, in.Value))})
	})
	mux.HandleFunc("DELETE "+records+"/{id}", func(rw http.ResponseWriter, r *http.Request) {
		w.delete(rw, r.PathValue("id"), http.StatusNoContent)
	})
	return bearer(mux)
}

func (w *world) delete(rw http.ResponseWriter, id string, status int) {
	if !w.drop(func(r record) bool { return strconv.Itoa(r.id) == id }) {
		reply(rw, http.StatusNotFound, map[string]string{"message": "not found"})
		return
	}
	if status == http.StatusNoContent {
		rw.WriteHeader(status)
		return
	}
	reply(rw, status, map[string]any{"success": true, "result": map[string]any{"id": id}})
}

func bearer(h http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+secret {
			reply(rw, http.StatusUnauthorized, map[string]string{"message": "who is " + r.Header.Get("Authorization") + "?"})
			return
		}
		h.ServeHTTP(rw, r)
	})
}

func reply(rw http.ResponseWriter, status int, body any) {
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(status)
	_ = json.NewEncoder(rw).Encode(body)
}

func read(t *testing.T, r *http.Request, into any) {
	if err := json.NewDecoder(r.Body).Decode(into); err != nil {
		t.Errorf("%s %s: %v", r.Method, r.URL, err)
	}
}
