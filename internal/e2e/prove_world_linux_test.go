package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/prove/http01"
	"github.com/certfarm/certfarm/internal/snippet"
)

// A world is a network of its own, in which names are proven on port 80 as on the
// internet: a HAProxy that takes the web servers in turn, each of them a machine
// with its own network, and a machine for controllers, CA and DNS, which is the
// test's process.
//
//	CA, DNS, controllers 10.77.0.2–4 ──┐
//	HAProxy              10.77.0.10  ──┼── br0
//	web1 … web4          10.77.0.11–14 ┘
//
// The namespaces have no names outside: when the last process in them ends, the
// kernel takes them away. A server that outlives a killed test is swept by the next.
type world struct {
	dir      string
	dns      *lab.DNS
	ca       *issuetest.CA
	hooks    challenges // what answers at the controllers' addresses
	balancer *machine
	webs     []*machine
	sshKey   string   // file with the key that the machines let the login in by
	helper   []string // argv of the process that speaks to a DNS hoster; nil: there is none
}

// The addresses in a world.
const (
	worldNet      = "10.77.0."
	controllersAt = worldNet + "2"
	emptyAt       = worldNet + "3" // where a controller should be, and none is
	acmeAt        = worldNet + "4"
	balancerAt    = worldNet + "10"
	listenerPort  = 8402
	acmeName      = "acme.farm.test" // only the controllers serve it
)

// A machine is a network namespace with one web server, and an sshd if it is a node.
type machine struct {
	node
	world  *world
	server *exec.Cmd
	out    locked
}

// inWorld says that this is the process inside the new network. Outside it runs
// the same test again, inside, and the caller returns. What needs root and
// servers is skipped without them.
//
// The process inside has a PostgreSQL of its own if it is asked for: there is no way
// to that of the tests outside.
func inWorld(t *testing.T, environment ...string) bool {
	t.Helper()
	needs(t)
	for _, p := range []string{"ip", "lighttpd", "caddy"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is missing: apt-get install iproute2 lighttpd lighttpd-modules-lua caddy", p)
		}
	}
	if os.Getenv(worldVariable) == t.Name() {
		must(t, command("mount", "-t", "tmpfs", "namespaces", "/run/netns"))
		return true
	}
	must(t, os.MkdirAll("/run/netns", 0o755))
	ctx, cancel := timeout(t, 4*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=4m")
	c.Env = append(append(os.Environ(), worldVariable+"="+t.Name(), noPostgres), environment...)
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := c.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Skip("no network of its own can be made here: the machine forbids namespaces")
	}
	if err != nil {
		t.Fatalf("in a network of its own: %v\n%s", err, out)
	}
	if bytes.Contains(out, []byte("--- SKIP: "+t.Name()+" ")) {
		t.Skipf("in a network of its own:\n%s", out)
	}
	t.Logf("in a network of its own:\n%s", out)
	return false
}

// What the process inside is told: of which test it is, and of its PostgreSQL.
const (
	worldVariable = "CERTFARM_E2E_WORLD"
	noPostgres    = "CERTFARM_TEST_POSTGRES=none"
	ownPostgres   = "CERTFARM_TEST_POSTGRES="
)

// newNetwork builds the network, with the balancer's machine.
func newNetwork(t *testing.T) *world {
	t.Helper()
	w := &world{dir: newFolder(t)}
	t.Cleanup(func() {
		if t.Failed() {
			w.tell(t)
		}
		must(t, drop(w.dir))
	})
	must(t, command("ip", "link", "add", "br0", "type", "bridge"))
	must(t, command("ip", "link", "set", "br0", "up"))
	for _, a := range []string{controllersAt, emptyAt, acmeAt} {
		must(t, command("ip", "addr", "add", a+"/24", "dev", "br0"))
	}
	w.balancer = w.machine(t, "lb", snippet.HAProxy, balancerAt)
	w.listen(t, net.JoinHostPort(controllersAt, strconv.Itoa(listenerPort)))
	w.listen(t, net.JoinHostPort(acmeAt, "80"))
	return w
}

// newWorld builds the network, and everything in it but the web servers' rules.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := newNetwork(t)
	w.sshKey = filepath.Join(w.dir, "id_ed25519")
	key := newKey(t, w.sshKey)
	for i, server := range []string{snippet.Nginx, snippet.Apache, snippet.Lighttpd, snippet.Caddy} {
		m := w.machine(t, "web"+strconv.Itoa(i+1), server, worldNet+strconv.Itoa(11+i))
		m.letIn(t, key)
		w.webs = append(w.webs, m)
	}
	var err error
	w.dns, err = lab.NewDNS()
	must(t, err)
	t.Cleanup(func() { must(t, w.dns.Close()) })
	for _, name := range siteNames {
		must(t, w.dns.Set(name, balancerAt))
	}
	must(t, w.dns.Set(acmeName, acmeAt))
	w.ca, err = issuetest.Start(issuetest.Options{DNS: w.dns.Addr()})
	must(t, err)
	t.Cleanup(func() { must(t, w.ca.Close()) })
	return w
}

// machine makes a network namespace on the bridge.
func (w *world) machine(t *testing.T, name, server, addr string) *machine {
	t.Helper()
	m := &machine{node: node{nodeSpec: nodeSpec{name: name, kind: server}, addr: addr, dir: filepath.Join(w.dir, name)}, world: w}
	for _, d := range []string{"run", "ssh", "webroot"} {
		must(t, os.MkdirAll(m.path(d), 0o755))
	}
	for _, argv := range []string{
		"ip netns add NAME",
		"ip link add p-NAME type veth peer name eth0 netns NAME",
		"ip link set p-NAME master br0 up",
		"ip -n NAME link set lo up",
		"ip -n NAME addr add ADDR/24 dev eth0",
		"ip -n NAME link set eth0 up",
	} {
		must(t, command(strings.Fields(strings.NewReplacer("NAME", name, "ADDR", addr).Replace(argv))...))
	}
	return m
}

// webroot is the folder that every node has at the same path, and each for itself.
func (w *world) webroot() string { return filepath.Join(w.dir, "webroot") }

// begin starts a program on the machine.
func (m *machine) begin(t *testing.T, argv ...string) *exec.Cmd {
	t.Helper()
	must(t, os.MkdirAll(m.world.webroot(), 0o755))
	const mounted = `mount --bind "$0" "$1" && shift && exec "$@"`
	c := exec.Command("ip", append([]string{"netns", "exec", m.name, "sh", "-c", mounted, m.path("webroot"), m.world.webroot()}, argv...)...)
	c.Dir, c.Stdout, c.Stderr = m.dir, &m.out, &m.out
	c.Env = append(os.Environ(), "HOME="+m.dir)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	must(t, c.Start())
	return c
}

// letIn starts the machine's sshd. The login may write the webroot.
func (m *machine) letIn(t *testing.T, key ssh.PublicKey) {
	t.Helper()
	u, err := user.Lookup(login)
	must(t, err)
	must(t, command("chown", u.Uid+":"+u.Gid, m.path("webroot")))
	m.hostKey = string(ssh.MarshalAuthorizedKey(newKey(t, m.path("ssh", "host_key"))))
	must(t, os.WriteFile(m.path("ssh", "authorized_keys"), ssh.MarshalAuthorizedKey(key), 0o644))
	must(t, os.WriteFile(m.path("ssh", "sshd_config"), []byte(m.sshdConf()), 0o644))
	m.sshd = m.begin(t, sshdPath, "-D", "-e", "-f", m.path("ssh", "sshd_config"))
	t.Cleanup(func() { quit(m.sshd) })
	within(t, 20*time.Second, m.name+" takes SSH connections", func() bool { return answers(m.ssh()) })
}

// listen answers as a controller does, at an address of the bridge.
func (w *world) listen(t *testing.T, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	must(t, err)
	s := &http.Server{Handler: &w.hooks, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.Serve(l) }() // always an error: Close was called
	t.Cleanup(func() { must(t, s.Close()) })
}

// ask is what `certfarm snippet` would be asked for in this farm. The second
// controller is down.
func (w *world) ask(server, via, thumbprint string) snippet.Ask {
	return snippet.Ask{
		Server: server, Via: via, Site: siteName, Names: siteNames,
		Controllers: []string{net.JoinHostPort(controllersAt, strconv.Itoa(listenerPort)), net.JoinHostPort(emptyAt, strconv.Itoa(listenerPort))},
		To:          "http://" + acmeName, Thumbprint: thumbprint, Webroot: w.webroot(),
	}
}

// serve gives the machine the rule of a way.
func (m *machine) serve(t *testing.T, a snippet.Ask) {
	t.Helper()
	rule, err := snippet.Rule(a)
	must(t, err)
	m.run(t, rule)
}

// run starts, or starts anew, the machine's web server with a rule. All else it
// sends to https. Without a rule it knows nothing at all.
func (m *machine) run(t *testing.T, rule snippet.Snippet) {
	t.Helper()
	quit(m.server)
	file := m.path("server.conf")
	must(t, os.WriteFile(file, []byte(m.conf(t, rule)), 0o644))
	argv := map[string][]string{
		snippet.Nginx:    {nginxPath, "-c", file, "-g", "daemon off;"},
		snippet.Apache:   {apachePath, "-f", file, "-DFOREGROUND"},
		snippet.HAProxy:  {haproxyPath, "-db", "-f", file},
		snippet.Lighttpd: {"lighttpd", "-D", "-f", file},
		snippet.Caddy:    {"caddy", "run", "--adapter", "caddyfile", "--config", file},
	}[m.kind]
	first := m.server == nil
	m.server = m.begin(t, argv...)
	if first {
		t.Cleanup(func() { quit(m.server) })
	}
	within(t, 20*time.Second, m.name+" takes connections", func() bool { return answers(net.JoinHostPort(m.addr, "80")) })
}

// quit ends a program with all that came from it, and waits for it.
func quit(c *exec.Cmd) {
	if c == nil {
		return
	}
	_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // it may have ended
	_ = c.Wait()                                      // an error: it was killed, or waited for before
}

// conf is the server's configuration.
func (m *machine) conf(t *testing.T, rule snippet.Snippet) string {
	t.Helper()
	var parts [2]string
	for i, p := range rule.Parts {
		parts[i] = p.Text
	}
	switch m.kind {
	case snippet.Nginx:
		switch len(rule.Parts) {
		case 0:
			return m.nginxProving("", "return 404;\n")
		case 1:
			return m.nginxProving("", parts[0])
		}
		return m.nginxProving(parts[0], parts[1])
	case snippet.Apache:
		if len(rule.Parts) == 0 {
			parts[0] = "Redirect 404 /\n"
		}
		return m.apacheProving(parts[0])
	case snippet.HAProxy:
		return m.haproxyProving(parts[0], parts[1])
	case snippet.Lighttpd:
		if len(rule.Parts) == 0 {
			parts[0] = "$HTTP[\"host\"] =~ \"\" {\n  url.redirect = ()\n}\n" // there is no file
		}
		if len(rule.Parts) == 2 { // a script, and the rule that names it
			must(t, os.WriteFile(m.path("acme.lua"), []byte(parts[0]), 0o644))
			parts[0] = strings.ReplaceAll(parts[1], rule.Parts[0].Where, m.path("acme.lua"))
		}
		return m.lighttpdProving(parts[0])
	default:
		if len(rule.Parts) == 0 {
			parts[0] = "http:// {\n\trespond 404\n}\n"
		}
		return "{\n\tadmin off\n\tauto_https off\n}\n" + parts[0]
	}
}

func (m *machine) nginxProving(outer, inner string) string {
	var temp strings.Builder
	for _, of := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temp, "%s_temp_path %s;\n", of, m.path("run", of))
	}
	return fmt.Sprintf(`user www-data;
pid %s;
error_log %s notice;
events {}
http {
access_log off;
%s%sserver {
listen 80;
server_name %s;
location / { return 301 https://$host$request_uri; }
%s}
}
`, m.pidFile(), m.errorLog(), temp.String(), outer, strings.Join(siteNames, " "), inner)
}

func (m *machine) apacheProving(rule string) string {
	var modules strings.Builder
	for _, name := range []string{"mpm_event", "authz_core", "alias", "dir", "rewrite", "headers", "mime", "proxy", "proxy_http", "slotmem_shm", "proxy_balancer", "lbmethod_byrequests"} {
		fmt.Fprintf(&modules, "LoadModule %s_module %s/mod_%s.so\n", name, apacheModules, name)
	}
	return fmt.Sprintf(`ServerRoot %[1]s
ServerName %[2]s.test
PidFile %[3]s
DefaultRuntimeDir %[1]s/run
Mutex file:%[1]s/run default
%[4]sListen 80
User www-data
Group www-data
ErrorLog %[5]s
TypesConfig /dev/null
StartServers 1
ThreadsPerChild 25
MaxRequestWorkers 25
<Directory />
Require all denied
</Directory>
<VirtualHost *:80>
ServerName %[6]s
ServerAlias %[7]s
%[8]sRedirect permanent / https://%[6]s/
</VirtualHost>
`, m.dir, m.name, m.pidFile(), modules.String(), m.errorLog(), siteNames[0], strings.Join(siteNames[1:], " "), rule)
}

func (m *machine) lighttpdProving(rule string) string {
	return fmt.Sprintf(`server.document-root = "%[1]s"
server.port = 80
server.username = "www-data"
server.groupname = "www-data"
server.modules = ( "mod_rewrite", "mod_auth", "mod_redirect", "mod_alias", "mod_magnet", "mod_proxy" )
$HTTP["scheme"] == "http" {
  url.redirect = ( "" => "https://${url.authority}${url.path}${qsa}" )
}
%[2]s`, m.path("run"), rule)
}

// haproxyProving takes the web servers strictly in turn.
func (m *machine) haproxyProving(inner, backend string) string {
	var servers strings.Builder
	for _, web := range m.world.webs {
		fmt.Fprintf(&servers, "    server %s %s:80\n", web.name, web.addr)
	}
	return fmt.Sprintf(`defaults
    mode http
    timeout connect 2s
    timeout client 10s
    timeout server 10s
frontend web
    bind :80
%s    default_backend webs
backend webs
    balance roundrobin
%s%s`, inner, servers.String(), backend)
}

// tell shows what the servers wrote.
func (w *world) tell(t testing.TB) {
	for _, m := range append([]*machine{w.balancer}, w.webs...) {
		if m == nil {
			continue // the network did not come so far
		}
		conf, _ := os.ReadFile(m.path("server.conf"))
		log, _ := os.ReadFile(m.errorLog()) // not every server has one
		t.Logf("%s (%s):\n%s%s%s", m.name, m.kind, conf, m.out.String(), log)
	}
}

// farmYAML is this farm as a person would write it: the certificate goes to a
// machine of the controller's own, validation is the value of that key.
func (w *world) farmYAML(edge *node, validation string) []byte {
	var b strings.Builder
	roots := ""
	for line := range strings.Lines(w.ca.ListenRoots + w.ca.Roots) {
		roots += "      " + strings.TrimRight(line, "\n") + "\n"
	}
	fmt.Fprintf(&b, "farm: %s\nresolvers: {\".\": [%q]}\nissuers:\n  pebble:\n    acme: %s\n    profile: default\n    roots: |\n%snodes:\n", farmName, w.dns.Addr(), w.ca.Directory, roots)
	fmt.Fprintf(&b, "  %s: {address: %s, local: true}\n", edge.name, edge.addr)
	for _, m := range w.webs {
		fmt.Fprintf(&b, "  %s:\n    address: %s\n    labels: {pool: web}\n    ssh: {port: %d, user: %s, key: {file: %q}, host_key: [%q], connect_timeout: 2s}\n",
			m.name, m.addr, sshPort, login, w.sshKey, strings.TrimSpace(m.hostKey))
	}
	test, reload, start := edge.commands()
	fmt.Fprintf(&b, "sites:\n  %s:\n    names: [%s]\n    issuer: pebble\n    validation: %s\n    targets:\n", siteName, strings.Join(siteNames, ", "), validation)
	fmt.Fprintf(&b, "      - kind: %s\n        on: %s\n        options: {pem: %q, store: %q, test: %s, reload: %s, start: %s}\n        endpoints: [{port: %d}]\n",
		edge.kind, edge.name, edge.files()[0], edge.path("store"), words(test), words(reload), words(start), httpsPort)
	b.WriteString("    policy: {soak: 0s, deadline: 30s, healthy_deadline: 5s}\n")
	return []byte(b.String())
}

// serveAll gives every web server, or the balancer alone, the rule of a way. What
// the others have is no rule.
func (w *world) serveAll(t *testing.T, atBalancer bool, via, thumbprint string) {
	t.Helper()
	for _, m := range append(w.webs, w.balancer) {
		if via == "" || atBalancer != (m == w.balancer) {
			m.run(t, snippet.Snippet{})
			continue
		}
		m.serve(t, w.ask(m.kind, via, thumbprint))
	}
}

// publish shows answers, by their tokens, as the way wants it. Stateless needs none.
func (w *world) publish(t *testing.T, via string, answers map[string]string) {
	t.Helper()
	switch via {
	case farm.Gateway, farm.Redirect:
		w.hooks.set(http01.Handler(func(_ context.Context, token string) (string, bool, error) {
			keyAuth, ok := answers[token]
			return keyAuth, ok, nil
		}))
	case farm.Distribute:
		for _, m := range w.webs {
			folder := m.path("webroot", ".well-known", "acme-challenge")
			must(t, os.MkdirAll(folder, 0o755))
			for token, keyAuth := range answers {
				must(t, os.WriteFile(filepath.Join(folder, token), []byte(keyAuth), 0o644))
			}
		}
	}
}
