package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// Where Debian has the servers.
const (
	nginxPath     = "/usr/sbin/nginx"
	apachePath    = "/usr/sbin/apache2"
	apacheModules = "/usr/lib/apache2/modules"
	haproxyPath   = "/usr/sbin/haproxy"
	sshdPath      = "/usr/sbin/sshd"
)

// The ports, on an address of each machine's own.
const (
	sshPort     = 12222
	httpsPort   = 18443
	gatewayPort = 15002
	adminPort   = 19999
)

// A nodeSpec says what a machine of the farm is.
type nodeSpec struct {
	name  string
	kind  string // nginx or apache
	pair  bool   // chain and key in two files, as older setups have it; else one
	plain bool   // the two files are there already, and it serves them
}

// A node is a machine of the farm: an address, an sshd, and a web server that
// only root may start and reload.
type node struct {
	nodeSpec
	addr, dir string
	hostKey   string // its public key
	sshd      *exec.Cmd
}

func (n *node) path(names ...string) string {
	return filepath.Join(append([]string{n.dir}, names...)...)
}

func (n *node) https() string { return net.JoinHostPort(n.addr, strconv.Itoa(httpsPort)) }
func (n *node) ssh() string   { return net.JoinHostPort(n.addr, strconv.Itoa(sshPort)) }

// files are the paths that the server's configuration names: one, or chain and key.
func (n *node) files() []string {
	if n.pair {
		return []string{n.path("tls", "shop.chain.pem"), n.path("tls", "shop.key")}
	}
	return []string{n.path("tls", "shop.pem")}
}

// keyFile is the one that holds the key.
func (n *node) keyFile() string { return n.files()[len(n.files())-1] }

// The commands, as farm.yaml and the sudo rule have them.
func (n *node) commands() (test, reload, start []string) {
	if n.kind == "nginx" {
		c := []string{nginxPath, "-c", n.path("nginx.conf")}
		return append(slices.Clone(c), "-t"), append(slices.Clone(c), "-s", "reload"), c
	}
	c := []string{apachePath, "-f", n.path("httpd.conf")}
	return append(slices.Clone(c), "-t"), append(slices.Clone(c), "-k", "graceful"), append(slices.Clone(c), "-k", "start")
}

// setUp writes everything that the machine has before the controller knows it.
// The login may write the folder of certificates and the store, nothing else.
func (n *node) setUp(t testing.TB, key ssh.PublicKey) {
	t.Helper()
	u, err := user.Lookup(login)
	must(t, err)
	uid, err := strconv.Atoi(u.Uid)
	must(t, err)
	gid, err := strconv.Atoi(u.Gid)
	must(t, err)
	for _, d := range []string{"tls", "store", "ssh", "run", "www"} {
		must(t, os.MkdirAll(n.path(d), 0o755))
	}
	for _, d := range []string{"tls", "store"} {
		must(t, os.Chown(n.path(d), uid, gid))
	}
	conf, text := n.path("nginx.conf"), n.nginxConf()
	if n.kind == "apache" {
		conf, text = n.path("httpd.conf"), n.apacheConf()
	}
	must(t, os.WriteFile(conf, []byte(text), 0o644))
	must(t, os.WriteFile(n.path("www", "index.html"), []byte(n.name+"\n"), 0o644))
	n.hostKey = string(ssh.MarshalAuthorizedKey(newKey(t, n.path("ssh", "host_key"))))
	must(t, os.WriteFile(n.path("ssh", "authorized_keys"), ssh.MarshalAuthorizedKey(key), 0o644))
	must(t, os.WriteFile(n.path("ssh", "sshd_config"), []byte(n.sshdConf()), 0o644))
	n.startSSH(t)
	if n.plain {
		chain, key := authority.issue(t, siteNames...)
		for i, text := range [][]byte{chain, key} {
			must(t, os.WriteFile(n.files()[i], text, 0o600))
			must(t, os.Chown(n.files()[i], uid, gid))
		}
		n.startServer(t)
	}
}

// newKey makes an SSH key, writes it, and returns its public half.
func newKey(t testing.TB, file string) ssh.PublicKey {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	block, err := ssh.MarshalPrivateKey(private, "certfarm e2e")
	must(t, err)
	must(t, os.WriteFile(file, pem.EncodeToMemory(block), 0o600))
	key, err := ssh.NewPublicKey(public)
	must(t, err)
	return key
}

func (n *node) nginxConf() string {
	var temp strings.Builder
	for _, of := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temp, "  %s_temp_path %s;\n", of, n.path("run", of))
	}
	return fmt.Sprintf(`user www-data;
worker_processes 2;
pid %s;
error_log %s notice;
events { worker_connections 1024; }
http {
  access_log off;
%s  server {
    listen %s ssl;
    ssl_certificate %s;
    ssl_certificate_key %s;
    keepalive_requests 1000000;
    location / { return 200 "%s\n"; }
  }
}
`, n.pidFile(), n.errorLog(), temp.String(), n.https(), n.files()[0], n.keyFile(), n.name)
}

func (n *node) apacheConf() string {
	var modules strings.Builder
	for _, m := range []string{"mpm_event", "authz_core", "ssl", "socache_shmcb", "dir"} {
		fmt.Fprintf(&modules, "LoadModule %s_module %s/mod_%s.so\n", m, apacheModules, m)
	}
	keyLine := ""
	if n.pair {
		keyLine = "  SSLCertificateKeyFile " + n.keyFile() + "\n"
	}
	return fmt.Sprintf(`ServerRoot %[1]s
ServerName %[2]s.test
PidFile %[3]s
DefaultRuntimeDir %[1]s/run
Mutex file:%[1]s/run default
%[4]sListen %[5]s
User www-data
Group www-data
ErrorLog %[6]s
LogLevel notice
StartServers 2
ThreadsPerChild 25
MaxRequestWorkers 100
MaxKeepAliveRequests 0
KeepAliveTimeout 30
DocumentRoot %[1]s/www
DirectoryIndex index.html
SSLSessionCache shmcb:%[1]s/run/sessions(512000)
<VirtualHost %[5]s>
  ServerName %[9]s
  SSLEngine on
  SSLCertificateFile %[7]s
%[8]s</VirtualHost>
`, n.dir, n.name, n.pidFile(), modules.String(), n.https(), n.errorLog(), n.files()[0], keyLine, siteNames[0])
}

func (n *node) sshdConf() string {
	return fmt.Sprintf(`ListenAddress %s
HostKey %s
AuthorizedKeysFile %s
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowUsers %s
UsePAM no
PermitTTY no
DisableForwarding yes
Subsystem sftp internal-sftp
`, n.ssh(), n.path("ssh", "host_key"), n.path("ssh", "authorized_keys"), login)
}

// startSSH starts the sshd. It dies with the test, however that ends.
func (n *node) startSSH(t testing.TB) {
	t.Helper()
	log, err := os.OpenFile(n.path("sshd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(t, err)
	defer log.Close() // the child has its own
	n.sshd = exec.Command(sshdPath, "-D", "-e", "-f", n.path("ssh", "sshd_config"))
	n.sshd.Stderr = log
	n.sshd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, n.sshd.Start())
	within(t, 20*time.Second, n.name+" takes SSH connections", func() bool { return answers(n.ssh()) })
}

// stopSSH ends the sshd and every connection that it has.
func (n *node) stopSSH(t testing.TB) {
	t.Helper()
	pid := n.sshd.Process.Pid
	must(t, end(func(p process) bool { return p.pid == pid }))
	_ = n.sshd.Wait() // an error: it was killed
	within(t, 20*time.Second, n.name+" refuses SSH connections", func() bool { return !answers(n.ssh()) })
}

func (n *node) pidFile() string  { return n.path("run", "server.pid") }
func (n *node) errorLog() string { return n.path("error.log") }

// server is the number of the web server's first process; 0: it does not run.
func (n *node) server() int {
	text, err := os.ReadFile(n.pidFile())
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text))) // 0 where there is none
	if err != nil || pid == 0 {
		return 0
	}
	for _, p := range processes() {
		if p.pid == pid && strings.Contains(p.command, n.dir+"/") {
			return pid
		}
	}
	return 0
}

// workers are the processes that the web server's first one has now.
func (n *node) workers() (pids []int) {
	server := n.server()
	for _, p := range processes() {
		if p.parent == server {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

// startServer starts the web server as the machine's own start would.
func (n *node) startServer(t testing.TB) {
	t.Helper()
	_, _, start := n.commands()
	must(t, command(start...))
	within(t, 20*time.Second, n.name+" takes TLS connections", func() bool { return answers(n.https()) })
}

// killServer ends the web server as a power cut does.
func (n *node) killServer(t testing.TB) {
	t.Helper()
	pid := n.server()
	must(t, end(func(p process) bool { return p.pid == pid }))
	within(t, 20*time.Second, n.name+" refuses TLS connections", func() bool { return !answers(n.https()) })
}

// reload is the server's own bare reload, by root.
func (n *node) reload() error {
	_, reload, _ := n.commands()
	return command(reload...)
}

// reloads counts how often the server was told to read its files anew, by what
// it says itself.
func (n *node) reloads(t testing.TB) int {
	t.Helper()
	text, err := os.ReadFile(n.errorLog())
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	must(t, err)
	said := "(SIGHUP) received from" // nginx
	if n.kind == "apache" {
		said = "AH00493:" // SIGUSR1 received. Doing graceful restart
	}
	return strings.Count(string(text), said)
}

// kept lists what lies in the node's store, by name, sorted.
func (n *node) kept(t testing.TB) (names []string) {
	t.Helper()
	err := filepath.WalkDir(n.path("store"), func(path string, _ os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(n.path("store"), path); rel != "." {
			names = append(names, rel)
		}
		return err
	})
	must(t, err)
	return names
}
