package controller_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/adopt"
	"github.com/certfarm/certfarm/internal/config"
	"github.com/certfarm/certfarm/internal/controller"
	kinds "github.com/certfarm/certfarm/internal/deploy/target"
)

// signer makes certificates for the servers that are adopted.
type signer struct {
	key  crypto.Signer
	cert *x509.Certificate
}

func newSigner(t *testing.T) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "adopt root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return signer{key, cert}
}

// pair writes a certificate and its key; one file where both names are the same.
func (s signer) pair(t *testing.T, chain, key string, of crypto.Signer, names ...string) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, s.cert, of.Public(), s.key)
	must(t, err)
	var cert, private bytes.Buffer
	for _, d := range [][]byte{der, s.cert.Raw} {
		must(t, pem.Encode(&cert, &pem.Block{Type: "CERTIFICATE", Bytes: d}))
	}
	text, err := x509.MarshalPKCS8PrivateKey(of)
	must(t, err)
	must(t, pem.Encode(&private, &pem.Block{Type: "PRIVATE KEY", Bytes: text}))
	if chain == key {
		must(t, os.WriteFile(chain, slices.Concat(cert.Bytes(), private.Bytes()), 0o600))
		return
	}
	must(t, os.WriteFile(chain, cert.Bytes(), 0o644))
	must(t, os.WriteFile(key, private.Bytes(), 0o600))
}

func ecKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

// freePort is a port of loopback that nobody has at the moment.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	must(t, err)
	return port
}

// serve starts a server in the foreground, and waits until it answers at a port.
func serve(t *testing.T, port string, argv ...string) {
	t.Helper()
	if _, err := exec.LookPath(argv[0]); err != nil {
		t.Skip(argv[0] + " is not installed")
	}
	var out bytes.Buffer
	c := exec.Command(argv[0], argv[1:]...)
	c.Stdout, c.Stderr = &out, &out
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	must(t, c.Start())
	ended := make(chan struct{})
	go func() {
		_ = c.Wait() // an error: it is killed
		close(ended)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // it may have ended
		<-ended
	})
	for deadline := time.Now().Add(30 * time.Second); ; {
		conn, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-ended:
			t.Fatalf("%v ended: %s", argv, out.String())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v does not answer", argv)
		}
	}
}

const adoptFarm = `farm: adopted
issuers:
  ca: {acme: https://ca.example.org/directory}
nodes:
  web1: {local: true}
`

// adopted asks without a controller, and puts the lines into the farm.yaml.
func adopted(t *testing.T, text string, ask controller.AdoptAsk) (adopt.Report, config.Parsed) {
	t.Helper()
	c, lines := controller.Real(nil, nil, nil)
	t.Cleanup(func() { _ = lines.Close() })
	r, err := controller.New(c).AdoptFrom(t.Context(), []byte(text), "farm.yaml", "web1", ask)
	must(t, err)
	whole, ok := adopt.Insert(text, r.YAML)
	if !ok || r.YAML == "" {
		t.Fatalf("nothing to insert:\n%s\n%q", r.YAML, r.Notes)
	}
	p, err := config.Parse([]byte(whole), "farm.yaml", controller.Vocabulary(kinds.All(), true))
	if err != nil {
		t.Fatalf("%v\n%s", err, whole)
	}
	return r, p
}

// lines checks that a fragment has each of the lines.
func lines(t *testing.T, r adopt.Report, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(r.YAML, w) {
			t.Errorf("%q is missing in\n%s\nnotes %q", w, r.YAML, r.Notes)
		}
	}
}

func TestAdoptNginx(t *testing.T) {
	dir, ca, port := t.TempDir(), newSigner(t), freePort(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	ca.pair(t, file("shop.pem"), file("shop.key"), ecKey(t), "shop.example.com", "www.shop.example.com")
	ca.pair(t, file("rsa.pem"), file("rsa.key"), rsaKey, "shop.example.com", "www.shop.example.com")
	ca.pair(t, file("late.pem"), file("late.pem"), ecKey(t), "late.example.com")
	must(t, os.WriteFile(file("sites.conf"), fmt.Appendf(nil, `
server { listen 127.0.0.1:%[2]s ssl; server_name shop.example.com other.example.com;
  ssl_certificate %[1]s/shop.pem; ssl_certificate_key "%[1]s/shop.key"; # the first pair;
  ssl_certificate %[1]s/rsa.pem; ssl_certificate_key '%[1]s/rsa.key'; }
server { listen 127.0.0.1:%[2]s ssl; server_name late.example.com; ssl_certificate %[1]s/late.pem; ssl_certificate_key %[1]s/late.pem; }
`, dir, port), 0o600))
	var temp strings.Builder
	for _, of := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temp, "%s_temp_path %s; ", of, file(of))
	}
	must(t, os.WriteFile(file("nginx.conf"), fmt.Appendf(nil,
		"pid %s; error_log stderr; events {}\nhttp { access_log off; %s include sites.c*f; }\n", file("pid"), temp.String()), 0o600))
	serve(t, port, "nginx", "-c", file("nginx.conf"), "-g", "daemon off;")
	ca.pair(t, file("late.pem"), file("late.pem"), ecKey(t), "late.example.com") // and no reload
	r, p := adopted(t, adoptFarm, controller.AdoptAsk{Server: "nginx", Config: file("nginx.conf")})
	lines(t, r, "names: [shop.example.com, www.shop.example.com]", "keys: [ec256, rsa2048]", "chain: "+file("shop.pem"),
		"more: [{keys: rsa2048, chain: "+file("rsa.pem")+", key: "+file("rsa.key")+"}]", "port: "+port, "pem: "+file("late.pem"),
		"other.example.com, too, which the certificate does not have", "serves another certificate", "test: [nginx, -c, "+file("nginx.conf")+", -t]")
	if len(p.Farm.Sites) != 2 || len(r.Next) == 0 {
		t.Errorf("%d sites, next %q", len(p.Farm.Sites), r.Next)
	}
	for _, f := range r.Places {
		want := map[string]string{"shop.example.com": adopt.Served, "late.example.com": adopt.Other}
		for _, s := range f.Sights {
			if v := want[s.Endpoint.SNI]; v != "" && s.Verdict != v {
				t.Errorf("%+v: want %s", s, v)
			}
		}
		if len(f.Sights) == 0 || f.Leaves[0].Fit != adopt.Fits {
			t.Errorf("got %+v", f)
		}
	}
	// The processes say it, too; what else runs on this machine does not matter here.
	all, _ := adopted(t, adoptFarm, controller.AdoptAsk{})
	if !slices.ContainsFunc(all.Places, func(f adopt.Spot) bool { return f.Pairs[0].Chain == file("shop.pem") }) {
		t.Errorf("the running nginx was not found: %+v %q", all.Servers, all.Notes)
	}
	// What is in farm.yaml already is left out.
	whole, _ := adopt.Insert(adoptFarm, r.YAML)
	again, err := controller.New(func() controller.Config { c, _ := controller.Real(nil, nil, nil); return c }()).AdoptFrom(t.Context(), []byte(whole), "farm.yaml", "web1", controller.AdoptAsk{Server: "nginx", Config: file("nginx.conf")})
	must(t, err)
	if again.YAML != "" || !strings.Contains(strings.Join(again.Notes, "\n"), "belongs to target") {
		t.Errorf("got %q, %q", again.YAML, again.Notes)
	}
}

func TestAdoptApache(t *testing.T) {
	dir, ca, port := t.TempDir(), newSigner(t), freePort(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.MkdirAll(file("sites"), 0o755))
	must(t, os.MkdirAll(file("live"), 0o755))
	must(t, os.MkdirAll(file("letsencrypt/archive/a"), 0o755))
	ca.pair(t, file("letsencrypt/archive/a/fullchain1.pem"), file("live/a.key"), ecKey(t), "a.example.com", "www.a.example.com")
	must(t, os.Symlink(file("letsencrypt/archive/a/fullchain1.pem"), file("live/a.pem")))
	var modules strings.Builder
	for _, m := range []string{"mpm_event", "authz_core", "ssl", "socache_shmcb"} {
		path := "/usr/lib/apache2/modules/mod_" + m + ".so"
		if _, err := os.Stat(path); err != nil {
			t.Skip("Apache's modules are not where Debian has them")
		}
		fmt.Fprintf(&modules, "LoadModule %s_module %s\n", m, path)
	}
	must(t, os.WriteFile(file("httpd.conf"), fmt.Appendf(nil, `ServerRoot %[1]s
ServerName localhost
PidFile %[1]s/pid
DefaultRuntimeDir %[1]s
Mutex file:%[1]s default
ErrorLog /dev/stderr
%[2]sDefine TLS "%[1]s/live"
Listen 127.0.0.1:%[3]s
IncludeOptional sites/*.conf
`, dir, modules.String(), port), 0o600))
	must(t, os.WriteFile(file("sites/a.conf"), fmt.Appendf(nil, `<IfModule mod_ssl.c>
<VirtualHost 127.0.0.1:%s>
  ServerName a.example.com
  ServerAlias www.a.example.com \
     more.a.example.com
  SSLEngine on
  SSLCertificateFile "${TLS}/a.pem"
  SSLCertificateKeyFile ${TLS}/a.key
</VirtualHost>
</IfModule>
<IfModule !ssl_module>
  Include nowhere/*.conf
</IfModule>
`, port), 0o600))
	serve(t, port, "apache2", "-f", file("httpd.conf"), "-D", "FOREGROUND")
	r, p := adopted(t, adoptFarm, controller.AdoptAsk{Server: "apache", Config: file("httpd.conf")})
	lines(t, r, "kind: apache", "names: [a.example.com, www.a.example.com]", "chain: "+file("live/a.pem"), "key: "+file("live/a.key"),
		"also managed by certbot", "sni: www.a.example.com")
	if len(p.Farm.Sites) != 1 || len(p.Farm.Sites[0].Targets[0].Endpoints) != 2 {
		t.Errorf("got %+v", p.Farm.Sites)
	}
}

func TestAdoptHAProxyAndLighttpd(t *testing.T) {
	dir, ca, port, other := t.TempDir(), newSigner(t), freePort(t), freePort(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.MkdirAll(file("certs"), 0o755))
	ca.pair(t, file("certs/one.pem"), file("certs/one.pem"), ecKey(t), "one.example.com")
	ca.pair(t, file("certs/two.pem"), file("certs/two.pem"), ecKey(t), "*.two.example.com", "two.example.com")
	must(t, os.WriteFile(file("haproxy.cfg"), fmt.Appendf(nil, `global
    stats socket %[1]s/admin.sock mode 600 level admin
defaults
    mode http
    timeout client 5s
    timeout connect 5s
    timeout server 5s
frontend web # ssl crt /nothing
    bind 127.0.0.1:%[2]s ssl crt "%[1]s/certs/"
    http-request return status 200
`, dir, port), 0o600))
	serve(t, port, "haproxy", "-db", "-f", file("haproxy.cfg"))
	dns := strings.Replace(adoptFarm, "nodes:", "dns:\n  zone: {provider: exec, options: {command: x}}\nnodes:", 1)
	r, p := adopted(t, dns, controller.AdoptAsk{Server: "haproxy", Config: file("haproxy.cfg")})
	lines(t, r, "kind: haproxy", "pem: "+file("certs/one.pem"), `names: [two.example.com, "*.two.example.com"]`, "validation: {method: dns-01, dns: zone}", "socket: "+file("admin.sock"))
	if len(p.Farm.Sites) != 2 {
		t.Errorf("got %+v", p.Farm.Sites)
	}
	r, p = adopted(t, adoptFarm, controller.AdoptAsk{Server: "haproxy", Config: file("haproxy.cfg")})
	lines(t, r, `# Left out: *.two.example.com is a wildcard`)
	if len(p.Farm.Sites) != 1 {
		t.Errorf("got %+v", p.Farm.Sites)
	}
	must(t, os.WriteFile(file("lighttpd.conf"), fmt.Appendf(nil, `server.document-root = "%[1]s"
server.bind = "127.0.0.1"
server.port = %[2]s
server.modules = ("mod_openssl")
var.tls = "%[1]s/certs"
ssl.engine = "enable"
ssl.pemfile = tls + "/one.pem"
$HTTP["host"] == "two.example.com" { ssl.pemfile = tls + "/two.pem" ssl.privkey = tls + "/two.pem" }
`, dir, other), 0o600))
	serve(t, other, "lighttpd", "-D", "-f", file("lighttpd.conf"))
	r, _ = adopted(t, adoptFarm, controller.AdoptAsk{Server: "lighttpd", Config: file("lighttpd.conf")})
	lines(t, r, "kind: lighttpd", "pem: "+file("certs/one.pem"), "port: "+other, "# Left out: *.two.example.com")
}
