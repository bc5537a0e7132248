package target

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/haproxyctl"
)

// haproxy are the options of the kind haproxy.
type haproxy struct {
	options
	Socket  string   `json:"socket,omitempty" doc:"HAProxy's admin socket as the node reaches it: a path, or an address and port"`
	Runtime []string `json:"runtime" doc:"command that connects its input and output to the socket, for nodes whose SSH server forwards no sockets; empty: the socket itself"`
	CrtList string   `json:"crt_list,omitempty" doc:"crt-list that takes up certificates which HAProxy does not know yet; the line in the file itself is yours"`
}

// Facts checks the options; see deploy.Options. A group is one HAProxy, since its
// transaction is: whatever else is said of it.
func (o haproxy) Facts() (identity, group string, err error) {
	for i, p := range o.pairs() {
		field := "pem"
		if i > 0 {
			field = fmt.Sprintf("more[%d].pem", i-1)
		}
		if p.PEM == "" {
			return "", "", &deploy.FieldError{Field: field, Problem: "HAProxy reads chain and key from one file", Hint: "the path that crt names"}
		}
		if err := checkName(field, p.PEM); err != nil {
			return "", "", err
		}
	}
	if o.CrtList != "" {
		if err := checkName("crt_list", o.CrtList); err != nil {
			return "", "", err
		}
	}
	if err := checkArgv("runtime", o.Runtime); err != nil {
		return "", "", err
	}
	if network, _ := haproxyctl.Socket(o.Socket); network == "" {
		return "", "", &deploy.FieldError{Field: "socket", Problem: fmt.Sprintf("%q is neither a path nor an address and port", o.Socket), Hint: "as in /run/haproxy/admin.sock, what `stats socket` names"}
	}
	identity, _, err = o.facts("haproxy")
	return identity, fmt.Sprintf("haproxy socket=%q store=%q", o.Socket, o.Store), err
}

// checkName holds a path to what can be a word on HAProxy's command line.
func checkName(field, name string) error {
	if strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(`;<*\`, r) }) {
		return &deploy.FieldError{Field: field, Problem: fmt.Sprintf("%q has a space or one of ; < * \\", name), Hint: "HAProxy's runtime commands take such names apart"}
	}
	return checkPath(field, name)
}

// HAProxy is HAProxy 2.2 or newer on a node: `crt` names what pem names here. The
// files are written as for other servers, so that a restart serves the same; the
// running process gets them over its admin socket, without a reload and without
// losing a connection. A certificate that it does not know, or a socket where
// nobody answers, is for the reload command.
//
// HAProxy has one transaction for all certificates. While it is open for one, what
// is set for another goes into it, and the next commit serves the wrong
// certificate: seen with 2.6. So every reply's name is compared, what is about to be
// committed is looked at before, and what is served after; see swap.
func HAProxy() deploy.Kind {
	return deploy.Define(deploy.Kind{
		Name:  "haproxy",
		Doc:   "HAProxy: files and its runtime API, no reload",
		Fence: "unfenced",
	}, haproxy{
		options: options{upkeep: upkeep{
			Store:  defaultStore,
			Mode:   "0600",
			Test:   []string{"haproxy", "-c", "-f", "/etc/haproxy/haproxy.cfg"},
			Reload: []string{"systemctl", "reload", "haproxy"},
			Start:  []string{"systemctl", "start", "haproxy"},
		}},
		Socket: "/run/haproxy/admin.sock",
	}, func(o haproxy, s deploy.Setup) (deploy.Deployer, error) {
		e := newEngine(o.options, s)
		network, address := haproxyctl.Socket(o.Socket)
		r := runtime{engine: e, cli: cli{haproxyctl.Line{Host: s.Host, Network: network, Address: address, Command: o.Runtime}}, list: o.CrtList}
		e.wake = r.wake
		return e, nil
	})
}

// runtime brings what is on disk into a running HAProxy.
type runtime struct {
	*engine
	cli  cli
	list string // crt-list for new certificates; empty: none
}

// wake gives HAProxy what the live paths hold, or has it reloaded where that
// cannot be.
func (r runtime) wake(ctx context.Context, all []area) error {
	for _, a := range all {
		if err := r.give(ctx, a); err != nil {
			if len(r.Reload) > 0 && (errors.Is(err, errDown) || errors.Is(err, errUnknown)) {
				return r.run(ctx, "reload", r.Reload) // it reads all files
			}
			return err
		}
	}
	return nil
}

// give swaps all certificates of one target. A path that does not lead into the
// store was never switched, and HAProxy has what it had.
func (r runtime) give(ctx context.Context, a area) error {
	st, err := r.look(ctx, a)
	if err != nil {
		return err
	}
	live, _, err := r.live(ctx, a)
	if err != nil {
		return err
	}
	for _, f := range a.files() {
		if !st.linked[f.Live] {
			continue
		}
		if err := r.swap(ctx, f.Live, live[f.Name]); err != nil {
			return fmt.Errorf("giving HAProxy %s: %w", f.Live, err)
		}
	}
	return nil
}
