package controller_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/api"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
)

// What does not fit is refused before anything is kept; what fits is rolled out,
// and is renewed when its time comes, not at once.
func TestImportTakesWhatFits(t *testing.T) {
	t.Parallel()
	s := newStranger(t)
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 2}, edit: s.trusted})
	long := time.Now().AddDate(0, 3, 0)
	own, another := s.issue(long, b.Layout.Names...), s.issue(long, b.Layout.Names...)
	take := func(chain, key []byte) error {
		_, err := b.Controller.Import(b.ctx, b.Farm, b.Site, chain, farm.NewSecret(key), "somebody")
		return err
	}
	for what, err := range map[string]error{
		"another key": take(own.chain, another.key),
		"one name":    take(s.issue(long, "shop.test").chain, own.key),
		"expired":     take(s.issue(time.Now().Add(-time.Minute), b.Layout.Names...).chain, own.key),
		"no PEM":      take([]byte("certificate"), own.key),
	} {
		if err == nil {
			t.Errorf("%s: taken", what)
		}
		if err != nil && bytes.Contains([]byte(err.Error()), own.key) {
			t.Errorf("%s: the key is in the error", what)
		}
	}
	refused(t, take(own.chain, another.key), "does not fit")
	b.rests()
	if n := len(b.describe().Versions); n != 1 {
		t.Errorf("%d versions, want the first only", n)
	}
	b.allServe(v1)

	must(t, take(own.chain, own.key))
	b.soak(farm.Done, 2) // another root: it is watched
	b.allServe(own.fingerprint)
	b.look()
	b.rests()
	if d := b.describe(); d.Sync != "in-sync" || d.Health != "healthy" {
		t.Errorf("%s, %s: %v", d.Sync, d.Health, d.Attention)
	}
	b.mustHaveIssued(1)
}

// After the master key has changed everything still opens: what is installed can
// be put back, the account goes on, and a restart finds the new key.
func TestAfterARekeyEverythingOpens(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 2}})
	must(t, b.Controller.SetSecret(b.ctx, b.Farm, "token", farm.NewSecret([]byte("s3cret")), "somebody"))
	before := b.masterKey()
	n, err := b.Controller.Rekey(b.ctx, "somebody")
	if err != nil || n != 3 { // the leaf's key, the account's, the secret
		t.Errorf("%d sealed anew, %v", n, err)
	}
	if slices.Equal(before, b.masterKey()) {
		t.Error("the master key is the same")
	}
	b.restart(func() {})
	got, err := b.Controller.Secret(b.ctx, b.Farm, farm.SecretRef{Secret: "token"})
	if err != nil || string(got.Reveal()) != "s3cret" {
		t.Errorf("the secret does not open: %v", err)
	}
	b.put("web2", selfSigned(t, b.Layout.Names...).both())
	b.look()
	b.comesTo("web2", v1)
	b.ended(farm.Done, 2)
	b.renew()
	b.allServe(b.fingerprint(b.ended(farm.Done, 3).To.ID))
	b.mustHaveIssued(2)
}

func (b *bed) masterKey() []byte {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(b.Layout.Dir, "controller", "master.key"))
	must(b.t, err)
	return text
}

// No secret stands in the log, in the journal, in an answer of the API, in an
// error, or in the database, in whatever dress.
func TestSecretsStayWhereTheyAre(t *testing.T) {
	t.Parallel()
	s := newStranger(t)
	hmac := base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte("canary in the mine. "), 2))
	b := newBed(t, setting{
		layout: lab.Layout{Nodes: 2}, ca: issuetest.Options{EAB: map[string]string{"kid-1": hmac}},
		edit: func(b *bed, text string) string {
			return s.trusted(b, strings.Replace(text, "    contact:", "    eab: {key_id: kid-1, hmac: {secret: binding}}\n    contact:", 1))
		},
	})
	for name, value := range map[string]string{"binding": hmac, "password": "correct horse battery staple"} {
		must(t, b.Controller.SetSecret(b.ctx, b.Farm, name, farm.NewSecret([]byte(value)), "somebody"))
	}
	b.apply()
	b.ended(farm.Done, 1)
	b.set("web2", lab.BadReload) // errors are where secrets get out
	b.renew()
	b.ended(farm.RolledBack, 2)
	own := s.issue(time.Now().AddDate(0, 3, 0), b.Layout.Names...)
	var said strings.Builder
	_, err := b.Controller.Import(b.ctx, b.Farm, b.Site, own.chain, farm.NewSecret(append([]byte("broken "), own.key[40:]...)), "somebody")
	fmt.Fprintf(&said, "%v %+v\n", err, err)
	_, err = b.Controller.Import(b.ctx, b.Farm, b.Site, own.chain, farm.NewSecret(slices.Clone(own.key)), "somebody")
	must(t, err)
	b.until("a third rollout", func(*store.Tx) (bool, error) { return len(b.rollouts()) >= 3, nil })

	secrets := b.secrets()
	if len(secrets) < 8 { // 3 leaves, the account, 2 set, SSH, master
		t.Fatalf("only %d secrets were found", len(secrets))
	}
	fmt.Fprintf(&said, "%v", b.answersOfAll())
	must(t, b.StopController())
	places := map[string][]byte{"the log": []byte(b.log.String()), "answers and errors": []byte(said.String())}
	must(t, filepath.WalkDir(filepath.Join(b.Layout.Dir, "controller"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.Contains(d.Name(), ".db") {
			places[d.Name()], err = os.ReadFile(path)
		}
		return err
	}))
	if len(places) < 3 || len(places["the log"]) == 0 {
		t.Fatalf("not all was found: %d places", len(places))
	}
	for name, value := range secrets {
		for dress, needle := range dresses(value) {
			for where, hay := range places {
				if bytes.Contains(hay, needle) {
					t.Errorf("%s is in %s, as %s", name, where, dress)
				}
			}
		}
	}
}

// secrets are all that the controller knows, by name.
func (b *bed) secrets() map[string][]byte {
	b.t.Helper()
	keys, err := secret.Load(secret.Source{File: filepath.Join(b.Layout.Dir, "controller", "master.key")})
	must(b.t, err)
	all := map[string][]byte{}
	must(b.t, b.store.View(b.ctx, func(tx *store.Tx) error {
		for r, err := range tx.AllSealed(b.ctx) {
			if err != nil {
				return err
			}
			s, err := keys.Open(secret.RecordID(r.Farm, r.Kind, r.Name), r.Sealed)
			if err != nil {
				return err
			}
			all[r.Kind+" "+r.Name] = s.Reveal()
		}
		return nil
	}))
	all["the SSH key"], err = os.ReadFile(b.KeyFile)
	must(b.t, err)
	for line := range bytes.Lines(b.masterKey()) {
		if words := bytes.Fields(line); len(words) > 0 && line[0] != '#' {
			all["the master key"] = words[len(words)-1]
		}
	}
	return all
}

// dresses are the forms that a secret may come in.
func dresses(s []byte) map[string][]byte {
	all := map[string][]byte{}
	wear := func(what string, raw []byte) {
		all[what] = raw
		all[what+", hex"] = []byte(hex.EncodeToString(raw))
		all[what+", HEX"] = []byte(strings.ToUpper(hex.EncodeToString(raw)))
		all[what+", in a URL"] = []byte(url.QueryEscape(string(raw)))
		for shift := range 3 { // base64 of a text that it stands in
			text := base64.StdEncoding.EncodeToString(append(make([]byte, shift), raw...))
			inner := text[4 : len(text)-4]
			all[fmt.Sprintf("%s, base64 %d", what, shift)] = []byte(inner)
			all[fmt.Sprintf("%s, base64url %d", what, shift)] = []byte(strings.NewReplacer("+", "-", "/", "_").Replace(inner))
		}
	}
	block, _ := pem.Decode(s)
	if block == nil {
		wear("it", bytes.TrimSpace(s))
		return all
	}
	body := bytes.Split(bytes.TrimSpace(s), []byte("\n"))
	all["a line of its PEM"] = body[len(body)/2]
	wear("its DER", block.Bytes)
	if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
		if ec, ok := key.(*ecdsa.PrivateKey); ok {
			scalar, err := ec.Bytes()
			if err == nil {
				wear("its scalar", scalar)
				all["its scalar, a number"] = []byte(fmt.Sprint(scalar))
			}
		}
	}
	return all
}

// answersOfAll asks the API whatever can be asked.
func (b *bed) answersOfAll() string {
	b.t.Helper()
	ctx := access.WithCaller(b.ctx, access.Local("somebody"))
	h := api.New(api.Config{Controller: b.Controller})
	var all strings.Builder
	words := map[string]string{"{farm}": b.Farm, "{site}": b.Site, "{node}": "web1", "{rollout}": b.rollouts()[0].ID, "{target}": "shop/nginx@web1"}
	asked := 0
	for _, r := range api.Routes() {
		if r.Method != http.MethodGet || r.ID == "follow-events" || r.Needs == access.KeyExport { // list-events has the same lines; to hand out keys is what that permission is for
			continue
		}
		path := r.Path
		for word, value := range words {
			path = strings.ReplaceAll(path, word, url.PathEscape(value))
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, r.Method, path, nil))
		if w.Code == http.StatusOK {
			asked++
		}
		fmt.Fprintln(&all, path, w.Code, w.Body)
	}
	if asked < 8 {
		b.t.Errorf("only %d questions were answered:\n%s", asked, all.String())
	}
	return all.String()
}
