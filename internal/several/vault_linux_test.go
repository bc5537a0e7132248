package several

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tokenSecret opens vaults, by its name in farm.yaml.
const tokenSecret, token = "token", "hvs.of-all-controllers"

// A vault is conditional: one secret of a KV 2 engine, as Vault's API reference has
// it, that is written over the version that the writer has seen, or not at all.
type vault struct {
	*front
	server   *httptest.Server
	versions []map[string]any // guarded by front.mu
}

func newVault(chance *rand.Rand) (place, error) {
	f, err := newFront(chance)
	if err != nil {
		return nil, err
	}
	v := &vault{front: f}
	v.server = httptest.NewServer(http.HandlerFunc(v.answer))
	return v, nil
}

func (v *vault) entry(name string) string {
	return fmt.Sprintf(`{kind: vault, name: %s, options: {address: %q, path: tls/shop}, secrets: {token: {secret: %s}}, endpoints: [{address: %q}]}`,
		name, v.server.URL, tokenSecret, v.endpoint.Addr())
}

func (v *vault) calls() string { return strings.TrimPrefix(v.server.URL, "http://") }

func (v *vault) fenced() bool { return true }

func (v *vault) close() {
	v.server.Close()
	_ = v.endpoint.Close() // the story has ended
}

func (v *vault) answer(w http.ResponseWriter, r *http.Request) {
	say := func(status int, text string, data map[string]any) {
		out := map[string]any{"data": data}
		if status != http.StatusOK {
			out = map[string]any{"errors": slices.DeleteFunc([]string{text}, func(t string) bool { return t == "" })}
		}
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(out) // else the caller is gone
	}
	switch at := strings.TrimPrefix(r.URL.Path, "/v1/"); {
	case r.Header.Get("X-Vault-Token") != token:
		say(http.StatusForbidden, "permission denied", nil)
	case at == "sys/internal/ui/mounts/secret":
		say(http.StatusOK, "", map[string]any{"type": "kv", "options": map[string]any{"version": "2"}})
	case at == "sys/capabilities-self":
		say(http.StatusOK, "", map[string]any{"capabilities": []string{"create", "read", "update"}})
	case at == "secret/metadata/tls/shop":
		v.mu.Lock()
		defer v.mu.Unlock()
		say(http.StatusOK, "", map[string]any{"max_versions": 0, "current_version": len(v.versions), "versions": map[string]any{}, "created_time": now(), "updated_time": now()})
	case at == "secret/data/tls/shop" && r.Method == http.MethodGet:
		say(v.get(r.URL.Query().Get("version")))
	case at == "secret/data/tls/shop":
		say(v.put(r))
	default:
		say(http.StatusNotFound, "", nil)
	}
}

func now() string { return time.Now().UTC().Format(time.RFC3339Nano) }

func (v *vault) get(version string) (int, string, map[string]any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := len(v.versions)
	if version != "" {
		n, _ = strconv.Atoi(version) // 0: there is none
	}
	if n < 1 || n > len(v.versions) {
		return http.StatusNotFound, "", nil
	}
	return http.StatusOK, "", map[string]any{
		"data": v.versions[n-1], "metadata": map[string]any{"version": n, "created_time": now(), "deletion_time": "", "destroyed": false},
	}
}

func (v *vault) put(r *http.Request) (int, string, map[string]any) {
	var body struct {
		Options struct {
			Over *int `json:"cas"`
		}
		Data map[string]any
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		return http.StatusBadRequest, err.Error(), nil
	}
	defer v.travel()()
	v.mu.Lock()
	defer v.mu.Unlock()
	if body.Options.Over == nil {
		v.wrong = append(v.wrong, "a write does not say which version it goes over")
	} else if *body.Options.Over != len(v.versions) {
		v.refused++
		return http.StatusBadRequest, "check-and-set parameter did not match the current version", nil
	}
	chain, key := fmt.Sprint(body.Data["certificate"], body.Data["chain"]), fmt.Sprint(body.Data["key"])
	pair, err := tls.X509KeyPair([]byte(chain), []byte(key))
	if err != nil {
		return http.StatusBadRequest, err.Error(), nil
	}
	v.versions = append(v.versions, body.Data)
	v.show(pair)
	return http.StatusOK, "", map[string]any{"version": len(v.versions), "created_time": now(), "deletion_time": "", "destroyed": false}
}
