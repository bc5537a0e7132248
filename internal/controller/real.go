package controller

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/certfarm/certfarm/internal/deploy/target"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/local"
	"github.com/certfarm/certfarm/internal/host/smb"
	"github.com/certfarm/certfarm/internal/host/ssh"
	"github.com/certfarm/certfarm/internal/issue/acme"
	"github.com/certfarm/certfarm/internal/notify"
	"github.com/certfarm/certfarm/internal/probe"
	"github.com/certfarm/certfarm/internal/prove/http01"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
)

// Real is a Config with everything as it is in production. Close the closer when
// the controller has ended.
func Real(s *store.Store, keys *secret.Keyring, log *slog.Logger) (Config, io.Closer) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	lines := &lines{}
	return Config{
		Store: s, Keys: keys, Log: log,
		Kinds:    target.All(),
		Hosts:    lines.host,
		Issuers:  newIssuer,
		Solver:   newWays(s).solver,
		Prober:   probe.TLS{Memory: probe.NewMemory()},
		Asker:    http01.Preflight,
		Notifier: notify.Log{Logger: log},
		Known:    encode.NewMemory(),
	}, lines
}

// startTLS is what endpoints may be upgraded with.
var startTLS = probe.StartTLS()

func newIssuer(_ context.Context, c IssuerConfig) (Account, error) {
	return acme.New(acme.Config{
		Issuer: c.Issuer, AccountKey: c.AccountKey, AccountURL: c.AccountURL, EABHMAC: c.EABHMAC, Proxy: c.Proxy,
		UserAgent: "certfarm", Tell: c.Tell,
	})
}

// lines opens hosts: through one pool, made when it is first needed since it asks
// back of the controller, or over SMB.
type lines struct {
	mu     sync.Mutex
	pool   *ssh.Pool
	shares map[[32]byte]smb.Node // by farm, node and password: a session is used again
}

func (l *lines) host(ctx context.Context, farmName string, n farm.Node, c Context) (host.Host, error) {
	if n.SMB != nil {
		return l.share(ctx, farmName, n, c)
	}
	l.mu.Lock()
	if l.pool == nil {
		l.pool = ssh.NewPool(ssh.Source{
			Key: c.Secret, Node: c.Node,
			Certificate: func(ctx context.Context, farmName string, n farm.Node) (string, error) {
				return loginCertificate(ctx, farmName, n, c)
			},
			Local: func(n farm.Node) (host.Host, error) { return local.New(local.Config{Become: n.Become}), nil },
		})
	}
	pool := l.pool
	l.mu.Unlock()
	return pool.Host(ctx, farmName, n)
}

// loginCertificate is the user certificate of a node that renews it: from a secret,
// or from a command of the controller's list.
func loginCertificate(ctx context.Context, farmName string, n farm.Node, c Context) (string, error) {
	if n.SSH.CertificateCommand == "" {
		s, err := c.Secret(ctx, farmName, n.SSH.CertificateFrom)
		return string(s.Reveal()), err
	}
	argv, err := c.Command(n.SSH.CertificateCommand)
	if err != nil {
		return "", err
	}
	text, err := local.New(local.Config{}).Run(ctx, argv, nil)
	return string(text), err
}

func (l *lines) share(ctx context.Context, farmName string, n farm.Node, c Context) (host.Host, error) {
	password, err := c.Secret(ctx, farmName, n.SMB.Password)
	if err != nil {
		return nil, fmt.Errorf("password for %s: %w", n.SMB.Share, err)
	}
	text, err := json.Marshal([]any{farmName, n, sha256.Sum256(password.Reveal())})
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(text)
	l.mu.Lock()
	defer l.mu.Unlock()
	if open, ok := l.shares[id]; ok {
		return open, nil
	}
	u, err := smb.ParseUNC(n.SMB.Share)
	if err != nil {
		return nil, err
	}
	h, err := smb.New(smb.Config{Server: u.Server, Port: n.SMB.Port, Share: u.Share, User: n.SMB.User, Domain: n.SMB.Domain, Password: password})
	if err != nil {
		return nil, err
	}
	if l.shares == nil {
		l.shares = map[[32]byte]smb.Node{}
	}
	l.shares[id] = smb.Node{Host: h}
	return l.shares[id], nil
}

// Close closes every line.
func (l *lines) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, s := range l.shares {
		errs = append(errs, s.Close())
	}
	if l.pool != nil {
		errs = append(errs, l.pool.Close())
	}
	return errors.Join(errs...)
}
