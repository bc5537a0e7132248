package api_test

import (
	"encoding/json"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/certfarm/certfarm/internal/access/accesstest"
	"github.com/certfarm/certfarm/internal/api"
	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/audit"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/secret/secrettest"
	"github.com/certfarm/certfarm/internal/store"
)

// TestNoSecretLiesAbout gives the API a secret of every kind, asks every route that
// reads, and looks through the answers, the log, the audit and every file for them.
func TestNoSecretLiesAbout(t *testing.T) {
	d, _, puller := exporting(t)
	local := d.client(t, client.Config{Socket: d.config.Socket, Actor: "alice"})
	h := secrettest.Hunt{"a sealed secret": []byte("canary-secret-7f3a"), "a password": []byte("canary-password-91c2"), "a token": []byte(puller), "an Idempotency-Key": []byte("canary-idempotency-55")}
	if err := local.SetSecret(t.Context(), "shop", "deploy", farm.NewSecret(h["a sealed secret"])); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Export(t.Context(), "shop", "www", client.ExportAsk{Format: api.FormatPFX, Password: farm.NewSecret(h["a password"])}); err != nil {
		t.Fatal(err)
	}
	for id, name := range map[string]string{"v1a": "an ECDSA key", "v1b": "an RSA key"} {
		h[name] = d.opened(t, id)
	}
	imported, err := json.Marshal(api.Pair{Chain: "nonsense", Key: h["an RSA key"]})
	if err != nil {
		t.Fatal(err)
	}
	heard := map[string][]byte{}
	for name, a := range map[string]response{
		"a refused import":  d.ask(t, "POST", "/v1/farms/shop/sites/www/import", string(imported), api.KeyHeader, "canary-idempotency-55"),
		"a secret no JSON":  d.ask(t, "PUT", "/v1/farms/shop/secrets/x", `{"value": canary-secret-7f3a}`),
		"a secret no text":  d.ask(t, "PUT", "/v1/farms/shop/secrets/x", `{"value": {"x": "canary-secret-7f3a"}}`),
		"an unknown secret": d.ask(t, "PUT", "/v1/farms/shop/secrets/x", `{"valu": "canary-secret-7f3a"}`),
		"a renewal":         d.ask(t, "POST", "/v1/farms/shop/sites/www/renew", "", api.KeyHeader, "canary-idempotency-55"),
		"a wrong token":     d.ask(t, "GET", "/v1/farms", "", "Authorization", "Bearer canary-secret-7f3a"),
	} {
		heard[name] = []byte(a.body)
	}
	for _, r := range api.Routes() {
		if r.Method == http.MethodGet && r.Needs != api.KeyExport && r.ID != "follow-events" {
			a := d.ask(t, "GET", r.URL("shop", accesstest.Words()[string(r.Object)]), "")
			heard["answer of "+r.ID] = []byte(a.body)
		}
	}
	d.files(t, heard)
	if lines, err := (audit.Book{Store: d.store}).Lines(t.Context(), 0, 0); err == nil {
		heard["audit"], _ = json.Marshal(lines)
	}
	heard["log"] = d.log.Bytes()
	if len(heard) < 30 || len(heard["log"]) == 0 {
		t.Errorf("only %d texts were looked through, %d bytes of log", len(heard), len(heard["log"]))
	}
	h.Check(t, heard)
	for what, secret := range h { // the hunt finds every form
		for _, form := range secrettest.Forms(secret) {
			if planted := slices.Concat([]byte("before "), form[:len(form)/2], []byte("\n"), form[len(form)/2:]); !slices.Contains(h.Found(planted), what) {
				t.Errorf("%s is not found where it is", what)
			}
		}
	}
}

// opened is a key of the farm as it was sealed.
func (d door) opened(t *testing.T, id string) []byte {
	t.Helper()
	var sealed []byte
	err := d.store.View(t.Context(), func(tx *store.Tx) (err error) {
		sealed, err = tx.Sealed(t.Context(), "shop", "key", id)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	key, err := d.keys.Open(secret.RecordID("shop", "key", id), sealed)
	if err != nil {
		t.Fatal(err)
	}
	return key.Reveal()
}

// files reads every file of the state folder, the database among them, but for the
// token file, which the test itself wrote.
func (d door) files(t *testing.T, into map[string][]byte) {
	t.Helper()
	err := filepath.WalkDir(d.state, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || e.Name() == "tokens" {
			return err
		}
		into["file "+e.Name()], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
