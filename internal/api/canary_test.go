package api_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io/fs"
	"net/http"
	"net/url"
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
	"github.com/certfarm/certfarm/internal/store"
)

// forms are the ways in which a secret may lie about: as it is, in base64, in
// hexadecimal, in a URL, in JSON, and a key in PEM as its DER.
func forms(secret []byte) [][]byte {
	raw := [][]byte{bytes.TrimSpace(secret)}
	if block, _ := pem.Decode(secret); block != nil {
		raw = append(raw, block.Bytes)
	}
	var all [][]byte
	for _, r := range raw {
		for _, text := range []string{
			string(r), base64.StdEncoding.EncodeToString(r), base64.RawURLEncoding.EncodeToString(r), hex.EncodeToString(r), url.QueryEscape(string(r)),
		} {
			all = append(all, bare([]byte(text)))
		}
	}
	return all
}

// bare takes the line ends away at which PEM may be wrapped in any way, escaped ones
// too.
func bare(text []byte) []byte {
	for _, end := range []string{`\r`, `\n`, "\r", "\n"} {
		text = bytes.ReplaceAll(text, []byte(end), nil)
	}
	return text
}

// A hunt looks for secrets in what others may read.
type hunt map[string][]byte // secrets by what they are

// found lists what lies in a text.
func (h hunt) found(text []byte) (all []string) {
	text = bare(text)
	for what, secret := range h {
		if slices.ContainsFunc(forms(secret), func(form []byte) bool { return bytes.Contains(text, form) }) {
			all = append(all, what)
		}
	}
	return all
}

// TestNoSecretLiesAbout gives the API a secret of every kind, asks every route that
// reads, and looks through the answers, the log, the audit and every file for them.
func TestNoSecretLiesAbout(t *testing.T) {
	d, _, puller := exporting(t)
	local := d.client(t, client.Config{Socket: d.config.Socket, Actor: "alice"})
	h := hunt{"a sealed secret": []byte("canary-secret-7f3a"), "a password": []byte("canary-password-91c2"), "a token": []byte(puller), "an Idempotency-Key": []byte("canary-idempotency-55")}
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
	for name, text := range heard {
		if all := h.found(text); len(all) > 0 {
			t.Errorf("%s holds %v", name, all)
		}
	}
	for what, secret := range h { // the hunt finds what is there
		for _, form := range forms(secret) {
			if planted := slices.Concat([]byte("before "), form[:len(form)/2], []byte("\n"), form[len(form)/2:]); !slices.Contains(h.found(planted), what) {
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
