package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/api"
	"github.com/certfarm/certfarm/internal/controller"
)

// serving is what `certfarm serve` was told.
type serving struct {
	keeping
	challenges, socket, listen, tokens, cert, key string
	dns                                           []string
	debug                                         bool
}

func newServe(a *app) *cobra.Command {
	var s serving
	c := &cobra.Command{
		Use: "serve", GroupID: groupStart, Short: "Run the controller until it is told to stop",
		Long: `Serve runs the controller: it keeps the certificates of all farms in its
database in step, answers the questions of CAs, and offers the API that the
other commands use. It writes its log to standard error and stops at Ctrl-C or
SIGTERM; what is under way goes on at the next start.`,
		Example: `certfarm serve
certfarm serve --state /srv/certfarm --challenge-listen 127.0.0.1:8402
certfarm serve --listen :8403 --token-file tokens --tls-cert api.pem --tls-key api.key`,
		Args: args(0, 0, "nothing"),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.serve(cmd.Context(), s) },
	}
	f := c.Flags()
	a.keepFlags(c, &s.keeping)
	f.StringVar(&s.challenges, "challenge-listen", ":8402", "address that answers HTTP-01 questions, or none")
	f.StringSliceVar(&s.dns, "dns-listen", nil, "addresses that answer DNS for zones delegated to the controllers (dns provider builtin), UDP and TCP: 192.0.2.10:53")
	f.StringVar(&s.commands, "commands-file", "", "YAML file of the commands that farm.yaml may name: dns provider exec, targets of kind exec, drain, certificate_command (default: commands.yaml in the state folder, if there is one)")
	f.StringVar(&s.socket, "socket", "", "unix socket for the API (default: certfarm.sock in the state folder)")
	f.StringVar(&s.listen, "listen", "", "TCP address for the API as well")
	f.StringVar(&s.tokens, "token-file", "", "tokens for --listen: lines of NAME TOKEN [view,operate,…]")
	f.StringVar(&s.cert, "tls-cert", "", "PEM file of the certificate for --listen; needed unless it is loopback")
	f.StringVar(&s.key, "tls-key", "", "PEM file of its key")
	f.BoolVar(&s.debug, "debug", false, "log more")
	return c
}

func (a *app) serve(ctx context.Context, s serving) error {
	level := slog.LevelInfo
	if s.debug {
		level = slog.LevelDebug
	}
	log := a.logger(level)
	a.remote.socket = s.socket
	doors, err := s.doors(a.socketPath(), log)
	if err != nil {
		return err
	}
	h, err := a.open(ctx, s.keeping, log)
	if err != nil {
		return err
	}
	defer h.Close()
	h.Version = version()
	ctl := controller.New(h.Config)
	challenges, err := openChallenges(s.challenges, ctl, log)
	if err != nil {
		return err
	}
	names, err := openDNS(ctx, s.dns, ctl)
	if err != nil {
		return err
	}
	if names != nil {
		defer names.Close()
	}
	open, err := api.Listen(api.New(api.Config{Controller: ctl, Version: version(), Log: log}), doors)
	if err != nil {
		return err
	}
	attrs := []any{"version", version(), "state", a.state}
	for _, addr := range open.Addrs() {
		attrs = append(attrs, addr.Network(), addr.String())
	}
	if challenges.listener != nil {
		attrs = append(attrs, "challenges", challenges.listener.Addr().String())
	}
	if names != nil {
		attrs = append(attrs, "dns", names.Addresses())
	}
	log.Info("ready", attrs...)
	err = together(ctx, ctl.Run, open.Serve, challenges.serve)
	log.Info("stopped")
	return err
}

// doors says where the API is served.
func (s serving) doors(socket string, log *slog.Logger) (api.Doors, error) {
	d := api.Doors{Socket: socket, TCP: s.listen, Log: log}
	if s.listen == "" {
		if s.tokens != "" || s.cert != "" || s.key != "" {
			return d, usage("add --listen host:port", "--token-file, --tls-cert and --tls-key are for --listen")
		}
		return d, nil
	}
	if s.tokens == "" {
		return d, usage("a line of the file is: NAME TOKEN", "--listen needs --token-file, since others can connect there")
	}
	var err error
	if d.Tokens, err = api.ReadTokens(s.tokens); err != nil {
		return d, err
	}
	if (s.cert == "") != (s.key == "") {
		return d, usage("", "--tls-cert and --tls-key go together")
	}
	if s.cert != "" {
		// Read at each handshake: the API's own certificate is renewed, too.
		load := func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(s.cert, s.key)
			return &pair, err
		}
		if _, err := load(nil); err != nil {
			return d, fmt.Errorf("certificate of the API: %w", err)
		}
		d.TLS = &tls.Config{GetCertificate: load, MinVersion: tls.VersionTLS12}
	}
	return d, nil
}
