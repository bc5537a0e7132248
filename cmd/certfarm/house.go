package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/dnsserve"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
)

// A house is the state opened: the store, the keys, and a controller's config.
type house struct {
	controller.Config
	lines io.Closer
}

// keeping says where the state is kept.
type keeping struct{ database, keyFile, commands string }

// keepFlags gives a command the flags that say where the state is kept.
func (a *app) keepFlags(c *cobra.Command, k *keeping) {
	a.keeps(c)
	k.flags(c)
}

// flags are those beside --state.
func (k *keeping) flags(c *cobra.Command) {
	c.Flags().StringVar(&k.database, "database", "", "SQLite file, or postgres://user@host/name (password in ~/.pgpass) (default: certfarm.db in the state folder)")
	c.Flags().StringVar(&k.keyFile, "master-key-file", "", "file of the master key, made if there is none yet (default: master.key in the state folder)")
}

// address is the database's.
func (a *app) address(k keeping) (string, error) {
	at := cmp.Or(k.database, filepath.Join(a.state, "certfarm.db"))
	if !strings.Contains(at, "://") {
		return at, nil
	}
	u, err := url.Parse(at)
	if err != nil {
		return "", usage("postgres://user@host/name", "--database is no URL")
	}
	if _, has := u.User.Password(); has || u.Query().Has("password") {
		return "", usage("put it into ~/.pgpass, or the file that PGPASSFILE names", "--database holds a password, which others can see in the list of processes")
	}
	return at, nil
}

// openStore opens the database, and makes the state folder for the one in it.
func (a *app) openStore(ctx context.Context, k keeping, o store.Options) (*store.Store, error) {
	at, err := a.address(k)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(a.state, 0o700); err != nil {
		return nil, hinted(fmt.Errorf("state folder: %w", err), "choose another with --state")
	}
	s, err := store.Open(ctx, at, o)
	if err != nil {
		return nil, hinted(err, "if `certfarm serve` is running, it has the database: use `certfarm plan` and `certfarm apply`")
	}
	return s, nil
}

// openKeys reads the master key. It makes one only where nothing is sealed yet: a
// new one would open nothing that is there.
func (a *app) openKeys(ctx context.Context, k keeping, s *store.Store) (*secret.Keyring, error) {
	var first []byte
	err := s.View(ctx, func(tx *store.Tx) error {
		for r, err := range tx.AllSealed(ctx) {
			first = r.Sealed
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	file := cmp.Or(k.keyFile, filepath.Join(a.state, "master.key"))
	keys, err := secret.Load(secret.Source{File: file, MustExist: first != nil})
	if err == nil && first != nil {
		err = keys.Check(first)
	}
	return keys, hinted(err, "the master key that belongs to this database is needed: name its file with --master-key-file")
}

// open opens the house for a controller.
func (a *app) open(ctx context.Context, k keeping, log *slog.Logger) (*house, error) {
	s, err := a.openStore(ctx, k, store.Options{})
	if err != nil {
		return nil, err
	}
	keys, err := a.openKeys(ctx, k, s)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	c, lines := controller.Real(s, keys, log)
	h := &house{c, lines}
	if h.Commands, err = a.commands(k.commands); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	if self, err := os.Executable(); err == nil { // without it DNS hosters' APIs say that they need it
		h.Helper, h.Shouter = []string{self, dnsHelper}, []string{self, notifyHelper}
	}
	return h, nil
}

// tracesWithin is how long the last traces may take to be sent.
const tracesWithin = 5 * time.Second

// Close closes the lines to the nodes, then the store, and sends what is left of traces.
func (h *house) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), tracesWithin)
	defer cancel()
	return errors.Join(h.lines.Close(), h.Store.Close(), h.Tracer.Close(ctx))
}

// logger writes to standard error, as text or as JSON.
func (u *ui) logger(level slog.Level) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if u.json {
		return slog.New(slog.NewJSONHandler(u.err, o))
	}
	return slog.New(slog.NewTextHandler(u.err, o))
}

// A challengeDoor answers the questions of CAs (HTTP-01, RFC 8555 §8.3).
type challengeDoor struct {
	listener net.Listener
	server   *http.Server
}

// noDoor is the address that stands for none.
const noDoor = "none"

// openChallenges listens at an address; "none" for nowhere.
func openChallenges(addr string, c *controller.Controller, log *slog.Logger) (*challengeDoor, error) {
	if addr == "" || addr == noDoor {
		return &challengeDoor{}, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, hinted(fmt.Errorf("listen for challenges: %w", err), "choose another address with --challenge-listen, or none")
	}
	s := &http.Server{
		Handler: c.ChallengeHandler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return &challengeDoor{l, s}, nil
}

// serve answers until the context ends.
func (d *challengeDoor) serve(ctx context.Context) error {
	if d.server == nil {
		<-ctx.Done()
		return nil
	}
	stop := context.AfterFunc(ctx, func() { _ = d.server.Close() }) // a CA asks again
	defer stop()
	if err := d.server.Serve(d.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// openDNS answers DNS for the zones that farms delegate to the controllers; none
// where there is no address.
func openDNS(ctx context.Context, addresses []string, c *controller.Controller) (*dnsserve.Server, error) {
	if len(addresses) == 0 {
		return nil, nil
	}
	s, err := dnsserve.Listen(ctx, dnsserve.Config{Source: c.ZoneSource(), Addresses: addresses})
	return s, hinted(err, "choose other addresses with --dns-listen")
}

// together runs parts side by side; when one ends, the others are told to.
func together(ctx context.Context, parts ...func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ends := make(chan error)
	for _, p := range parts {
		go func() { ends <- p(ctx) }()
	}
	var errs []error
	for range parts {
		err := <-ends
		stop()
		if !errors.Is(err, context.Canceled) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
