package cloud

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/outbound"
)

func kv(t *testing.T, s *kvServer, over wire, change ...func(*vault)) *records {
	t.Helper()
	o := vault{
		Address: "https://vault.example.org:8200", Mount: "secret", Path: "tls/shop", KV: s.kv, Namespace: s.namespace, RoleMount: "approle", Undo: true,
		Fields: vaultFields{Certificate: "certificate", Chain: "chain", Key: "key"},
	}
	for _, c := range change {
		c(&o)
	}
	setup := deploy.Setup{Secrets: map[string]farm.Secret{"token": farm.NewSecret([]byte(vaultToken + "\n"))}}
	if o.RoleID != "" {
		setup.Secrets = map[string]farm.Secret{"secret_id": farm.NewSecret([]byte(secretID))}
	}
	d, err := newVault(o, setup, outbound.NewClient(over))
	must(t, err)
	return remember(d)
}

func TestVault(t *testing.T) {
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprintf("kv%d", version), func(t *testing.T) {
			deploytest.Run(t, func(t *testing.T) deploytest.Bench {
				s := newKVServer(version)
				over := newWire(handler{s})
				b := deploytest.Bench{
					Host: over.faulty, Target: deploytest.Target{Deployer: kv(t, s, over)},
					Empty: func(deploytest.T) { s.versions = nil },
				}
				if version == 2 { // version 1 has nothing to go back to what is not from here
					b.Plain = func(_ deploytest.T, _ deploytest.Target, b farm.Bundle) { s.puts(t, b) }
				}
				return b
			})
		})
	}
}

func TestVaultFields(t *testing.T) {
	s := newKVServer(2)
	over := newWire(handler{s})
	b, next := deploytest.NewBundle(t, farm.EC256), deploytest.NewBundle(t, farm.RSA2048)
	s.puts(t, b)
	d := kv(t, s, over)
	r := install(t, d, next)
	f := s.newest()
	if f["owner"] != "jane" || strings.Count(f["certificate"].(string), "BEGIN") != 1 || strings.Count(f["chain"].(string), "BEGIN") != 1 {
		t.Errorf("got %v", f)
	}
	if f["certificate"].(string)+f["chain"].(string) != string(next.Chain) || f["key"] != string(next.Key.Reveal()) {
		t.Error("the fields are not those of the bundle")
	}
	must(t, d.Restore(t.Context(), []deploy.Receipt{r}))
	holds(t, d, b.Leaf)
	if s.newest()["owner"] != "jane" {
		t.Error("a field of somebody else is gone")
	}
	d = kv(t, s, over, func(o *vault) { o.Fields = vaultFields{Fullchain: "tls.crt", Key: "tls.key"} })
	holds(t, d)
	install(t, d, next)
	if s.newest()["tls.crt"] != string(next.Chain) {
		t.Errorf("got %v", s.newest())
	}
	s.newest()["tls.key"] = string(b.Key.Reveal())
	if in, err := d.Inspect(t.Context()); err != nil || !in.Mismatch || len(in.Leaves) > 0 {
		t.Errorf("got %+v, %v", in, err)
	}
}

func TestVaultCheckAndSet(t *testing.T) {
	s := newKVServer(2)
	d := kv(t, s, newWire(handler{s}))
	old := deploytest.NewBundle(t, farm.EC256)
	install(t, d, old)
	r, err := d.Stage(t.Context(), stageOf(deploytest.NewBundle(t, farm.EC256)))
	must(t, err)
	person := deploytest.NewBundle(t, farm.EC256)
	s.before = func() { // between our look and our write
		s.before = nil
		s.puts(t, person)
	}
	err = d.Activate(t.Context(), []deploy.Receipt{r})
	if says(t, err, []string{"400", "somebody else"}); !errors.Is(err, errForeign) {
		t.Errorf("got %v", err)
	}
	holds(t, d, person.Leaf)
}

func TestVaultWayBack(t *testing.T) {
	for name, c := range map[string]struct {
		kv   int
		keep int
		word string
	}{"version 1": {1, 0, "keeps no earlier versions"}, "one version": {2, 1, "max_versions"}} {
		t.Run(name, func(t *testing.T) {
			s := newKVServer(c.kv)
			s.keep = c.keep
			over := newWire(handler{s})
			person, next := deploytest.NewBundle(t, farm.EC256), deploytest.NewBundle(t, farm.EC256)
			s.puts(t, person)
			_, err := kv(t, s, over).Stage(t.Context(), stageOf(next))
			says(t, err, []string{c.word, "undo: false"})
			r, err := kv(t, s, over, func(o *vault) { o.Undo = false }).Stage(t.Context(), stageOf(next))
			must(t, err)
			if !r.NoUndo {
				t.Error("it does not say that there is no way back")
			}
		})
	}
	s := newKVServer(2)
	s.versions = []map[string]any{{"x": "y"}, nil} // the newest is deleted
	s.may = []string{"read", "update"}
	d := kv(t, s, newWire(handler{s}))
	holds(t, d)
	b := deploytest.NewBundle(t, farm.EC256)
	install(t, d, b)
	holds(t, d, b.Leaf)
}

func TestVaultAppRole(t *testing.T) {
	s := newKVServer(2)
	s.namespace = "farms/lab"
	over := newWire(handler{s})
	role := func(o *vault) { o.RoleID = vaultRole }
	d := kv(t, s, over, role)
	b := deploytest.NewBundle(t, farm.EC256)
	install(t, d, b)
	holds(t, d, b.Leaf)
	if s.logins != 1 {
		t.Errorf("%d sign-ins", s.logins)
	}
	d = kv(t, s, over, func(o *vault) { o.RoleID = "another" })
	_, err := d.Inspect(t.Context())
	says(t, err, []string{"AppRole", "400", "invalid role"}, farm.NewSecret([]byte(secretID)))
	t.Setenv("VAULT_TOKEN", "of-another-program")
	t.Setenv("VAULT_NAMESPACE", "of-another-program")
	t.Setenv("VAULT_HEADERS", `{"X-Other": "program"}`)
	s.answer = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("X-Other") != "" {
			t.Error("headers come from the environment")
		}
		return false
	}
	holds(t, kv(t, s, over, role), b.Leaf)
}

func TestVaultRefusals(t *testing.T) {
	canary := farm.NewSecret([]byte(vaultToken))
	for name, c := range map[string]struct {
		status int
		said   string
		words  []string
	}{
		"no right":    {http.StatusForbidden, "permission denied", []string{"403", "permission denied", "policy"}},
		"stale":       {http.StatusPreconditionFailed, "required index state not present", []string{"412", "tried again"}},
		"sealed":      {http.StatusServiceUnavailable, "Vault is sealed", []string{"503", "unseal"}},
		"quota":       {http.StatusTooManyRequests, "request path: rate limit quota exceeded", []string{"429"}},
		"quotes us":   {http.StatusBadRequest, "bad token " + vaultToken, []string{"400", "[secret]"}},
		"no such":     {http.StatusNotFound, "no handler for route", []string{"404", "mount"}},
		"not ours":    {http.StatusBadGateway, "", []string{"502"}},
		"sends us on": {http.StatusTemporaryRedirect, "", []string{"redirect"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newKVServer(2)
			d := kv(t, s, newWire(handler{s}))
			r, err := d.Stage(t.Context(), stageOf(deploytest.NewBundle(t, farm.EC256)))
			must(t, err)
			s.answer = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodGet {
					return false
				}
				w.Header().Set("Location", "https://elsewhere.example.net/")
				if c.said == "" {
					w.WriteHeader(c.status)
					fmt.Fprint(w, "<html>"+vaultToken)
					return true
				}
				kvSays(w, c.status, c.said)
				return true
			}
			err = d.Activate(t.Context(), []deploy.Receipt{r})
			says(t, err, c.words, canary)
			if errors.Is(err, host.ErrUnreachable) {
				t.Error("an answer counts as silence")
			}
			s.answer = nil
			holds(t, d)
		})
	}
}

func TestVaultIsAskedBeforehand(t *testing.T) {
	s := newKVServer(2)
	over := newWire(handler{s})
	b := deploytest.NewBundle(t, farm.EC256)
	for _, c := range []struct {
		may    []string
		change func(*vault)
		words  []string
	}{
		{[]string{"read"}, func(*vault) {}, []string{"may not create secret/data/tls/shop", "capabilities"}},
		{s.may, func(o *vault) { o.KV = 1 }, []string{"say `kv: 2`"}},
	} {
		s.may = c.may
		_, err := kv(t, s, over, c.change).Stage(t.Context(), stageOf(b))
		says(t, err, c.words)
		s.may = []string{"create", "read", "update"}
	}
	s.mountsShown = false
	s.answer = func(w http.ResponseWriter, r *http.Request) bool { // a token that may not ask
		if strings.HasPrefix(r.URL.Path, "/v1/sys/") {
			kvSays(w, http.StatusForbidden, "permission denied")
			return true
		}
		return false
	}
	install(t, kv(t, s, over), b)
}

func TestVaultOverTLS(t *testing.T) {
	s := newKVServer(2)
	server := httptest.NewTLSServer(s)
	defer server.Close()
	at := func(ca string) deploy.Deployer {
		options, err := json.Marshal(map[string]any{"address": server.URL, "path": "tls/shop", "ca": ca})
		must(t, err)
		d, err := deploy.NewKinds(All()...).Open("vault", options, deploy.Setup{Secrets: map[string]farm.Secret{"token": farm.NewSecret([]byte(vaultToken))}})
		must(t, err)
		return remember(d)
	}
	if _, err := at("").Inspect(t.Context()); !errors.Is(err, host.ErrUnreachable) {
		t.Errorf("a server that nobody vouches for was taken: %v", err)
	}
	b := deploytest.NewBundle(t, farm.EC256)
	d := at(caOf(server))
	install(t, d, b)
	holds(t, d, b.Leaf)
}

func TestVaultOptions(t *testing.T) {
	badOptions(t, "vault", map[string]string{
		`{}`: "address",
		`{"address": "http://vault.example.org:8200", "path": "a"}`:                            "address",
		`{"address": "http://169.254.169.254", "path": "a"}`:                                   "address",
		`{"address": "https://u:p@vault.example.org", "path": "a"}`:                            "address",
		`{"address": "https://vault.example.org"}`:                                             "path",
		`{"address": "https://vault.example.org", "path": "/a"}`:                               "path",
		`{"address": "https://vault.example.org", "path": "a/../b"}`:                           "path",
		`{"address": "https://vault.example.org", "path": "a?b"}`:                              "path",
		`{"address": "https://vault.example.org", "path": "a", "mount": "x/"}`:                 "mount",
		`{"address": "https://vault.example.org", "path": "a", "kv": 3}`:                       "kv",
		`{"address": "https://vault.example.org", "path": "a", "fields": {"certificate": ""}}`: "fields",
		`{"address": "https://vault.example.org", "path": "a", "fields": {"key": "chain"}}`:    "fields",
		`{"address": "https://vault.example.org", "path": "a", "ca": "/etc/ca.pem"}`:           "ca",
		`{"address": "https://vault.example.org", "path": "a", "lag": "1000h"}`:                "lag",
	})
	if _, err := Vault().Check([]byte(`{"address": "http://127.0.0.1:8200", "path": "a"}`)); err != nil {
		t.Error(err)
	}
	if final := vault.NoUndo(vault{Undo: true}); final {
		t.Error("it would stand in the last wave")
	}
	facts, err := Vault().Check([]byte(`{"address": "https://Vault.example.org:8200/", "path": "a/b", "namespace": "n/"}`))
	must(t, err)
	if facts.Identity != "vault https://vault.example.org:8200 /n/secret/a/b" {
		t.Errorf("got %+v", facts)
	}
	kinds := deploy.NewKinds(All()...)
	for options, secrets := range map[string]map[string]farm.Secret{
		`{"address": "https://vault.example.org", "path": "a"}`:                 {},
		`{"address": "https://vault.example.org", "path": "a", "role_id": "r"}`: {"token": farm.NewSecret([]byte("t"))},
	} {
		if _, err := kinds.Open("vault", []byte(options), deploy.Setup{Secrets: maps.Clone(secrets)}); err == nil {
			t.Errorf("%s was opened with %v", options, secrets)
		}
	}
}
