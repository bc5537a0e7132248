package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/ssh"

	"github.com/certfarm/certfarm/internal/host/sshserver"
)

// A massNode is an SSH server and a web server with many certificates, one for each
// name, which reads its files when it is told to and at no other time.
type massNode struct {
	name    string
	root    string
	line    *sshserver.Server
	web     net.Listener
	serves  atomic.Pointer[map[string]*tls.Certificate] // by name
	reloads atomic.Int64
}

// tlsFolder is where a massNode's certificates are.
const tlsFolder = "/etc/tls"

func newMassNode(name, root string, login ssh.PublicKey) (*massNode, error) {
	n := &massNode{name: name, root: root}
	if err := os.MkdirAll(filepath.Join(root, tlsFolder), 0o700); err != nil {
		return nil, err
	}
	key, err := sshserver.NewKey()
	if err != nil {
		return nil, err
	}
	n.line = &sshserver.Server{HostKeys: []ssh.Signer{key}, AuthorizedKeys: []ssh.PublicKey{login}, Root: root, Exec: n.exec}
	if err := n.line.Start(); err != nil {
		return nil, err
	}
	none := map[string]*tls.Certificate{}
	n.serves.Store(&none)
	n.web, err = tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: n.certificate})
	if err != nil {
		return nil, errors.Join(err, n.line.Close())
	}
	go n.serve()
	return n, nil
}

func (n *massNode) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c := (*n.serves.Load())[hello.ServerName]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("no certificate for %q", hello.ServerName)
}

func (n *massNode) serve() {
	for {
		conn, err := n.web.Accept()
		if err != nil {
			return
		}
		go func() {
			_ = conn.(*tls.Conn).Handshake() // who asks sees what came of it
			_ = conn.Close()
		}()
	}
}

// exec knows three programs, whatever stands before them.
func (n *massNode) exec(_ context.Context, line string, stdin io.Reader, out io.Writer) int {
	var err error
	switch {
	case strings.HasSuffix(line, "webd reload"):
		err = n.reload()
	case strings.HasSuffix(line, "webd untar"):
		err = n.untar(stdin)
	case strings.HasSuffix(line, "webd test"):
	default:
		return 127
	}
	if err != nil {
		_, _ = fmt.Fprintln(out, err)
		return 1
	}
	return 0
}

// reload reads every file anew.
func (n *massNode) reload() error {
	n.reloads.Add(1)
	files, err := filepath.Glob(filepath.Join(n.root, tlsFolder, "*.pem"))
	if err != nil {
		return err
	}
	serves := map[string]*tls.Certificate{}
	for _, f := range files {
		c, err := tls.LoadX509KeyPair(f, f)
		if err != nil {
			return err
		}
		serves[strings.TrimSuffix(filepath.Base(f), ".pem")] = &c
	}
	n.serves.Store(&serves)
	return nil
}

// untar is tar -x in the folder of the certificates.
func (n *massNode) untar(archive io.Reader) error {
	r := tar.NewReader(archive)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var data bytes.Buffer
		if _, err := io.CopyN(&data, r, h.Size); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(n.root, tlsFolder, filepath.Base(h.Name)), data.Bytes(), 0o600); err != nil {
			return err
		}
	}
}

func (n *massNode) close() error {
	return errors.Join(n.web.Close(), n.line.Close())
}
