package controller

import (
	"context"
	"io"
	"log/slog"
	"sync"

	"github.com/certfarm/certfarm/internal/deploy/target"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/local"
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
		Prober:   probe.TLS{},
		Asker:    http01.Preflight,
		Notifier: notify.Log{Logger: log},
	}, lines
}

// startTLS is what endpoints may be upgraded with.
var startTLS = probe.StartTLS()

func newIssuer(_ context.Context, c IssuerConfig) (Account, error) {
	return acme.New(acme.Config{
		Issuer: c.Issuer, AccountKey: c.AccountKey, AccountURL: c.AccountURL, EABHMAC: c.EABHMAC, Proxy: c.Proxy,
		UserAgent: "certfarm",
	})
}

// lines opens hosts through one pool, made when it is first needed since it asks
// back of the controller.
type lines struct {
	mu   sync.Mutex
	pool *ssh.Pool
}

func (l *lines) host(ctx context.Context, farmName string, n farm.Node, c Context) (host.Host, error) {
	l.mu.Lock()
	if l.pool == nil {
		l.pool = ssh.NewPool(ssh.Source{
			Key: c.Secret, Node: c.Node,
			Local: func(n farm.Node) (host.Host, error) { return local.New(local.Config{Become: n.Become}), nil },
		})
	}
	pool := l.pool
	l.mu.Unlock()
	return pool.Host(ctx, farmName, n)
}

// Close closes every line.
func (l *lines) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pool == nil {
		return nil
	}
	return l.pool.Close()
}
