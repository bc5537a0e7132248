package cloud

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
)

// The credentials that the fake server takes.
const (
	vaultToken = "hvs.canary-of-a-token-0123456789"
	vaultRole  = "role-of-certfarm"
	secretID   = "canary-of-a-secret-id-0123456789"
)

// kvServer speaks the protocol of Vault's KV engines as its API reference has it
// (KV secrets engine, versions 1 and 2; AppRole; sys/capabilities-self), for one
// secret at secret/tls/shop.
type kvServer struct {
	kv        int
	namespace string

	mu          sync.Mutex
	versions    []map[string]any // nil: deleted
	destroyed   map[int]bool     // by number
	keep        int              // versions; 0: all
	may         []string
	logins      int
	before      func()                                            // each write
	answer      func(w http.ResponseWriter, r *http.Request) bool // in place of the server's
	mountsShown bool
}

func newKVServer(kv int) *kvServer {
	return &kvServer{kv: kv, may: []string{"create", "read", "update"}, mountsShown: true}
}

func (s *kvServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.answer != nil && s.answer(w, r) {
		return
	}
	var body map[string]any
	_ = json.NewDecoder(r.Body).Decode(&body) // a GET has none
	at := strings.TrimPrefix(r.URL.Path, "/v1/")
	switch {
	case r.Header.Get("X-Vault-Request") != "true" || r.Header.Get("X-Vault-Namespace") != s.namespace:
		kvSays(w, http.StatusNotFound, "no handler for route")
	case at == "auth/approle/login":
		s.login(w, body)
	case r.Header.Get("X-Vault-Token") != vaultToken:
		kvSays(w, http.StatusForbidden, "permission denied")
	case at == "sys/internal/ui/mounts/secret" && s.mountsShown:
		kvData(w, map[string]any{"type": "kv", "options": map[string]any{"version": strconv.Itoa(s.kv)}})
	case at == "sys/capabilities-self":
		kvData(w, map[string]any{"capabilities": s.may})
	case s.kv == 1 && at == "secret/tls/shop":
		s.first(w, r, body)
	case s.kv == 2 && at == "secret/data/tls/shop":
		s.second(w, r, body)
	case s.kv == 2 && at == "secret/metadata/tls/shop":
		s.metadata(w)
	case s.kv == 2 && at == "secret/destroy/tls/shop" && r.Method == http.MethodPut:
		s.destroy(w, body)
	default:
		kvSays(w, http.StatusNotFound)
	}
}

func now() string { return time.Now().UTC().Format(time.RFC3339Nano) }

func kvSays(w http.ResponseWriter, status int, errs ...string) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": append([]string{}, errs...)})
}

func kvData(w http.ResponseWriter, data map[string]any) {
	_ = json.NewEncoder(w).Encode(map[string]any{"data": data})
}

func (s *kvServer) login(w http.ResponseWriter, body map[string]any) {
	if body["role_id"] != vaultRole || body["secret_id"] != secretID {
		kvSays(w, http.StatusBadRequest, "invalid role or secret ID")
		return
	}
	s.logins++
	_ = json.NewEncoder(w).Encode(map[string]any{"auth": map[string]any{"client_token": vaultToken}})
}

func (s *kvServer) first(w http.ResponseWriter, r *http.Request, body map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Method != http.MethodGet {
		s.versions = []map[string]any{body}
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if len(s.versions) == 0 {
		kvSays(w, http.StatusNotFound)
		return
	}
	kvData(w, s.versions[0])
}

func (s *kvServer) second(w http.ResponseWriter, r *http.Request, body map[string]any) {
	if r.Method != http.MethodGet && s.before != nil {
		s.before()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.versions)
	if r.Method != http.MethodGet {
		options, _ := body["options"].(map[string]any)
		if cas, ok := options["cas"].(float64); !ok || int(cas) != n {
			kvSays(w, http.StatusBadRequest, "check-and-set parameter did not match the current version")
			return
		}
		s.versions = append(s.versions, body["data"].(map[string]any))
		for i := range len(s.versions) - s.keep {
			if s.keep > 0 {
				s.versions[i] = nil
			}
		}
		kvData(w, map[string]any{"version": n + 1, "created_time": now(), "deletion_time": "", "destroyed": false})
		return
	}
	if text := r.URL.Query().Get("version"); text != "" {
		n, _ = strconv.Atoi(text)
	}
	if n < 1 || n > len(s.versions) {
		kvSays(w, http.StatusNotFound)
		return
	}
	meta := map[string]any{"version": n, "created_time": now(), "deletion_time": "", "destroyed": s.destroyed[n]}
	if s.versions[n-1] == nil {
		meta["deletion_time"] = now()
		w.WriteHeader(http.StatusNotFound)
		kvData(w, map[string]any{"data": nil, "metadata": meta})
		return
	}
	kvData(w, map[string]any{"data": s.versions[n-1], "metadata": meta})
}

func (s *kvServer) metadata(w http.ResponseWriter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.versions) == 0 {
		kvSays(w, http.StatusNotFound)
		return
	}
	versions := map[string]any{}
	for i, fields := range s.versions {
		meta := map[string]any{"created_time": now(), "deletion_time": "", "destroyed": s.destroyed[i+1]}
		if fields == nil && !s.destroyed[i+1] {
			meta["deletion_time"] = now()
		}
		versions[strconv.Itoa(i+1)] = meta
	}
	kvData(w, map[string]any{"max_versions": s.keep, "current_version": len(s.versions), "versions": versions, "created_time": now(), "updated_time": now()})
}

func (s *kvServer) destroy(w http.ResponseWriter, body map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.destroyed == nil {
		s.destroyed = map[int]bool{}
	}
	for _, n := range body["versions"].([]any) {
		i := int(n.(float64))
		s.versions[i-1], s.destroyed[i] = nil, true
	}
	w.WriteHeader(http.StatusNoContent)
}

// puts is a person's write, with a field of their own.
func (s *kvServer) puts(t *testing.T, b farm.Bundle) {
	t.Helper()
	full, err := encode.ChainPEM(b)
	must(t, err)
	fields := map[string]any{"certificate": string(full), "key": string(b.Key.Reveal()), "owner": "jane"}
	if s.kv == 1 {
		s.versions = nil
	}
	s.versions = append(s.versions, fields)
}

func (s *kvServer) newest() map[string]any { return s.versions[len(s.versions)-1] }
