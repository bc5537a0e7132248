package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/certfarm/certfarm/internal/host/sshserver"
)

// A Node is one web server machine of the lab: SSH and SFTP into its folder, a
// page over HTTP, and the same over HTTPS from a server that is run as nginx is,
// by the commands `webd -t`, `webd start`, `webd reload` and `webd stop`; or a real
// server of this machine, or a stand-in for one, by that server's own commands.
type Node struct {
	c       NodeConfig
	ssh     *sshserver.Server
	sshPort *port
	plain   *gate
	server  *http.Server
	web     daemon
	shell   *shell
	log     *os.File
	short   string // folder with a short name; empty: none

	end    context.Context // until Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex // one change of the machine at a time
	fault  Fault
	round  int  // counts the changes of fault, so that a timer knows its own
	listen bool // SSH listens
	gone   bool // dies-for-good has struck
	closed bool

	ranMu sync.Mutex
	ran   []string
}

// NodeConfig is what a node is made of.
type NodeConfig struct {
	Name        string
	Dir         string        // the node's folder: "/" of its SFTP and of its file names
	Authorized  ssh.PublicKey // may log in, as LoginUser
	Pairs       []Pair        // what webd serves; none: one PEM file, DefaultPEM
	Placeholder bool          // there is a self-signed certificate at first, and webd runs
	Workers     int           // of webd, each with its own time of changing over; 0: 1
	ReloadTime  time.Duration // how long `webd reload` takes
	CutOver     time.Duration // how long after a reload the last worker has changed
	RTT         time.Duration // round trip time of SSH and HTTPS connections

	software *software // in place of webd
	backends []Backend // of a proxy
}

// A daemon is what serves HTTPS on a node: web, or a process of this machine.
type daemon interface {
	// address is where it listens, and stays so.
	address() string
	// up reports whether it runs and the machine does.
	up() bool
	// setFault makes it misbehave from now on; none mends it.
	setFault(Kind)
	// power is what happens to the machine below it.
	power(on bool) error
	// close ends it and waits.
	close() error
}

// The names that every node of the lab has.
const (
	LoginUser   = "deploy"
	DefaultPEM  = "/etc/tls/site.pem" // chain and key of the site, in one file
	StoreFolder = "/store"            // for staged and kept versions: webd reads nothing here
)

// afterAnswer is how long a machine that dies after a reload lives on, so that
// the reload's exit status still gets out.
const afterAnswer = 50 * time.Millisecond

// StartNode makes the node's folder and starts its servers. Its web server runs
// if there is a certificate for it.
func StartNode(c NodeConfig) (*Node, error) {
	if len(c.Pairs) == 0 {
		c.Pairs = []Pair{{Chain: DefaultPEM}}
	}
	n := &Node{c: c}
	n.end, n.cancel = context.WithCancel(context.Background())
	err := n.prepare()
	if err == nil {
		err = n.serve()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start node %s: %w", c.Name, err), n.Close())
	}
	return n, nil
}

// prepare makes what is on the disk.
func (n *Node) prepare() error {
	folders := []string{StoreFolder, "/var/log", "/run", "/etc"}
	for _, p := range n.c.Pairs {
		folders = append(folders, path.Dir(p.Chain), path.Dir(p.key()))
	}
	for _, f := range folders {
		if err := os.MkdirAll(n.Path(f), 0o700); err != nil {
			return err
		}
	}
	if n.c.Placeholder {
		if err := placePlaceholders(n.c.Dir, n.c.Name+".placeholder.invalid", n.c.Pairs); err != nil {
			return err
		}
	}
	var err error
	n.log, err = os.OpenFile(n.Path("/var/log/webd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	return err
}

// serve starts the three servers.
func (n *Node) serve() error {
	var err error
	if n.plain, err = newGate(0); err != nil {
		return err
	}
	n.server = &http.Server{Handler: page(n.c.Name), ErrorLog: quiet(), ReadHeaderTimeout: 10 * time.Second}
	n.wg.Go(func() { _ = n.server.Serve(n.plain) })
	n.shell = newShell(n.c.Dir)
	service, err := n.install()
	if err != nil {
		return err
	}
	if err := n.startSSH(); err != nil {
		return err
	}
	if service.check(n.end) == nil {
		return service.start(n.end)
	}
	return nil
}

// install makes the server that serves HTTPS, stopped, and the commands by which
// the node knows it.
func (n *Node) install() (service, error) {
	if n.c.software != nil && n.c.software.real() {
		begin := map[product]func() (*process, error){apache: n.apacheProcess, haproxy: n.haproxyProcess}[n.c.software.product]
		p, err := begin()
		if err != nil {
			return nil, err
		}
		n.web = p
		return p, nil
	}
	w, err := newWeb(webConfig{
		name: n.c.Name, read: func() (shelf, error) { return readPairs(n.c.Dir, n.c.Pairs) }, workers: n.c.Workers, reload: n.c.ReloadTime,
		cutOver: n.c.CutOver, rtt: n.c.RTT, log: n.log, died: n.dieSoon,
	})
	if err != nil {
		return nil, err
	}
	n.web = w
	if n.c.software == nil {
		n.shell.programs["webd"] = w.webd
	} else {
		n.c.software.commands(n.shell, w, w.up)
	}
	return w, nil
}

func (n *Node) startSSH() error {
	key, err := sshserver.NewKey()
	if err != nil {
		return err
	}
	n.ssh = &sshserver.Server{
		HostKeys: []ssh.Signer{key}, User: LoginUser, Root: n.c.Dir, Exec: n.exec,
	}
	if n.c.Authorized != nil {
		n.ssh.AuthorizedKeys = []ssh.PublicKey{n.c.Authorized}
	}
	n.ssh.SetFaults(sshserver.Faults{Delay: n.c.RTT})
	n.sshPort, err = reserve(func(addr string) error {
		n.ssh.Listen = addr
		return n.ssh.Start()
	})
	n.listen = err == nil
	return err
}

// Name is the node's name.
func (n *Node) Name() string { return n.c.Name }

// Path is the file of this machine that the node knows by name: in its folder.
func (n *Node) Path(name string) string { return local(n.c.Dir, name) }

// SSHAddr is host:port of the SSH server. Like the other addresses it stays the
// same through every fault.
func (n *Node) SSHAddr() string { return n.ssh.Addr() }

// HTTPAddr is host:port of the page without TLS.
func (n *Node) HTTPAddr() string { return n.plain.addr }

// HTTPSAddr is host:port of webd.
func (n *Node) HTTPSAddr() string { return n.web.address() }

// HostKey is the node's SSH host key in authorized_keys format.
func (n *Node) HostKey() string { return n.ssh.HostKey() }

// Serves reports whether webd runs and the machine does.
func (n *Node) Serves() bool { return n.web.up() }

// Backend is the node as a balancer sees it.
func (n *Node) Backend() Backend {
	return Backend{Name: n.c.Name, HTTP: n.HTTPAddr(), HTTPS: n.HTTPSAddr()}
}

// Ran lists the command lines that arrived over SSH, the last thousand.
func (n *Node) Ran() []string {
	n.ranMu.Lock()
	defer n.ranMu.Unlock()
	return append([]string(nil), n.ran...)
}

// exec runs a command line of an SSH session.
func (n *Node) exec(ctx context.Context, line string, in io.Reader, out io.Writer) int {
	n.ranMu.Lock()
	n.ran = append(n.ran[max(0, len(n.ran)-999):], line)
	n.ranMu.Unlock()
	return n.shell.line(ctx, line, stdio{in, out})
}

// Close ends the node and waits for all that it started. A second Close is nothing.
func (n *Node) Close() error {
	n.mu.Lock()
	again := n.closed
	n.closed = true
	n.mu.Unlock()
	if again {
		return nil
	}
	n.cancel()
	var errs []error
	if n.ssh != nil {
		errs = append(errs, n.ssh.Close())
	}
	if n.server != nil {
		errs = append(errs, n.server.Close())
	}
	if n.plain != nil {
		errs = append(errs, n.plain.Close())
	}
	if n.web != nil {
		errs = append(errs, n.web.close())
	}
	n.wg.Wait()
	if n.sshPort != nil {
		errs = append(errs, n.sshPort.Close())
	}
	if n.short != "" {
		errs = append(errs, os.RemoveAll(n.short))
	}
	if n.log != nil {
		errs = append(errs, n.log.Close())
	}
	return errors.Join(errs...)
}

// nodeDir is where a node of the lab in dir has its files.
func nodeDir(dir, name string) string { return filepath.Join(dir, "nodes", name) }
