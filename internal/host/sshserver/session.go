package sshserver

import (
	"context"
	"io"
	"net"
	"os/exec"
	"strconv"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// session serves one session: one command or one SFTP subsystem.
func (s *Server) session(ctx context.Context, ch ssh.NewChannel) {
	channel, requests, err := ch.Accept()
	if err != nil {
		return
	}
	s.count(func(c *Counts) { c.Sessions++ })
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer channel.Close()
	done := make(chan struct{})
	started := false
	for {
		select {
		case <-done:
			return
		case r, open := <-requests:
			if !open {
				cancel()
				if started {
					<-done
				}
				return
			}
			act := s.act(ctx, cancel, channel, r)
			ok := act != nil && !started
			if r.WantReply {
				_ = r.Reply(ok || r.Type == "env", nil)
			}
			if ok {
				started = true
				go func() {
					defer close(done)
					act()
				}()
			}
		}
	}
}

// act is what a request starts; nil where it starts nothing.
func (s *Server) act(ctx context.Context, cancel func(), channel ssh.Channel, r *ssh.Request) func() {
	var payload struct{ Word string }
	switch r.Type {
	case "exec":
		if s.Exec == nil || ssh.Unmarshal(r.Payload, &payload) != nil {
			return nil
		}
		return func() { s.exec(ctx, channel, payload.Word) }
	case "subsystem":
		if ssh.Unmarshal(r.Payload, &payload) != nil || payload.Word != "sftp" {
			return nil
		}
		return func() { s.sftp(channel) }
	case "signal":
		cancel()
	}
	return nil
}

func (s *Server) exec(ctx context.Context, channel ssh.Channel, line string) {
	s.count(func(c *Counts) { c.Commands++ })
	status := s.Exec(ctx, line, channel, channel)
	_ = channel.CloseWrite()
	_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(status)}))
}

func (s *Server) sftp(channel ssh.Channel) {
	tree := tree{root: s.Root, faults: &s.faults, noRename: s.NoPosixRename}
	handlers := sftp.Handlers{FileGet: tree, FilePut: tree, FileCmd: tree, FileList: tree}
	switch {
	case s.Windows:
		handlers = drives{tree, &s.held}.handlers(!s.NoPosixRename)
	case !s.NoPosixRename:
		handlers.FileCmd = renamer{tree}
	}
	tap := newTap(channel, !s.NoFsync, !s.NoPosixRename)
	server := sftp.NewRequestServer(tap, handlers)
	_ = server.Serve()
	_ = tap.Close()
	_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{0}))
}

// Shell is an Exec that runs the line in the machine's own POSIX shell, as
// sshd does. The command is killed when its session ends.
func Shell(ctx context.Context, line string, stdin io.Reader, out io.Writer) int {
	c := exec.CommandContext(ctx, "sh", "-c", line)
	c.Stdout, c.Stderr = out, out
	c.WaitDelay = time.Second
	pipe, err := c.StdinPipe() // not c.Stdin: Wait would wait for a client that never closes its input
	if err != nil || c.Start() != nil {
		return 127
	}
	go func() {
		_, _ = io.Copy(pipe, stdin)
		pipe.Close()
	}()
	_ = c.Wait() // the state says more
	if c.ProcessState == nil {
		return 126
	}
	return c.ProcessState.ExitCode() & 0xff // whoever else holds the output open
}

// forward opens a connection from the node's side (RFC 4254 §7.2).
func (s *Server) forward(ctx context.Context, ch ssh.NewChannel) {
	var to struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}
	if err := ssh.Unmarshal(ch.ExtraData(), &to); err != nil {
		_ = ch.Reject(ssh.ConnectionFailed, "malformed request")
		return
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(to.Host, strconv.Itoa(int(to.Port))))
	if err != nil {
		_ = ch.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	defer c.Close()
	channel, requests, err := ch.Accept()
	if err != nil {
		return
	}
	defer channel.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	go answer(requests)
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(channel, c)
		_ = channel.CloseWrite()
	}()
	_, _ = io.Copy(c, channel)
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.CloseWrite()
	}
	<-back
}
