package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/api"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/store"
)

// openLab opens the API of the lab, h, and its dashboard if there is time to look at it.
func (a *app) openLab(ctx context.Context, l *lab.Lab, r *rehearsing, h http.Handler, log *slog.Logger) (*api.Open, error) {
	d := api.Doors{Socket: a.socketPath(), Log: log}
	if r.once {
		return api.Listen(h, d)
	}
	var err error
	if d.Gate, err = access.NewGate(access.Config{Store: l.Controller.Store, Log: log}); err != nil {
		return nil, err
	}
	if d.Web, err = dashboard(l.Controller, d.Gate, log); err != nil {
		return nil, err
	}
	d.TCP = "127.0.0.1:0"
	_, secret, err := access.Desk{Store: l.Controller.Store}.Create(ctx, access.TokenAsk{
		Name: store.NewID("lab"), Grants: []store.Grant{{Role: string(access.Admin)}}, Life: 24 * time.Hour,
	}, access.Local("lab"))
	if err != nil {
		return nil, err
	}
	open, err := api.Listen(h, d)
	if err != nil {
		return nil, err
	}
	r.dashboard = fmt.Sprintf("http://%s with the token %s", open.Addrs()[1], secret.Reveal())
	return open, nil
}

// explore says what to try while the lab is up.
func (a *app) explore(l *lab.Lab, dashboard string) {
	me := os.Args[0]
	if strings.Contains(me, "go-build") { // `go run` keeps the program in a folder of its own
		me = "go run ./cmd/certfarm"
	}
	a.say("\nThe farm stays up until Ctrl-C. Look at it on %s", dashboard)
	a.say("\nor try, in another terminal:\n")
	for _, c := range []string{
		"get sites", "describe site " + l.Site, "verify " + l.Site, "renew " + l.Site, "rollout status " + l.Site, "events --follow",
	} {
		a.say("  %s %s --state %s", me, c, a.state)
	}
	_, port, _ := net.SplitHostPort(l.Balancer.HTTPSAddr())
	name := l.Layout.Names[0]
	a.say("  curl --insecure --resolve %s:%s:127.0.0.1 https://%s:%s/\n", name, port, name, port)
}
