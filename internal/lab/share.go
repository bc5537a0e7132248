package lab

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/deploy/ccs"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
)

// A share is the mixed farm's certificate store: a folder, shared by a real Samba
// that demands encryption where there is one.
type share struct {
	options      ccs.Options
	password     farm.Secret // of the PFX files
	account      farm.Secret // of the share's user
	passwordFile string      // where farm.yaml finds them
	accountFile  string

	smbd  *process // nil: the folder itself
	short string   // Samba's own folder: its sockets take a short name
	log   *os.File
	lines []io.Closer // of the readers
}

// shareName is what Samba calls the folder.
const shareName = "certs"

// startShare makes the folder below dir, and the secrets, and shares it.
func startShare(dir string, poll time.Duration, server software) (*share, error) {
	s := &share{options: ccs.Defaults(), password: encode.NewPFXPassword(), account: farm.NewSecret([]byte(rand.Text()))}
	s.passwordFile = filepath.Join(dir, "controller", "store-password")
	s.accountFile = filepath.Join(dir, "controller", "share-password")
	folder := filepath.Join(dir, "share")
	for _, made := range []string{folder, filepath.Dir(s.passwordFile)} {
		if err := os.MkdirAll(made, 0o700); err != nil {
			return nil, err
		}
	}
	for file, secret := range map[string]farm.Secret{s.passwordFile: s.password, s.accountFile: s.account} {
		if err := os.WriteFile(file, secret.Reveal(), 0o600); err != nil {
			return nil, fmt.Errorf("write a secret of the share: %w", err)
		}
	}
	s.options.PollingInterval, s.options.Canary = poll.String(), canaryName
	if !server.real() {
		s.options.Path = folder
		return s, nil
	}
	if err := s.serve(server, folder, filepath.Join(dir, "smbd.log")); err != nil {
		return nil, errors.Join(fmt.Errorf("share the certificate store: %w", err), s.Close())
	}
	return s, nil
}

// serve starts Samba: SMB 3 alone, signed and encrypted, one user.
func (s *share) serve(server software, folder, log string) (err error) {
	if s.log, err = os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return err
	}
	if s.short, err = os.MkdirTemp("", "lab"); err != nil {
		return err
	}
	conf := filepath.Join(s.short, "smb.conf")
	s.options.Share, s.options.User = `\\127.0.0.1\`+shareName, "root" // smbd is run by nobody else
	s.smbd, err = newProcess(processConfig{
		name: server.String(),
		run:  []string{server.program, "--foreground", "--no-process-group", "-s", conf, "--debug-stdout"},
		log:  s.log,
	}, func(addr string) error {
		port := portOf(addr)
		if s.options.Port, err = strconv.Atoi(port); err != nil {
			return err
		}
		return s.configure(conf, port, folder)
	})
	if err != nil {
		return err
	}
	if err := s.knowUser(conf); err != nil {
		return err
	}
	return s.smbd.start(context.Background())
}

func (s *share) configure(conf, port, folder string) error {
	text := `[global]
server role = standalone server
smb ports = ` + port + `
interfaces = 127.0.0.1/8
bind interfaces only = yes
disable netbios = yes
disable spoolss = yes
load printers = no
server min protocol = SMB3_00
server signing = mandatory
server smb encrypt = required
map to guest = never
log level = 0
`
	for _, kind := range []string{"private dir", "lock directory", "state directory", "cache directory", "pid directory", "ncalrpc dir"} {
		own := filepath.Join(s.short, strings.Fields(kind)[0])
		if err := os.MkdirAll(own, 0o755); err != nil {
			return err
		}
		text += kind + " = " + own + "\n"
	}
	text += fmt.Sprintf("[%s]\npath = %s\nread only = no\nvalid users = %s\n", shareName, folder, s.options.User)
	return os.WriteFile(conf, []byte(text), 0o600)
}

// knowUser gives the user a password in the lab's own list of users.
func (s *share) knowUser(conf string) error {
	smbpasswd, err := findProgram("smbpasswd")
	if err != nil {
		return err
	}
	c := exec.Command(smbpasswd, "-c", conf, "-s", "-a", s.options.User)
	word := string(s.account.Reveal())
	c.Stdin = strings.NewReader(word + "\n" + word + "\n")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("smbpasswd: %s: %w", strings.TrimSpace(string(out)), err)
	}
	return nil
}

// read is how an IIS reads: every PFX file of the folder, each for the name that
// the file has. What does not open with the password is not served.
func (s *share) read() (func(context.Context) (shelf, error), error) {
	files, err := s.options.Files(s.account)
	if err != nil {
		return nil, err
	}
	if c, ok := files.(io.Closer); ok {
		s.lines = append(s.lines, c)
	}
	root := filepath.ToSlash(s.options.Path)
	if s.smbd != nil {
		root = "/"
	}
	return func(ctx context.Context) (shelf, error) {
		entries, err := files.List(ctx, root)
		if err != nil {
			return shelf{}, fmt.Errorf("look into the store: %w", err)
		}
		all := shelf{certs: []tls.Certificate{}, names: []string{}}
		for _, e := range entries {
			name, is := strings.CutSuffix(strings.ToLower(e.Name), ".pfx")
			if !is || e.Mode.IsDir() {
				continue
			}
			data, err := files.Read(ctx, strings.TrimSuffix(root, "/")+"/"+e.Name)
			if err != nil {
				return shelf{}, fmt.Errorf("read %s of the store: %w", e.Name, err)
			}
			cert, err := fromPFX(data, s.password)
			if err != nil {
				continue
			}
			if rest, wild := strings.CutPrefix(name, "_."); wild {
				name = "*." + rest
			}
			all.certs, all.names = append(all.certs, cert), append(all.names, name)
		}
		return all, nil
	}, nil
}

// Close ends Samba.
func (s *share) Close() error {
	var errs []error
	for _, c := range s.lines {
		_ = c.Close() // the session may be gone
	}
	if s.smbd != nil {
		errs = append(errs, s.smbd.close())
	}
	if s.short != "" {
		errs = append(errs, os.RemoveAll(s.short))
	}
	if s.log != nil {
		errs = append(errs, s.log.Close())
	}
	return errors.Join(errs...)
}
