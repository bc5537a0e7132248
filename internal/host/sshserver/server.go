// Package sshserver is an SSH and SFTP server in this process, for tests and
// for the lab: it serves a real folder, hands commands to a Go function, and
// misbehaves on request.
//
// It speaks what a stock OpenSSH speaks (public keys and user certificates,
// one SFTP subsystem a session, posix-rename and fsync, direct-tcpip, at most ten
// sessions a connection), and checks what it is told to check: a client that
// works with it only because something was left out is a bug of this package.
// It listens where it is told, loopback by default.
package sshserver

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
)

// A Server is one node's SSH server. Its fields are set before Start and not
// changed after; faults are set at any time by SetFaults.
type Server struct {
	Listen   string // host:port; empty: a free port of 127.0.0.1. Start writes the real one here, so that a second Start takes it again
	HostKeys []ssh.Signer
	User     string // the one login that is let in; empty: any
	// AuthorizedKeys may log in, and so may certificates that UserCAs signed for
	// the login's name.
	AuthorizedKeys []ssh.PublicKey
	UserCAs        []ssh.PublicKey
	// Root is the folder that SFTP clients see as "/". Absolute symlinks are
	// made and read as below it, so on this machine they lead to the right file.
	// Empty: the machine's own "/".
	Root string
	// Exec runs the command line of a client, with both outputs going to out, and
	// returns its exit status. Its context ends with the session. Nil refuses
	// commands. Shell is one for a real shell.
	Exec func(ctx context.Context, line string, stdin io.Reader, out io.Writer) int
	// MaxSessions is how many sessions one connection may have, as in
	// sshd_config(5); 0: 10.
	MaxSessions int
	// NoFsync and NoPosixRename leave out the OpenSSH extensions of these names,
	// as other SFTP servers do. Fsync is answered without syncing anything: the
	// double need not outlive the machine.
	NoFsync, NoPosixRename bool
	// Windows serves files as OpenSSH for Windows does: /C:/x is the file C:/x below
	// Root, and nothing is outside of a drive; there are no symlinks, owners or modes;
	// and a file that is held (see Hold) is neither replaced nor removed.
	Windows bool

	faults faults
	held   held

	mu       sync.Mutex
	listener net.Listener
	lines    map[*line]struct{}
	stop     context.CancelFunc
	wg       sync.WaitGroup

	counts Counts
}

// Counts is what a server has seen, for tests.
type Counts struct{ Connections, Sessions, Commands int }

// Start listens and serves until Close. A server without host keys makes an
// Ed25519 key first.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		return errors.New("ssh server: already started")
	}
	if len(s.HostKeys) == 0 {
		key, err := NewKey()
		if err != nil {
			return err
		}
		s.HostKeys = []ssh.Signer{key}
	}
	if s.Listen == "" {
		s.Listen = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", s.Listen)
	if err != nil {
		return fmt.Errorf("ssh server: listening on %s: %w", s.Listen, err)
	}
	s.Listen, s.listener, s.lines = l.Addr().String(), l, map[*line]struct{}{}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.wg.Go(func() { s.accept(ctx, l) })
	return nil
}

// Close stops listening, cuts every connection, and waits for all to end. The
// server may be started again.
func (s *Server) Close() error {
	s.mu.Lock()
	l, stop := s.listener, s.stop
	s.listener = nil
	s.mu.Unlock()
	if l == nil {
		return nil
	}
	err := l.Close()
	stop()
	s.Cut()
	s.wg.Wait()
	return err
}

// Cut ends every connection, as a lost line does, and goes on listening.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.lines {
		_ = l.Close() // cut is cut
	}
}

// Addr is where the server listens, host:port.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Listen
}

// HostKey is the first host key in authorized_keys format, to be pinned.
func (s *Server) HostKey() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Authorized(s.HostKeys[0].PublicKey())
}

// Seen returns what the server has seen since its first start.
func (s *Server) Seen() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts
}

func (s *Server) count(add func(*Counts)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	add(&s.counts)
}

// NewKey makes an Ed25519 key.
func NewKey() (ssh.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making an SSH key: %w", err)
	}
	return ssh.NewSignerFromKey(key)
}

// Authorized is a public key in authorized_keys format, one line without its end.
func Authorized(key ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

func (s *Server) accept(ctx context.Context, l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		line := newLine(c, &s.faults)
		if s.faults.get().Refuse || !s.keep(ctx, line) {
			_ = line.Close() // the client sees a line that ends, as it should
			continue
		}
		s.wg.Go(func() {
			defer s.forget(line)
			s.serve(ctx, line)
		})
	}
}

// keep notes a line so that Close and Cut find it; false after Close.
func (s *Server) keep(ctx context.Context, l *line) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return false
	}
	s.lines[l] = struct{}{}
	s.counts.Connections++
	return true
}

func (s *Server) forget(l *line) {
	_ = l.Close() // it may have been cut already
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.lines, l)
}

func (s *Server) serve(ctx context.Context, line net.Conn) {
	config := &ssh.ServerConfig{PublicKeyCallback: s.authorize, ServerVersion: "SSH-2.0-certfarm_double"}
	for _, k := range s.HostKeys {
		config.AddHostKey(k)
	}
	conn, channels, requests, err := ssh.NewServerConn(line, config)
	if err != nil {
		return
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { answer(requests) })
	limit := s.MaxSessions
	if limit == 0 {
		limit = 10
	}
	free := make(chan struct{}, limit)
	for ch := range channels {
		switch ch.ChannelType() {
		case "session":
			select {
			case free <- struct{}{}:
				wg.Go(func() {
					defer func() { <-free }()
					s.session(ctx, ch)
				})
			default:
				_ = ch.Reject(ssh.ConnectionFailed, "open failed") // OpenSSH's words
			}
		case "direct-tcpip":
			wg.Go(func() { s.forward(ctx, ch) })
		default:
			_ = ch.Reject(ssh.UnknownChannelType, "unknown channel type")
		}
	}
	cancel()
}

// answer answers keep-alives the way OpenSSH does: with a refusal.
func answer(requests <-chan *ssh.Request) {
	for r := range requests {
		if r.WantReply {
			_ = r.Reply(false, nil)
		}
	}
}

func (s *Server) authorize(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	if s.User != "" && c.User() != s.User {
		return nil, fmt.Errorf("no user %q", c.User())
	}
	checker := ssh.CertChecker{
		IsUserAuthority: func(ca ssh.PublicKey) bool { return among(s.UserCAs, ca) },
		UserKeyFallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if !among(s.AuthorizedKeys, key) {
				return nil, errors.New("key is not authorized")
			}
			return &ssh.Permissions{}, nil
		},
	}
	return checker.Authenticate(c, key)
}

func among(keys []ssh.PublicKey, key ssh.PublicKey) bool {
	for _, k := range keys {
		if bytes.Equal(k.Marshal(), key.Marshal()) {
			return true
		}
	}
	return false
}
