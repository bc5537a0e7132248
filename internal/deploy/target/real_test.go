package target

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host/local"
)

// real is a real server with its own configuration below dir.
type real struct {
	kind    string
	dir     string
	addr    string
	options map[string]any
	deploy.Deployer
}

// freeAddr is a loopback address that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

func startNginx(t *testing.T) *real {
	t.Helper()
	path, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("nginx is not installed")
	}
	r := &real{kind: "nginx", dir: t.TempDir(), addr: freeAddr(t)}
	conf := r.dir + "/nginx.conf"
	text := fmt.Sprintf("pid %[1]s/pid;\nerror_log %[1]s/error.log;\nevents {}\nhttp {\naccess_log off;\n", r.dir)
	for _, temp := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		text += fmt.Sprintf("%s_temp_path %s/%s;\n", temp, r.dir, temp)
	}
	text += fmt.Sprintf("server { listen %s ssl; ssl_certificate %s/tls/shop.pem; ssl_certificate_key %s/tls/shop.key; return 204; }\n}\n", r.addr, r.dir, r.dir)
	must(t, os.WriteFile(conf, []byte(text), 0o644))
	r.options = map[string]any{
		"chain": r.dir + "/tls/shop.pem", "key": r.dir + "/tls/shop.key", "store": r.dir + "/store",
		"test":   []string{path, "-t", "-c", conf},
		"reload": []string{path, "-s", "reload", "-c", conf},
		"start":  []string{path, "-c", conf},
	}
	r.open(t)
	t.Cleanup(func() {
		_ = exec.Command(path, "-s", "stop", "-c", conf).Run()
		r.gone(t) // it writes into its folder until then
	})
	return r
}

// startApache has the pair as one combined file.
func startApache(t *testing.T) *real {
	t.Helper()
	path, err := exec.LookPath("apache2")
	if err != nil {
		t.Skip("apache2 is not installed")
	}
	const modules = "/usr/lib/apache2/modules"
	if _, err := os.Stat(modules + "/mod_ssl.so"); err != nil {
		t.Skip("apache2 has no mod_ssl")
	}
	r := &real{kind: "apache", dir: t.TempDir(), addr: freeAddr(t)}
	must(t, os.Chmod(r.dir, 0o755))
	conf := r.dir + "/httpd.conf"
	text := fmt.Sprintf("ServerRoot %[1]s\nServerName test\nPidFile %[1]s/pid\nDefaultRuntimeDir %[1]s\nMutex file:%[1]s default\nErrorLog %[1]s/error.log\nListen %[2]s\n", r.dir, r.addr)
	for _, m := range []string{"mpm_event", "authz_core", "socache_shmcb", "ssl"} {
		text += fmt.Sprintf("LoadModule %s_module %s/mod_%s.so\n", m, modules, m)
	}
	if os.Getuid() == 0 {
		text += "User www-data\nGroup www-data\n"
	}
	text += fmt.Sprintf("SSLEngine on\nSSLCertificateFile %s/tls/shop.pem\n", r.dir)
	must(t, os.WriteFile(conf, []byte(text), 0o644))
	r.options = map[string]any{
		"pem": r.dir + "/tls/shop.pem", "store": r.dir + "/store",
		"test":   []string{path, "-t", "-f", conf},
		"reload": []string{path, "-k", "graceful", "-f", conf},
		"start":  []string{path, "-k", "start", "-f", conf},
	}
	r.open(t)
	t.Cleanup(func() {
		_ = exec.Command(path, "-k", "stop", "-f", conf).Run()
		r.gone(t)
	})
	return r
}

func startLighttpd(t *testing.T) *real {
	t.Helper()
	path, err := exec.LookPath("lighttpd")
	if err != nil {
		t.Skip("lighttpd is not installed")
	}
	if _, err := os.Stat("/usr/lib/lighttpd/mod_openssl.so"); err != nil {
		t.Skip("lighttpd has no mod_openssl")
	}
	r := &real{kind: "lighttpd", dir: t.TempDir(), addr: freeAddr(t)}
	address, port, err := net.SplitHostPort(r.addr)
	must(t, err)
	conf := r.dir + "/lighttpd.conf"
	text := fmt.Sprintf("server.modules = (\"mod_openssl\")\nserver.document-root = \"%[1]s\"\nserver.pid-file = \"%[1]s/pid\"\nserver.errorlog = \"%[1]s/error.log\"\n", r.dir)
	text += fmt.Sprintf("server.bind = \"%s\"\nserver.port = %s\nssl.engine = \"enable\"\nssl.pemfile = \"%s/tls/shop.pem\"\n", address, port, r.dir)
	must(t, os.WriteFile(conf, []byte(text), 0o644))
	r.options = map[string]any{
		"pem": r.dir + "/tls/shop.pem", "store": r.dir + "/store",
		"test":   []string{path, "-tt", "-f", conf},
		"reload": []string{"sh", "-c", "kill -USR1 $(cat " + r.dir + "/pid)"},
		"start":  []string{"sh", "-c", fmt.Sprintf("%s -D -f %s >/dev/null 2>&1 & echo $! >%s/child", path, conf, r.dir)},
	}
	r.open(t)
	t.Cleanup(func() {
		// Not by its own pid file, which is away in the midst of a restart, and not by
		// SIGTERM, which is lost then.
		_ = exec.Command("sh", "-c", "kill -9 $(cat "+r.dir+"/child)").Run()
		r.until(t, "gone", func() bool { return r.served() == "" })
	})
	return r
}

func (r *real) open(t *testing.T) {
	t.Helper()
	text, err := json.Marshal(r.options)
	must(t, err)
	r.Deployer, err = All().Open(r.kind, text, deploy.Setup{Host: local.New(local.Config{})})
	must(t, err)
}

// served is the leaf that a new connection sees; empty where none is answered.
func (r *real) served() string {
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, ServerName: deploytest.Names[0]}, NetDialer: &net.Dialer{Timeout: time.Second}}
	c, err := d.Dial("tcp", r.addr)
	if err != nil {
		return ""
	}
	defer c.Close()
	return farm.Fingerprint(c.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw)
}

// serves waits until a leaf is served: a reload reports success before it is done.
func (r *real) serves(t *testing.T, leaf string) {
	t.Helper()
	r.until(t, "serving "+farm.Short(leaf), func() bool { return r.served() == leaf })
}

func (r *real) gone(t *testing.T) {
	t.Helper()
	r.until(t, "gone", func() bool {
		text, err := os.ReadFile(r.dir + "/pid") // it stays where a server dies
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		return r.served() == "" && (err != nil || exec.Command("kill", "-0", strconv.Itoa(pid)).Run() != nil)
	})
}

func (r *real) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for begin := time.Now(); !ok(); time.Sleep(20 * time.Millisecond) { // servers send no event
		if time.Since(begin) > 15*time.Second {
			log, _ := os.ReadFile(r.dir + "/error.log")
			t.Fatalf("not %s; the server's log:\n%s", what, log)
		}
	}
}

func (r *real) stage(t *testing.T, epoch int64, b farm.Bundle) []deploy.Receipt {
	t.Helper()
	receipt, err := r.Stage(t.Context(), deploy.Stage{Names: deploytest.Names, Bundles: []farm.Bundle{b}, Epoch: epoch})
	must(t, err)
	return []deploy.Receipt{receipt}
}

func TestRealServers(t *testing.T) {
	for name, start := range map[string]func(*testing.T) *real{"nginx": startNginx, "apache": startApache, "lighttpd": startLighttpd, "haproxy": startHAProxy} {
		t.Run(name, func(t *testing.T) {
			r := start(t)
			first, second := deploytest.NewBundle(t, farm.EC256), deploytest.NewBundle(t, farm.RSA2048)
			must(t, r.Activate(t.Context(), r.stage(t, 1, first))) // onto a fresh node, where it does not run
			r.serves(t, first.Leaf)
			rs := r.stage(t, 2, second)
			r.serves(t, first.Leaf)
			must(t, r.Activate(t.Context(), rs))
			r.serves(t, second.Leaf)
			must(t, r.Restore(t.Context(), rs))
			r.serves(t, first.Leaf)
			must(t, r.Activate(t.Context(), rs))
			r.serves(t, second.Leaf)
			must(t, r.Discard(t.Context(), rs[0]))
			refuseAll(t, r, second)
		})
	}
}

// refuseAll breaks the configuration between Stage and Activate.
func refuseAll(t *testing.T, r *real, live farm.Bundle) {
	t.Helper()
	rs := r.stage(t, 3, deploytest.NewBundle(t, farm.EC256))
	conf := map[string]string{"nginx": "nginx.conf", "apache": "httpd.conf", "lighttpd": "lighttpd.conf", "haproxy": "haproxy.cfg"}[r.kind]
	good, err := os.ReadFile(filepath.Join(r.dir, conf))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(r.dir, conf), append(good, "nonsense here;\n"...), 0o644))
	if err := r.Activate(t.Context(), rs); err == nil || !strings.Contains(err.Error(), "config test") {
		t.Errorf("a broken config is no error: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(r.dir, conf), good, 0o644))
	must(t, r.Restore(t.Context(), rs))
	r.serves(t, live.Leaf)
}

// Apache dies of a wrong key after a graceful restart that reported success;
// Restore brings it back by a start.
func TestApacheKilledByAWrongKey(t *testing.T) {
	r := startApache(t)
	first, second := deploytest.NewBundle(t, farm.EC256), deploytest.NewBundle(t, farm.EC256)
	must(t, r.Activate(t.Context(), r.stage(t, 1, first)))
	r.serves(t, first.Leaf)
	rs := r.stage(t, 2, second)
	mixed := second
	mixed.Key = first.Key
	text, err := format{}.text(combined, mixed)
	must(t, err)
	var n note
	must(t, json.Unmarshal(rs[0].Note, &n))
	staged := filepath.Join(r.own(), n.New, "combined.pem")
	good, err := os.ReadFile(staged)
	must(t, err)

	must(t, os.WriteFile(staged, text, 0o600)) // changed on the node after Stage: seen before the switch
	if err := r.Activate(t.Context(), rs); err == nil {
		t.Fatal("a wrong key was switched to")
	}
	r.serves(t, first.Leaf)

	must(t, os.WriteFile(staged, good, 0o600))
	must(t, r.Activate(t.Context(), rs))
	r.serves(t, second.Leaf)
	must(t, os.WriteFile(staged, text, 0o600)) // and what nobody can see coming
	if out, err := exec.Command("apache2", "-t", "-f", r.dir+"/httpd.conf").CombinedOutput(); err != nil {
		t.Fatalf("apache2 -t does see wrong keys now: %s", out)
	}
	reload := r.options["reload"].([]string)
	must(t, exec.Command(reload[0], reload[1:]...).Run())
	r.gone(t)
	must(t, r.Restore(t.Context(), rs))
	r.serves(t, first.Leaf)
}

func (r *real) own() string {
	return folderOf(r.dir+"/store", one(r.dir+"/tls/shop.pem", combined))
}
