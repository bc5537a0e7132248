// Package smbtest runs a real Samba server on this machine for tests: SMB 3
// alone, with signing and encryption demanded, as a Windows file server of a
// careful operator does. It differs from Windows where that matters: a file that
// another session has open can be replaced.
package smbtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// The account that the server knows: every Debian has the user.
const (
	User     = "daemon"
	Password = "Lab-pass-1"
)

// startTime is how long the server may take to answer.
const startTime = 15 * time.Second

// Options say what the server offers.
type Options struct {
	Shares map[string]string // name to folder on this machine
	Clear  bool              // it does not demand encryption
	NoNTLM bool              // it takes no passwords, as a server whose domain is Kerberos only
	DFS    bool              // the shares are DFS namespaces: a link in one leads to another server
}

// Server is a running smbd.
type Server struct {
	Host string
	Port int

	options Options
	dir     string
}

// Start runs a server until the test ends. It skips the test where smbd is not
// installed or the test may not run it (it must be root to log anybody in).
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	smbd, err := exec.LookPath("smbd")
	if err != nil {
		t.Skip("smbd is not installed: apt-get install samba")
	}
	if os.Getuid() != 0 {
		t.Skip("smbd logs people in as root only")
	}
	s := &Server{Host: "127.0.0.1", Port: freePort(t), options: o, dir: shortDir(t)}
	for _, folder := range o.Shares {
		must(t, os.Chown(folder, uidOf(t), -1))
		must(t, openWay(folder))
	}
	must(t, s.write())
	s.setPassword(t)
	c := exec.Command(smbd, "--foreground", "--no-process-group", "-s", s.config(), "--debug-stdout")
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log, err := os.Create(filepath.Join(s.dir, "log"))
	must(t, err)
	c.Stdout, c.Stderr = log, log
	must(t, c.Start())
	t.Cleanup(func() {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // with its children, one for each session
		_ = c.Wait()
		_ = log.Close()
	})
	must(t, s.wait(t.Context()))
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// shortDir is a folder whose path is short enough for the server's sockets. The
// users that log in must get through it: the server asks, as the user, whether
// another of its processes lives, and where it cannot see that, it takes no notice
// of the other's open files and may even die of the contradiction.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "smb") //nolint:usetesting // t.TempDir has the test's name in it, and may be too long
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	return dir
}

// openWay lets the server's user reach a folder of a test.
func openWay(folder string) error {
	for at := folder; at != "/" && at != os.TempDir(); at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func uidOf(t testing.TB) int {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "id", "-u", User).Output()
	must(t, err)
	uid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	must(t, err)
	return uid
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (s *Server) config() string { return filepath.Join(s.dir, "smb.conf") }

// write writes the configuration.
func (s *Server) write() error {
	encrypt := "required"
	if s.options.Clear {
		encrypt = "if_required"
	}
	text := `[global]
server role = standalone server
smb ports = ` + strconv.Itoa(s.Port) + `
interfaces = 127.0.0.1/8
bind interfaces only = yes
disable netbios = yes
disable spoolss = yes
load printers = no
server min protocol = SMB3_00
server signing = mandatory
server smb encrypt = ` + encrypt + `
map to guest = never
log level = 0
`
	if s.options.NoNTLM {
		text += "ntlm auth = disabled\n"
	}
	for _, kind := range []string{"private dir", "lock directory", "state directory", "cache directory", "pid directory", "ncalrpc dir"} {
		folder := filepath.Join(s.dir, strings.Fields(kind)[0])
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
		text += kind + " = " + folder + "\n"
	}
	dfs := "no"
	if s.options.DFS {
		dfs = "yes"
	}
	for name, folder := range s.options.Shares {
		text += fmt.Sprintf("[%s]\npath = %s\nread only = no\nvalid users = %s\nmsdfs root = %s\n", name, folder, User, dfs)
	}
	return os.WriteFile(s.config(), []byte(text), 0o600)
}

func (s *Server) setPassword(t testing.TB) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "smbpasswd", "-c", s.config(), "-s", "-a", User)
	c.Stdin = strings.NewReader(Password + "\n" + Password + "\n")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("smbpasswd: %v\n%s", err, out)
	}
}

// wait returns when the server answers.
func (s *Server) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(s.Host, strconv.Itoa(s.Port)))
		if err == nil {
			return c.Close()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			return errors.Join(fmt.Errorf("smbd does not answer: %s", text), ctx.Err())
		}
	}
}

// Died says whether a process of the server has died of a mistake of its own.
func (s *Server) Died(t testing.TB) bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "log"))
	must(t, err)
	return strings.Contains(string(text), "PANIC")
}

// Cut ends all sessions of a share; it can be opened again.
func (s *Server) Cut(t testing.TB, share string) {
	t.Helper()
	s.control(t, "close-share", share)
}

// Withdraw takes a share away.
func (s *Server) Withdraw(t testing.TB, share string) {
	t.Helper()
	delete(s.options.Shares, share)
	must(t, s.write())
	s.control(t, "reload-config")
	s.control(t, "close-share", share)
}

func (s *Server) control(t testing.TB, words ...string) {
	t.Helper()
	args := append([]string{"-s", s.config(), "smbd"}, words...)
	if out, err := exec.CommandContext(t.Context(), "smbcontrol", args...).CombinedOutput(); err != nil {
		t.Fatalf("smbcontrol %q: %v\n%s", words, err, out)
	}
}

// Secret is the account's password.
func Secret() farm.Secret { return farm.NewSecret([]byte(Password)) }
