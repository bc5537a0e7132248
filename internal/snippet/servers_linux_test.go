package snippet

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

const token = "-Zq4u1w_9hVd0eKk3JcYxTnR5oBsLgPfA7mXiQ2yWtU"

// TestServers puts every rule into a real server whose other rules send all to
// https and want a login, and asks as a CA does.
func TestServers(t *testing.T) {
	for _, p := range []program{nginxProgram, apacheProgram, haproxyProgram, lighttpdProgram, caddyProgram} {
		for _, via := range Vias() {
			if _, err := Rule(shop(p.name, via)); err != nil {
				continue // it cannot
			}
			t.Run(p.name+"-"+via, func(t *testing.T) {
				t.Parallel()
				path, err := exec.LookPath(p.argv[0])
				if err != nil {
					t.Skipf("%s is missing: apt-get install %s", p.argv[0], p.pkg)
				}
				if os.Geteuid() != 0 {
					t.Skip("servers are started as in production, by root: run it as root")
				}
				proven(t, p, path, via)
			})
		}
	}
}

// proven runs the server with the rule, and asks it.
func proven(t *testing.T, p program, path, via string) {
	dir, err := os.MkdirTemp("/var/tmp", "certfarm-snippet-") //nolint:usetesting // the servers' users must get through it
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.Chmod(dir, 0o755))
	a := shop(p.name, via)
	controller := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != Path+token {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = io.WriteString(w, token+"."+thumbprint) // whoever asked has gone
	}))
	t.Cleanup(controller.Close)
	a.Controllers = []string{freePort(t), controller.Listener.Addr().String()} // one is down
	a.Webroot = filepath.Join(dir, "acme")
	must(t, os.MkdirAll(a.Webroot+Path, 0o755))
	must(t, os.WriteFile(a.Webroot+Path+token, []byte(token+"."+thumbprint), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "acme", "secret"), []byte("secret"), 0o644))
	s, err := Rule(a)
	must(t, err)

	addr := freePort(t)
	must(t, os.WriteFile(filepath.Join(dir, "passwords"), []byte("user:{PLAIN}word\n"), 0o644))
	conf := p.conf(surroundings{dir: dir, addr: addr}, s)
	file := filepath.Join(dir, "server.conf")
	must(t, os.WriteFile(file, []byte(conf), 0o644))
	run(t, dir, addr, path, p.args(file))

	for range 4 { // round robin, were it one
		for _, host := range a.Names[:2] {
			asked(t, addr, host, via)
		}
	}
	for _, other := range []string{"/", Path, Path + "..%2fsecret", Path + "../secret", Path + token + "/x", Path + "a.b", Path + strings.Repeat("a", 129)} {
		status, _, body := ask(t, addr, "shop.example.com", other)
		if status == http.StatusOK || strings.Contains(body, thumbprint) {
			t.Errorf("%s is answered: %d %q", other, status, body)
		}
	}
	if p.byName {
		if status, _, body := ask(t, addr, "other.example.com", Path+token); status == http.StatusOK || strings.Contains(body, thumbprint) {
			t.Errorf("another site's name is answered: %d %q", status, body)
		}
	}
	if status, h, _ := ask(t, addr, "shop.example.com", "/"); status != http.StatusMovedPermanently && status != http.StatusPermanentRedirect && status != http.StatusUnauthorized {
		t.Errorf("what the server did before is gone: %d %v", status, h)
	}
}

func asked(t *testing.T, addr, host, via string) {
	t.Helper()
	status, h, body := ask(t, addr, host, Path+token)
	if via == farm.Redirect {
		if to := h.Get("Location"); status != http.StatusFound || to != "http://acme.example.com"+Path+token {
			t.Errorf("%s: status %d, to %q", host, status, to)
		}
		return
	}
	if status != http.StatusOK || strings.TrimSpace(body) != token+"."+thumbprint {
		t.Errorf("%s: status %d, %q", host, status, body)
	}
	if kind := h.Get("Content-Type"); kind != "application/octet-stream" {
		t.Errorf("%s: content type %q", host, kind)
	}
}

func ask(t *testing.T, addr, host, path string) (status int, h http.Header, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr, nil)
	must(t, err)
	r.URL.Opaque = path // as it stands: nothing is cleaned
	r.Host = host
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, resp.Header, string(text)
}

// run runs a server until the test ends.
func run(t *testing.T, dir, addr, path string, args []string) {
	t.Helper()
	var out bytes.Buffer
	c := exec.Command(path, args...)
	c.Dir, c.Stdout, c.Stderr = dir, &out, &out
	c.Env = append(os.Environ(), "HOME="+dir)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	must(t, c.Start())
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	t.Cleanup(func() {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // workers too; it may have ended
		<-ended
		if t.Failed() {
			conf, _ := os.ReadFile(filepath.Join(dir, "server.conf")) // it was written
			log, _ := os.ReadFile(filepath.Join(dir, "error.log"))    // there may be none
			t.Logf("%s\n%s%s", conf, out.String(), log)
		}
	})
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(20 * time.Second); ; {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("%s has ended: %v", path, err)
		case <-limit:
			t.Fatalf("%s does not listen", path)
		case <-tick.C:
		}
	}
}

// freePort is an address at which nobody listens.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A program is a real server and a configuration that is in the way of a rule.
type program struct {
	name, pkg string
	argv      []string // CONF stands for the file
	conf      func(surroundings, Snippet) string
	byName    bool // answers for the site's names only, in whatever block it stands
}

type surroundings struct{ dir, addr string }

func (s surroundings) port() string {
	_, port, _ := net.SplitHostPort(s.addr)
	return port
}

func (p program) args(conf string) (args []string) {
	for _, a := range p.argv[1:] {
		args = append(args, strings.ReplaceAll(a, "CONF", conf))
	}
	return args
}

var nginxProgram = program{
	name: Nginx, pkg: "nginx", argv: []string{"nginx", "-c", "CONF", "-g", "daemon off;"},
	conf: func(w surroundings, s Snippet) string {
		var outer string
		if len(s.Parts) == 2 {
			outer = s.Parts[0].Text
		}
		temp := ""
		for _, of := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
			temp += fmt.Sprintf("%s_temp_path %s/%s;\n", of, w.dir, of)
		}
		return fmt.Sprintf(`user www-data;
pid %[1]s/pid;
error_log %[1]s/error.log;
events {}
http {
access_log off;
%[2]s%[3]s
server {
listen %[4]s;
server_name shop.example.com www.shop.example.com;
auth_basic "closed";
auth_basic_user_file %[1]s/passwords;
deny all;
location ~ /\. { return 403; }
location / { return 301 https://$host$request_uri; }
%[5]s
}
}
`, w.dir, temp, outer, w.addr, s.Parts[len(s.Parts)-1].Text)
	},
}

var apacheProgram = program{
	name: Apache, pkg: "apache2", argv: []string{"apache2", "-f", "CONF", "-DFOREGROUND"},
	conf: func(w surroundings, s Snippet) string {
		modules := ""
		for _, m := range []string{"mpm_event", "authz_core", "authz_user", "authn_core", "authn_file", "auth_basic", "alias", "dir", "rewrite", "headers", "mime",
			"proxy", "proxy_http", "slotmem_shm", "proxy_balancer", "lbmethod_byrequests"} {
			modules += fmt.Sprintf("LoadModule %s_module /usr/lib/apache2/modules/mod_%s.so\n", m, m)
		}
		return fmt.Sprintf(`ServerRoot %[1]s
ServerName localhost
PidFile %[1]s/pid
DefaultRuntimeDir %[1]s
Mutex file:%[1]s default
%[2]sListen %[3]s
User www-data
Group www-data
ErrorLog %[1]s/error.log
TypesConfig /dev/null
StartServers 1
ThreadsPerChild 10
MaxRequestWorkers 10
<Directory />
  Require all denied
</Directory>
<VirtualHost %[3]s>
ServerName shop.example.com
ServerAlias www.shop.example.com
%[4]s
RewriteEngine On
RewriteRule ^/app https://shop.example.com/app [R=301,L]
RewriteRule ^/\.well-known/ https://shop.example.com/ [R=301,L]
Redirect permanent / https://shop.example.com/
Alias /.well-known/ %[1]s/nowhere/
<Location "/">
  AuthType Basic
  AuthName closed
  AuthBasicProvider file
  AuthUserFile %[1]s/passwords
  Require valid-user
</Location>
</VirtualHost>
`, w.dir, modules, w.addr, s.Parts[0].Text)
	},
}

var haproxyProgram = program{
	name: HAProxy, pkg: "haproxy", argv: []string{"haproxy", "-db", "-f", "CONF"}, byName: true,
	conf: func(w surroundings, s Snippet) string {
		var backend string
		if len(s.Parts) == 2 {
			backend = s.Parts[1].Text
		}
		return fmt.Sprintf(`defaults
    mode http
    timeout connect 2s
    timeout client 10s
    timeout server 10s
frontend web
    bind %s
%s
    http-request auth unless { req.hdr(authorization) -m found } { path /login }
    http-request redirect scheme https code 301 unless { ssl_fc }
    use_backend nodes if { path_beg /.well-known/ }
    default_backend nodes
backend nodes
    http-request return status 200 content-type text/plain string "a node"
%s`, w.addr, s.Parts[0].Text, backend)
	},
}

var lighttpdProgram = program{
	name: Lighttpd, pkg: "lighttpd lighttpd-modules-lua lighttpd-mod-webdav", argv: []string{"lighttpd", "-D", "-f", "CONF"}, byName: true,
	conf: func(w surroundings, s Snippet) string {
		if len(s.Parts) == 2 { // the script, and the rule that names it
			script := filepath.Join(w.dir, "acme.lua")
			if os.WriteFile(script, []byte(s.Parts[0].Text), 0o644) != nil {
				return "no script"
			}
			s.Parts = []Part{{Text: strings.ReplaceAll(s.Parts[1].Text, s.Parts[0].Where, script)}}
		}
		return fmt.Sprintf(`server.document-root = "%[1]s/www"
server.bind = "127.0.0.1"
server.port = %[2]s
server.username = "www-data"
server.groupname = "www-data"
server.modules = ( "mod_rewrite", "mod_auth", "mod_authn_file", "mod_redirect", "mod_alias", "mod_magnet", "mod_proxy" )
auth.backend = "plain"
auth.backend.plain.userfile = "%[1]s/passwords"
auth.require = ( "/" => ( "method" => "basic", "realm" => "closed", "require" => "valid-user" ) )
$HTTP["scheme"] == "http" {
  url.redirect = ( "" => "https://${url.authority}${url.path}${qsa}" )
}
%[3]s`, w.dir, w.port(), s.Parts[0].Text)
	},
}

var caddyProgram = program{
	name: Caddy, pkg: "caddy", argv: []string{"caddy", "run", "--adapter", "caddyfile", "--config", "CONF"}, byName: true,
	conf: func(w surroundings, s Snippet) string {
		return fmt.Sprintf(`{
	admin off
	auto_https off
	http_port %s
	default_bind 127.0.0.1
}
http://other.example.com {
	respond 404
}
%s`, w.port(), s.Parts[0].Text)
	},
}
