package lab

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// haproxyTest is `haproxy -c -f FILE`.
func haproxyTest(does service) program {
	return func(ctx context.Context, args []string, out stdio) int {
		if len(args) != 4 || args[1] != "-c" || args[2] != "-f" {
			_, _ = fmt.Fprintln(out, "usage: haproxy -c -f FILE")
			return statusUsage
		}
		return status(does.check(ctx), out)
	}
}

// systemctl starts and reloads one unit.
func systemctl(unit string, does service, up func() bool) program {
	return func(ctx context.Context, args []string, out stdio) int {
		switch strings.Join(args[1:], " ") {
		case "start " + unit:
			if up() {
				return 0
			}
			return status(does.start(ctx), out)
		case "reload " + unit:
			return status(does.reload(ctx), out)
		}
		_, _ = fmt.Fprintf(out, "usage: systemctl start %[1]s | reload %[1]s\n", unit)
		return statusUsage
	}
}

// noAdmin answers where HAProxy's admin socket would: nothing that anybody
// understands.
func noAdmin(_ context.Context, _ []string, out stdio) int {
	_, _ = fmt.Fprintln(out, "Unknown command: this stand-in has no runtime API")
	return 0
}

// haproxyConf is a whole haproxy.cfg for a node: it ends TLS, and asks the nodes
// behind it in turn.
func (n *Node) haproxyConf(addr, socket string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "global\n  stats socket %q level admin mode 600\n  maxconn 200\n", socket)
	b.WriteString("defaults\n  mode http\n  timeout client 5s\n  timeout server 5s\n  timeout connect 5s\n")
	fmt.Fprintf(&b, "frontend edge\n  bind %s ssl crt %q\n  default_backend web\nbackend web\n", addr, n.Path(DefaultPEM))
	for _, be := range n.c.backends {
		fmt.Fprintf(&b, "  server %s %s\n", be.Name, be.HTTP)
	}
	return b.String()
}

// haproxyProcess is a real HAProxy on the node, master and worker. Its admin socket
// lies in a folder with a short name, as sockets must.
func (n *Node) haproxyProcess() (*process, error) {
	var err error
	if n.short, err = os.MkdirTemp("", "lab"); err != nil {
		return nil, err
	}
	socket := filepath.Join(n.short, "admin.sock")
	conf, program := n.Path("/etc/haproxy.cfg"), n.c.software.program
	p, err := newProcess(processConfig{
		name:  n.c.software.String() + " on " + n.c.Name,
		test:  []string{program, "-c", "-f", conf},
		run:   []string{program, "-W", "-db", "-f", conf},
		again: func(_ context.Context, p *os.Process) error { return signalReload(p) },
		log:   n.log, died: n.dieSoon,
	}, func(addr string) error { return os.WriteFile(conf, []byte(n.haproxyConf(addr, socket)), 0o600) })
	if err != nil {
		return nil, err
	}
	n.c.software.commands(n.shell, p, p.up)
	n.shell.programs["haproxy-admin"] = func(ctx context.Context, _ []string, out stdio) int {
		return status(n.admin(ctx, p, socket, out), out)
	}
	return p, nil
}

// admin connects a session to the admin socket for one command, as socat would.
// HAProxy knows its files by their names on this machine, and the node by others.
// A commit that the fault bad-reload meets is answered and never arrives.
func (n *Node) admin(ctx context.Context, p *process, socket string, session stdio) error {
	in := bufio.NewReader(session)
	command, err := in.ReadString('\n')
	if err != nil {
		return fmt.Errorf("read a command: %w", err)
	}
	if p.faulty(BadReload) && strings.HasPrefix(command, "commit ssl cert ") {
		_, err := fmt.Fprintf(session, "Committing %s.\nSuccess!\n\n", strings.TrimSpace(command[len("commit ssl cert "):]))
		return err
	}
	c, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	if _, err := io.WriteString(c, strings.ReplaceAll(command, DefaultPEM, n.Path(DefaultPEM))); err != nil {
		return err
	}
	if err := passPayload(c, in, command); err != nil {
		return err
	}
	reply, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	_, err = io.WriteString(session, strings.ReplaceAll(string(reply), n.Path(DefaultPEM), DefaultPEM))
	return err
}

// passPayload passes on what follows a command that ends with "<<": lines, up to an
// empty one.
func passPayload(to io.Writer, in *bufio.Reader, command string) error {
	if !strings.HasSuffix(command, "<<\n") {
		return nil
	}
	for line := command; line != "\n"; {
		var err error
		if line, err = in.ReadString('\n'); err != nil {
			return fmt.Errorf("read the payload: %w", err)
		}
		if _, err := io.WriteString(to, line); err != nil {
			return err
		}
	}
	return nil
}
