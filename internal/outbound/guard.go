package outbound

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
)

// ErrForbidden is an address that nothing may go to.
var ErrForbidden = errors.New("name its network in allow_private if that is meant")

// A Guard decides which addresses may be dialled on behalf of farm.yaml: not this
// machine, not its link (where clouds hand out credentials), no private network,
// but for those that were named. The zero Guard lets public addresses pass alone.
type Guard struct{ allowed []netip.Prefix }

// inner are the networks that do not lead to a public host, beside those that
// netip knows (IANA special-purpose address registries); the last is where Azure's
// machines ask their platform.
func inner() []netip.Prefix {
	var all []netip.Prefix
	for _, p := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "fec0::/10",
		"168.63.129.16/32",
	} {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

// carriers are the IPv6 networks whose addresses carry one of IPv4, with the byte
// where it begins (RFC 6052, RFC 3056).
func carriers() map[netip.Prefix]int {
	return map[netip.Prefix]int{
		netip.MustParsePrefix("64:ff9b::/96"): 12,
		netip.MustParsePrefix("2002::/16"):    2,
	}
}

// Check says why an address may not be dialled.
func (g Guard) Check(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	if slices.ContainsFunc(g.allowed, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return nil
	}
	closed := !a.IsGlobalUnicast() || a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() ||
		slices.ContainsFunc(inner(), func(p netip.Prefix) bool { return p.Contains(a) })
	if closed {
		return fmt.Errorf("%s is not a public address: %w", a, ErrForbidden)
	}
	for p, at := range carriers() {
		if p.Contains(a) {
			b := a.As16()
			return g.Check(netip.AddrFrom4([4]byte(b[at : at+4])))
		}
	}
	return nil
}

// Control is net.Dialer's: it is asked for every address, after the name was
// looked up and just before the connection is made, so no second answer of DNS can
// slip in between.
func (g Guard) Control(_ context.Context, _, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%q is no address: %w", address, ErrForbidden)
	}
	return g.Check(at.Addr())
}

// Transport guards a transport. Through a proxy the dialer sees the proxy alone:
// then the name is looked up here first, and every address that it has is checked;
// what the proxy finds when it looks is up to the proxy.
func (g Guard) Transport(t *http.Transport) http.RoundTripper {
	if t.Proxy == nil {
		t.DialContext = (&net.Dialer{Timeout: dialWithin, ControlContext: g.Control}).DialContext
		return t
	}
	return proxied{guard: g, inner: t}
}

// proxied checks the addresses of a name before a proxy is asked for it.
type proxied struct {
	guard Guard
	inner http.RoundTripper
}

// RoundTrip is http.RoundTripper's.
func (p proxied) RoundTrip(r *http.Request) (*http.Response, error) {
	addresses, err := net.DefaultResolver.LookupNetIP(r.Context(), "ip", r.URL.Hostname())
	if err != nil {
		return nil, err
	}
	for _, a := range addresses {
		if err := p.guard.Check(a); err != nil {
			return nil, err
		}
	}
	return p.inner.RoundTrip(r)
}

// The widest networks that may be allowed, in bits: a wider one is a slip.
const (
	widest4 = 8
	widest6 = 7 // fc00::/7, all private ones
)

// A WideError is a network that a Guard is not told of: none, or too wide a one.
type WideError struct {
	At   int // in the list
	Text string
}

// Error says which.
func (e *WideError) Error() string {
	return fmt.Sprintf("%q is no network, or too wide a one", e.Text)
}

// NewGuard makes a guard that lets pass the given networks, too: 10.1.2.0/24, or one
// address. An error is a *WideError.
func NewGuard(networks []string) (Guard, error) {
	var g Guard
	for i, text := range networks {
		p, err := netip.ParsePrefix(text)
		if a, notPrefix := netip.ParseAddr(text); notPrefix == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil || p != p.Masked() || p.Addr().Is4() && p.Bits() < widest4 || p.Addr().Is6() && p.Bits() < widest6 || p.Addr().Is4In6() {
			return g, &WideError{At: i, Text: text}
		}
		g.allowed = append(g.allowed, p)
	}
	return g, nil
}
