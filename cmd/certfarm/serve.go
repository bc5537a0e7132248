package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/api"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/dnsserve"
	"github.com/certfarm/certfarm/internal/heap"
	"github.com/certfarm/certfarm/internal/web"
)

// serving is what `certfarm serve` was told.
type serving struct {
	keeping
	challenges, socket, listen, tokens, access, cert, key string
	agents, auditKey                                      string
	auditTo                                               []string
	dns                                                   []string
	otlp, logFormat                                       string
	debug                                                 bool
}

func newServe(a *app) *cobra.Command {
	var s serving
	c := &cobra.Command{
		Use: "serve", GroupID: groupStart, Short: "Run the controller until it is told to stop",
		Long: `Serve runs the controller: it keeps the certificates of all farms in its
database in step, answers the questions of CAs, and offers the API that the
other commands use. It writes its log to standard error and stops at Ctrl-C or
SIGTERM; what is under way goes on at the next start.

The first start with --listen makes a token with the role admin and shows it once,
unless there is --token-file or an identity provider. ` + "`certfarm token`" + ` makes more.`,
		Example: `certfarm serve
certfarm serve --state /srv/certfarm --challenge-listen 127.0.0.1:8402
certfarm serve --listen :8403 --tls-cert api.pem --tls-key api.key
certfarm serve --agents :8404`,
		Args: args(0, 0, "nothing"),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.serve(cmd.Context(), s) },
	}
	f := c.Flags()
	a.keepFlags(c, &s.keeping)
	f.StringVar(&s.challenges, "challenge-listen", ":8402", "address that answers HTTP-01 questions, or none")
	f.StringSliceVar(&s.dns, "dns-listen", nil, "addresses that answer DNS for zones delegated to the controllers (dns provider builtin), UDP and TCP: 192.0.2.10:53")
	f.StringVar(&s.commands, "commands-file", "", "YAML file of the commands that farm.yaml may name: dns provider exec, targets of kind exec, drain, certificate_command (default: commands.yaml in the state folder, if there is one)")
	f.StringVar(&s.socket, "socket", "", "unix socket for the API (default: certfarm.sock in the state folder)")
	f.StringVar(&s.listen, "listen", "", "TCP address for the dashboard and the API")
	f.StringVar(&s.tokens, "token-file", "", "tokens for --listen beside those of certfarm token: lines of NAME TOKEN [view,operate,…]")
	f.StringVar(&s.access, "access-file", "", "YAML file of who may log in for --listen: an identity provider, groups and roles (default: access.yaml in the state folder, if there is one)")
	f.StringVar(&s.cert, "tls-cert", "", "PEM file of the certificate for --listen; needed unless it is loopback. Read again when it changes; until it is there a placeholder is served")
	f.StringVar(&s.key, "tls-key", "", "PEM file of its key (default: the file of the certificate)")
	f.StringVar(&s.agents, "agents", "", "TCP address for the agents of nodes: :8404")
	f.StringArrayVar(&s.auditTo, "audit-to", nil, "where each line of the audit is sent, with its hash: syslog+tls://HOST:PORT, syslog+tcp, syslog+udp, otlp+https://HOST:4318 (a collector), or https://…; may be repeated")
	f.StringVar(&s.auditKey, "audit-key-file", "", "file with the key that signs what --audit-to sends over HTTP")
	f.StringVar(&s.otlp, "otlp-endpoint", "", "collector for traces of rollouts, OTLP over HTTP: http://127.0.0.1:4318 (default: $OTEL_EXPORTER_OTLP_ENDPOINT, or no traces)")
	f.StringVar(&s.logFormat, "log-format", "", "how the log is written: text or json (default: text, or json with --json)")
	f.BoolVar(&s.debug, "debug", false, "log more")
	return c
}

func (a *app) serve(ctx context.Context, s serving) error {
	heap.Allow(heap.Room)
	log, err := a.serveLog(s)
	if err != nil {
		return err
	}
	a.remote.socket = s.socket
	doors, err := s.doors(a.socketPath(), log)
	if err != nil {
		return err
	}
	h, book, err := a.openWatched(ctx, s, log)
	if err != nil {
		return err
	}
	defer h.Close()
	senders, err := s.senders(h.Store, log)
	if err != nil {
		return err
	}
	ctl := controller.New(h.Config)
	if err := a.guarded(s, ctl, &doors); err != nil {
		return err
	}
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
	open, err := api.Listen(api.New(api.Config{Controller: ctl, Version: version(), Log: log, Metrics: a.scraped(book, ctl)}), doors)
	if err != nil {
		return err
	}
	if err := a.firstToken(ctx, s, doors.Gate); err != nil {
		return err
	}
	agents, err := openAgents(ctx, s.agents, ctl, log)
	if err != nil {
		return err
	}
	attrs := []any{"version", version(), "state", a.state}
	log.Info("ready", append(attrs, addresses(open, challenges, names, agents)...)...)
	err = together(ctx, append(senders, ctl.Run, open.Serve, challenges.serve, agents.serve)...)
	log.Info("stopped")
	return err
}

// addresses are where it can be reached, for the log.
func addresses(open *api.Open, challenges *challengeDoor, names *dnsserve.Server, agents agentsDoor) (attrs []any) {
	for _, addr := range open.Addrs() {
		attrs = append(attrs, addr.Network(), addr.String())
	}
	if challenges.listener != nil {
		attrs = append(attrs, "challenges", challenges.listener.Addr().String())
	}
	if names != nil {
		attrs = append(attrs, "dns", names.Addresses())
	}
	if agents.open != nil {
		attrs = append(attrs, "agents", agents.open.Addr().String())
	}
	return attrs
}

// guarded puts a gate before what is open to others, and the dashboard behind it.
func (a *app) guarded(s serving, ctl *controller.Controller, d *api.Doors) (err error) {
	if s.listen == "" {
		return nil
	}
	if d.Gate, err = a.gate(s, ctl.Store, d.Log); err != nil {
		return err
	}
	d.Web, err = dashboard(ctl, d.Gate, d.Log)
	return err
}

// dashboard is what browsers see behind a gate.
func dashboard(ctl *controller.Controller, gate *access.Gate, log *slog.Logger) (http.Handler, error) {
	return web.New(web.Config{
		Controller: ctl, Gate: gate, Guard: access.NewGuard(ctl.Store, nil), Version: version(), Log: log,
	})
}

// doors says where the API is served.
func (s serving) doors(socket string, log *slog.Logger) (api.Doors, error) {
	d := api.Doors{Socket: socket, TCP: s.listen, Log: log}
	if s.listen == "" {
		if s.tokens != "" || s.access != "" || s.cert != "" || s.key != "" {
			return d, usage("add --listen host:port", "--token-file, --access-file, --tls-cert and --tls-key are for --listen")
		}
		return d, nil
	}
	if s.cert == "" && !loopback(s.listen) {
		return d, usage("add --tls-cert and --tls-key, or listen on 127.0.0.1", "--listen %s: without TLS only on loopback, since tokens would be read on the way", s.listen)
	}
	if s.cert == "" && s.key != "" {
		return d, usage("add --tls-cert FILE", "--tls-key is the key of a certificate")
	}
	if s.cert != "" {
		own, err := newOwnPair(s.cert, s.key, s.listen, log)
		if err != nil {
			return d, err
		}
		d.TLS = &tls.Config{GetCertificate: own.get, MinVersion: tls.VersionTLS12}
	}
	return d, nil
}

// loopback reports that an address to listen at is reached from this machine only.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}
