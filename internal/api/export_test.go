package api_test

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/api"
	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/audit"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
)

// Three sites of which www alone has what may be handed out: blog is not proven yet,
// and each node of own has a key of its own.
const exportYAML = `farm: shop
dns:
  ours: {provider: builtin, options: {zone: acme.example.net, servers: [{host: ns1.acme.example.net, addresses: [192.0.2.10]}]}}
issuers:
  ca: {acme: https://127.0.0.1:1/dir}
nodes:
  here: {local: true}
sites:
  www:
    tags: [web]
    names: [www.example.com, "*.example.net"]
    validation: {method: dns-01, dns: ours}
    targets:
      - {kind: files, on: here, options: {pem: /tmp/certfarm-test/www.pem}}
  blog:
    tags: [web]
    names: [blog.example.com]
    targets:
      - {kind: files, on: here, options: {pem: /tmp/certfarm-test/blog.pem}}
  own:
    tags: [web]
    strategy: per-node
    names: [own.example.com]
    targets:
      - {kind: files, on: here, options: {pem: /tmp/certfarm-test/own.pem}}
`

// put stores a version with an ECDSA and an RSA leaf, sealed as an order does it.
func (d door) put(t *testing.T, v farm.Version) farm.Version {
	t.Helper()
	var keys []crypto.Signer
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	keys = append(keys, ec, r)
	v.Farm, v.Created = "shop", time.Now()
	err = d.store.Update(t.Context(), func(tx *store.Tx) error {
		for i, key := range keys {
			text, leaf := selfSigned(t, key, v.Names)
			id := v.ID + string(rune('a'+i))
			sealed, err := d.keys.Seal(secret.RecordID("shop", "key", id), text)
			if err != nil {
				return err
			}
			leaf.Key = farm.KeyRef{Sealed: id}
			if err := tx.PutSealed(t.Context(), "shop", "key", id, sealed); err != nil {
				return err
			}
			v.Leaves = append(v.Leaves, leaf)
		}
		return tx.PutVersion(t.Context(), v)
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func selfSigned(t *testing.T, key crypto.Signer, names []string) (farm.Secret, farm.Leaf) {
	t.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(7), DNSNames: names, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := encode.Facts(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return farm.NewSecret(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text})), leaf
}

// exporting is a farm of which www is to be had, and a puller's token.
func exporting(t *testing.T) (d door, www farm.Version, token string) {
	t.Helper()
	d = open(t, true, "everything "+strings.Repeat("e", 32)+"\n")
	local := d.client(t, client.Config{Socket: d.config.Socket, Actor: "alice"})
	if _, err := local.Apply(t.Context(), "shop", []byte(exportYAML), "farm.yaml", 0); err != nil {
		t.Fatal(err)
	}
	www = d.put(t, farm.Version{ID: "v1", Site: "www", Names: []string{"www.example.com", "*.example.net"}, Proven: time.Now()})
	d.put(t, farm.Version{ID: "v2", Site: "www", Names: []string{"www.example.com", "*.example.net"}, Proven: time.Now(), State: farm.VersionRevoked})
	d.put(t, farm.Version{ID: "v3", Site: "blog", Names: []string{"blog.example.com"}})
	k, err := local.CreateToken(t.Context(), api.TokenAsk{Name: "lb", Grants: []store.Grant{{Role: string(access.Puller), Farm: "shop", Tags: []string{"web"}}}})
	if err != nil {
		t.Fatal(err)
	}
	d.config.Token = farm.NewSecret([]byte(k.Token))
	d.Client = d.client(t, d.config)
	return d, www, k.Token
}

func TestExport(t *testing.T) {
	d, www, token := exporting(t)
	ctx := t.Context()
	e, err := d.Export(ctx, "shop", "www", client.ExportAsk{Format: api.FormatPEM})
	if err != nil {
		t.Fatal(err)
	}
	if leaf, err := encode.Pair(e.File.Reveal(), e.File.Reveal()); err != nil || farm.Fingerprint(leaf.Raw) != www.Leaves[0].Fingerprint || e.Leaf != www.Leaves[0].Fingerprint {
		t.Errorf("PEM: %v", err)
	}
	if again, err := d.Export(ctx, "shop", "www", client.ExportAsk{Format: api.FormatPEM, Has: e.ETag}); err != nil || !again.File.IsZero() {
		t.Errorf("what is there already is handed out again: %v", err)
	}
	for _, password := range []farm.Secret{{}, farm.NewSecret([]byte("correct-horse"))} {
		e, err := d.Export(ctx, "shop", "www", client.ExportAsk{Format: api.FormatPFX, KeyType: "rsa2048", Password: password})
		if err != nil || e.Password.IsZero() == password.IsZero() {
			t.Fatalf("PFX: %v", err)
		}
		if password.IsZero() {
			password = e.Password
		}
		if b, err := encode.OpenPFX(e.File.Reveal(), password); err != nil || b.Leaf != www.Leaves[1].Fingerprint {
			t.Errorf("PFX: %v", err)
		}
		if e, err = d.Export(ctx, "shop", "www", client.ExportAsk{Format: api.FormatJKS, Alias: "tomcat", Password: password}); err != nil {
			t.Fatal(err)
		}
		if _, err := encode.OpenJKS(e.File.Reveal(), password, "tomcat"); err != nil {
			t.Errorf("JKS: %v", err)
		}
	}
	for name, ask := range map[string]client.ExportAsk{
		"blog": {}, "own": {}, "own@here": {}, "www": {KeyType: "rsa4096"},
	} {
		if _, err := d.Export(ctx, "shop", name, ask); !isRefusal(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := d.Export(ctx, "shop", "www", client.ExportAsk{Password: farm.NewSecret([]byte("pass word"))}); err == nil || strings.Contains(err.Error(), "pass word") {
		t.Errorf("a password with a space: %v", err)
	}
	if _, err := d.Sites(ctx, "shop"); err == nil {
		t.Error("a puller sees the sites")
	}
	heard := d.audited(t, "export")
	for _, l := range heard {
		if l.Actor != "lb" || l.Object != "site www" || l.After == "" || l.Result != audit.Done {
			t.Errorf("%+v", l)
		}
	}
	if len(heard) != 5 {
		t.Errorf("%d lines in the audit for 5 keys that left", len(heard))
	}
	if text := d.everything(t); strings.Contains(text, token) || strings.Contains(text, "correct-horse") {
		t.Error("the audit holds a secret")
	}
}

func isRefusal(err error) bool {
	_, ok := errors.AsType[*controller.Refusal](err)
	return ok
}

// audited are the lines of an action.
func (d door) audited(t *testing.T, action string) (all []audit.Entry) {
	t.Helper()
	lines, err := audit.Book{Store: d.store}.Lines(t.Context(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		var e audit.Entry
		if err := json.Unmarshal(l.Entry, &e); err != nil {
			t.Fatal(err)
		}
		if e.Action == action {
			all = append(all, e)
		}
	}
	return all
}

// everything is the audit as text.
func (d door) everything(t *testing.T) string {
	t.Helper()
	lines, err := audit.Book{Store: d.store}.Lines(t.Context(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, l := range lines {
		b.Write(l.Entry)
	}
	return b.String()
}

// TestPull asks as Caddy 2.6 and newer do: GET with the name in the query, the token as
// the password of a URL.
func TestPull(t *testing.T) {
	d, www, token := exporting(t)
	ask := func(query, as string) (status int, body []byte) {
		t.Helper()
		u := strings.Replace(d.config.URL, "http://", "http://caddy:"+as+"@", 1) + "/v1/farms/shop/certificates?" + query
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if body, err = io.ReadAll(res.Body); err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, body
	}
	for query, leaf := range map[string]int{
		"server_name=www.example.com":                               0,
		"server_name=WWW.example.com.&signature_schemes=804,403":    0,
		"server_name=a.example.net&signature_schemes=804,401":       1,
		"server_name=a.b.example.net":                               -1,
		"server_name=example.net":                                   -1,
		"server_name=www.example.com&signature_schemes=807":         -1,
		"server_name=blog.example.com":                              -1,
		"server_name=own.example.com":                               -1,
		"server_name=other.example&cipher_suites=1301&local_ip=::1": -1,
	} {
		status, body := ask(query, token)
		if leaf < 0 {
			if status != http.StatusNoContent || len(body) > 0 {
				t.Errorf("%s: %d %s", query, status, body)
			}
			continue
		}
		pair, err := tls.X509KeyPair(body, body)
		if err != nil || farm.Fingerprint(pair.Certificate[0]) != www.Leaves[leaf].Fingerprint {
			t.Errorf("%s: %d %v", query, status, err)
		}
	}
	if status, _ := ask("server_name=www.example.com", strings.Repeat("x", 32)); status != http.StatusUnauthorized {
		t.Errorf("a wrong token: %d", status)
	}
	if heard := d.audited(t, "pull"); len(heard) != 2 { // one a certificate and hour
		t.Errorf("%d lines in the audit: %+v", len(heard), heard)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.config.URL+"/v1/farms/shop/plan", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("x", strings.Repeat("e", 32))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if res.Body.Close(); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("a password that a browser may remember changes something: %d", res.StatusCode)
	}
}

// TestCaddyPulls has a real Caddy serve what it pulls.
func TestCaddyPulls(t *testing.T) {
	caddy, err := exec.LookPath("caddy")
	if err != nil {
		t.Skip("there is no caddy here")
	}
	d, www, token := exporting(t)
	at := freePort(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "Caddyfile")
	text := "{\n\tadmin off\n\tauto_https off\n\tstorage file_system " + dir + "\n}\nhttps://www.example.com:" + at + " {\n\ttls {\n\t\tget_certificate http " +
		strings.Replace(d.config.URL, "http://", "http://caddy:{$CERTFARM_TOKEN}@", 1) + "/v1/farms/shop/certificates\n\t}\n\trespond hello\n}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, caddy, "run", "--config", file, "--adapter", "caddyfile")
	cmd.Env = append(os.Environ(), "CERTFARM_TOKEN="+token, "HOME="+dir)
	cmd.WaitDelay = 5 * time.Second
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said, served := "", ""
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		said += lines.Text() + "\n"
		if !strings.Contains(lines.Text(), "serving initial configuration") {
			continue
		}
		go func() { _, _ = io.Copy(io.Discard, stderr) }()                                                               // ends with Wait; a full pipe would stop it
		c, err := tls.Dial("tcp", "127.0.0.1:"+at, &tls.Config{ServerName: "www.example.com", InsecureSkipVerify: true}) //nolint:gosec // which certificate it is, is the question
		if err != nil {
			t.Error(err)
			break
		}
		served = farm.Fingerprint(c.ConnectionState().PeerCertificates[0].Raw)
		_ = c.Close()
		break
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // killed
	if served != www.Leaves[0].Fingerprint {
		t.Errorf("caddy serves %q, want %q\n%s", served, www.Leaves[0].Fingerprint, said)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
