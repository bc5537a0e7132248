package iis

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"

	"github.com/certfarm/certfarm/internal/deploy"
)

// Overruled is the trouble of a binding whose certificate clients do not get, since
// http.sys has one for the address alone: it looks first for the very address, then
// for the name (SNI), then into the Centralized Certificate Store, and last for all
// addresses.
const Overruled = "overruled"

// Unread is the trouble of a server or a binding of it that does not take its
// certificates from the store, or looks for changes less often than is believed.
const Unread = "unread"

var _, _ deploy.Auditor = (*machine)(nil), (*central)(nil)

// Audit is deploy.Auditor's: it names the bindings that are overruled.
func (d *machine) Audit(ctx context.Context, _ deploy.Audit) ([]deploy.Flaw, error) {
	return d.overruled(ctx, d.options)
}

// Audit looks through the folder as ccs.Store's does, and names the bindings that
// are overruled.
func (d *central) Audit(ctx context.Context, a deploy.Audit) ([]deploy.Flaw, error) {
	all, err := d.files.Audit(ctx, a)
	if err != nil || d.options.Mode != Bindings {
		return all, err
	}
	more, err := d.overruled(ctx, d.options)
	return append(all, more...), err
}

func (s shell) overruled(ctx context.Context, o Options) ([]deploy.Flaw, error) {
	if o.Mode != Bindings {
		return nil, nil
	}
	n, err := s.look(ctx)
	if err != nil {
		return nil, err
	}
	return n.overruled(o), nil
}

func (n node) overruled(o Options) (all []deploy.Flaw) {
	if o.Mode != Bindings {
		return nil
	}
	for _, b := range n.bindings {
		if !o.mine(b) || b.Flags&(flagSNI|flagCentral) == 0 {
			continue
		}
		served, _ := n.record(b.at())
		i := slices.IndexFunc(n.records, func(r record) bool { return r.hash != served.hash && r.above(b) })
		if i >= 0 {
			all = append(all, deploy.Flaw{
				Place: b.Info, Trouble: Overruled,
				Problem: fmt.Sprintf("clients that reach %s get the certificate %s, which http.sys has for that address, and not that of %s", n.records[i].at, short(n.records[i].hash), b),
				Hint:    "give the other binding SNI, or take it away: netsh http show sslcert ipport=" + n.records[i].at,
			})
		}
	}
	return all
}

// unread is what keeps a server from taking its certificates from the store.
func (n node) unread(o Options) (all []deploy.Flaw) {
	add := func(place, hint, format string, args ...any) {
		all = append(all, deploy.Flaw{Place: place, Trouble: Unread, Problem: fmt.Sprintf(format, args...), Hint: hint})
	}
	const provider = "Centralized Certificate Store"
	switch every := cmp.Or(n.provider.interval, defaultInterval); {
	case !n.provider.enabled:
		add(provider, "a rollout enables it", "it is not enabled")
	case !samePath(n.provider.location, o.Path):
		add(provider, "Set-WebCentralCertProvider, or correct `location`", "it is %s, not %s", n.provider.location, o.Path)
	case every > o.interval():
		add(provider, "Set-WebCentralCertProvider -PollingInterval, or correct `polling_interval`", "IIS looks for changes every %d seconds, not every %s", every, o.PollingInterval)
	}
	if o.Mode != Bindings {
		return all
	}
	for _, b := range n.bindings {
		if o.mine(b) && b.Flags&flagCentral == 0 {
			add(b.Info, "a rollout mends it", "the binding %s has a certificate of its own", b)
		}
	}
	return all
}

// above reports that http.sys looks at a record, which is for one address, before it
// looks at a binding's name.
func (r record) above(b binding) bool {
	ip, port, err := net.SplitHostPort(r.at)
	a := net.ParseIP(ip)
	if err != nil || a == nil || a.IsUnspecified() || r.hash == "" {
		return false
	}
	return port == b.Port && (b.IP == "*" || b.IP == ip)
}
