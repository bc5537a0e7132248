package lab

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
)

// apache2ctl is the command of that name: of a real Apache, or of its stand-in. A
// graceful restart of a server that does not run starts it, and a start of one that
// runs is nothing, as in Apache's own.
func apache2ctl(does service, up func() bool) program {
	return func(ctx context.Context, args []string, out stdio) int {
		var err error
		switch strings.Join(args[1:], " ") {
		case "-t":
			if err = does.check(ctx); err == nil {
				_, _ = fmt.Fprintln(out, "Syntax OK")
			}
		case "-k start":
			if !up() {
				err = does.start(ctx)
			}
		case "-k graceful":
			if up() {
				err = does.reload(ctx)
			} else {
				err = does.start(ctx)
			}
		default:
			_, _ = fmt.Fprintln(out, "usage: apache2ctl -t | -k start | -k graceful")
			return statusUsage
		}
		return status(err, out)
	}
}

// status tells an error, and is the exit status.
func status(err error, out stdio) int {
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintln(out, err)
	return 1
}

// apacheModules is the folder of Apache's modules, where systems have it; empty:
// there is no mod_ssl.
func apacheModules() string {
	for _, dir := range []string{"/usr/lib/apache2/modules", "/usr/lib64/httpd/modules", "/usr/lib/httpd/modules", "/usr/libexec/apache2", "/usr/local/libexec/apache24"} {
		if _, err := os.Stat(filepath.Join(dir, "mod_ssl.so")); err == nil {
			return dir
		}
	}
	return ""
}

// apacheConf is a whole httpd.conf for a node: one HTTPS server in front of the
// node's page. Locks are in memory that processes share, since the children are
// another user and cannot reach the lab's folder.
func (n *Node) apacheConf(addr string) string {
	var b strings.Builder
	run := n.Path("/run")
	fmt.Fprintf(&b, "ServerRoot %[1]q\nServerName %[2]s\nPidFile \"%[1]s/apache2.pid\"\nDefaultRuntimeDir %[1]q\nMutex pthread\nErrorLog %[3]q\n", run, n.c.Name, n.Path("/var/log/apache2.log"))
	fmt.Fprintf(&b, "Listen %s\nGracefulShutdownTimeout 2\nStartServers 1\n", addr)
	if os.Getuid() == 0 { // Apache serves nobody as root
		for _, name := range []string{"www-data", "apache", "nobody"} {
			if u, err := user.Lookup(name); err == nil {
				fmt.Fprintf(&b, "User \"#%s\"\nGroup \"#%s\"\n", u.Uid, u.Gid)
				break
			}
		}
	}
	for _, m := range []string{"mpm_event", "unixd", "authz_core", "ssl", "proxy", "proxy_http"} {
		file := filepath.Join(n.c.software.modules, "mod_"+m+".so")
		if _, err := os.Stat(file); err == nil { // the others are built in
			fmt.Fprintf(&b, "LoadModule %s_module %q\n", m, file)
		}
	}
	fmt.Fprintf(&b, "SSLEngine on\nSSLCertificateFile %q\nProxyPass \"/\" \"http://%s/\"\n", n.Path(DefaultPEM), n.HTTPAddr())
	return b.String()
}

// apacheProcess is a real Apache on the node. With -D FOREGROUND it is a child of
// ours; its own -k graceful finds it by its pid file.
func (n *Node) apacheProcess() (*process, error) {
	conf, program := n.Path("/etc/httpd.conf"), n.c.software.program
	p, err := newProcess(processConfig{
		name: n.c.software.String() + " on " + n.c.Name,
		test: []string{program, "-t", "-f", conf},
		run:  []string{program, "-D", "FOREGROUND", "-f", conf},
		again: func(ctx context.Context, _ *os.Process) error {
			return runs(ctx, []string{program, "-k", "graceful", "-f", conf})
		},
		log: n.log, died: n.dieSoon,
	}, func(addr string) error { return os.WriteFile(conf, []byte(n.apacheConf(addr)), 0o600) })
	if err != nil {
		return nil, err
	}
	n.c.software.commands(n.shell, p, p.up)
	return p, nil
}
