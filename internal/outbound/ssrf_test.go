package outbound_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/cloud"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/notify"
	"github.com/certfarm/certfarm/internal/notify/shout"
	"github.com/certfarm/certfarm/internal/outbound"
)

// asHelper has this test's own program be the helper of kind shoutrrr; the address of
// the resolver follows.
const asHelper = "CERTFARM_TEST_SHOUT"

func TestMain(m *testing.M) {
	if len(os.Args) != 3 || os.Args[1] != asHelper {
		os.Exit(m.Run())
	}
	net.DefaultResolver = resolverAt(os.Args[2])
	if err := shout.Main(os.Stdin, os.Stdout); err != nil {
		os.Exit(1)
	}
	syscall.Exit(0) // os.Exit would wait a second for more races
}

// A call goes to a host with a port, inside which only the allowed networks may be.
type call func(ctx context.Context, host, resolver string, allow ...string) error

// callers are what farm.yaml can aim anywhere, and that must not reach what only the
// controller can reach: one line for each.
func callers() map[string]call {
	return map[string]call{
		"target webhook": callTarget,
		"sign of life": func(ctx context.Context, host, _ string, allow ...string) error {
			return notify.Ping(ctx, farm.NewSecret([]byte("http://"+host+"/")), allow, "")
		},
		"mail": receiver("mail", func(host string) (map[string]any, map[string]string) {
			return map[string]any{"server": host, "tls": "none", "from": "a@example.com", "to": []string{"b@example.com"}}, nil
		}),
		"mail over TLS": receiver("mail", func(host string) (map[string]any, map[string]string) {
			return map[string]any{"server": host, "tls": "tls", "from": "a@example.com", "to": []string{"b@example.com"}}, nil
		}),
		"pagerduty": receiver("pagerduty", func(host string) (map[string]any, map[string]string) {
			return map[string]any{"url": "http://" + host + "/"}, map[string]string{"routing_key": "key"}
		}),
		"webhook": receiver("webhook", func(host string) (map[string]any, map[string]string) {
			return map[string]any{"url": "http://" + host + "/"}, map[string]string{"hmac": strings.Repeat("k", outbound.MinHMAC)}
		}),
		"slack": receiver("slack", secretURL("http://%s/")),
		"teams": receiver("teams", secretURL("http://%s/")),
		// One of each way in which the library is given the guard: the transport that all
		// share, and a client.
		"shoutrrr ntfy":   receiver("shoutrrr", secretURL("ntfy://%s/topic?scheme=http")),
		"shoutrrr gotify": receiver("shoutrrr", secretURL("gotify://%s/AaaaaaaaaaaaaaA?disabletls=yes")),
	}
}

// secretURL is of the kinds whose URL is their only secret.
func secretURL(pattern string) func(host string) (map[string]any, map[string]string) {
	return func(host string) (map[string]any, map[string]string) {
		return map[string]any{}, map[string]string{"url": fmt.Sprintf(pattern, host)}
	}
}

// receiver sends a message to a receiver of notifications.
func receiver(kind string, at func(host string) (options map[string]any, secrets map[string]string)) call {
	return func(ctx context.Context, host, resolver string, allow ...string) error {
		options, named := at(host)
		options["allow_private"] = allow
		raw, err := json.Marshal(options)
		if err != nil {
			return err
		}
		secrets := map[string]farm.Secret{}
		for name, s := range named {
			secrets[name] = farm.NewSecret([]byte(s))
		}
		k, _ := notify.KindOf(kind)
		s, err := k.Open(raw, notify.Setup{Secrets: secrets, Helper: []string{os.Args[0], asHelper, resolver}})
		if err != nil {
			return err
		}
		return s.Send(ctx, notify.Message{ID: "1", Notice: "1", Farm: "shop", Title: "title", Text: "text", At: time.Now()})
	}
}

func callTarget(ctx context.Context, host, _ string, allow ...string) error {
	options, err := json.Marshal(map[string]any{"url": "http://" + host + "/", "allow_private": allow})
	if err != nil {
		return err
	}
	key := farm.NewSecret([]byte(strings.Repeat("k", outbound.MinHMAC)))
	d, err := deploy.NewKinds(cloud.All()...).Open("webhook", options, deploy.Setup{Secrets: map[string]farm.Secret{"hmac": key}})
	if err != nil {
		return err
	}
	_, err = d.Inspect(ctx)
	return err
}

// insides are the hosts that a guarded caller must not connect to, in every way to
// write them.
func insides() []string {
	return []string{
		"127.0.0.1", "127.9.9.9", "localhost", "0.0.0.0", "0",
		"2130706433", "0x7f000001", "0177.0.0.1", "127.1", // numbers that resolvers of some systems take for 127.0.0.1
		"[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
		"10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "[fd00::1]", "[fec0::1]",
		"169.254.169.254", "[::ffff:169.254.169.254]", "[fe80::1]", "[fd00:ec2::254]", "168.63.129.16", "2852039166",
	}
}

// stopped reports that a call ended at the dialer, or at a name that there is none of:
// no packet has left for the address.
func stopped(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "is not a public address") || strings.Contains(err.Error(), "no such host"))
}

// within is how long one call may take.
const within = 20 * time.Second

// TestNoCallGoesInside asks every caller for every such address: every call is stopped
// before its time is up, and listeners on both loopbacks hear of no connection.
func TestNoCallGoesInside(t *testing.T) {
	names := newNames(t)
	var heard atomic.Int64
	port := listen(t, "127.0.0.1:0", &heard)
	listen(t, "[::1]:"+port, &heard)
	for name, call := range callers() {
		t.Run(name, func(t *testing.T) {
			for _, host := range insides() {
				ctx, stop := context.WithTimeout(t.Context(), within)
				if err := call(ctx, host+":"+port, names.address); !stopped(err) {
					t.Errorf("%s is dialled: %v", host, err)
				}
				stop()
			}
			if n := heard.Swap(0); n != 0 {
				t.Errorf("it made %d connections inside", n)
			}
			ctx, stop := context.WithTimeout(t.Context(), within)
			defer stop()
			_ = call(ctx, "127.0.0.1:"+port, names.address, "127.0.0.1") // what it is told does not matter: that it is heard does
			if heard.Swap(0) == 0 {
				t.Error("it is not heard where it may call")
			}
		})
	}
}

// TestNoNameLeadsInside has a name that leads first to an address that may be called,
// and from the second question on inside: what is judged is the address that is dialled.
func TestNoNameLeadsInside(t *testing.T) {
	names := newNames(t)
	var open, inside atomic.Int64
	port := listen(t, "127.0.0.1:0", &open)
	listen(t, "127.0.0.2:"+port, &inside)
	for name, call := range callers() {
		t.Run(name, func(t *testing.T) {
			names.rebind("127.0.0.1", "127.0.0.2")
			for i := range 3 {
				ctx, stop := context.WithTimeout(t.Context(), within)
				err := call(ctx, rebound+":"+port, names.address, "127.0.0.1")
				stop()
				if i > 0 && !stopped(err) {
					t.Errorf("call %d is not stopped: %v", i+1, err)
				}
			}
			if open.Swap(0) == 0 {
				t.Error("the first address was not dialled, which may be")
			}
			if n := inside.Swap(0); n != 0 {
				t.Errorf("it made %d connections inside", n)
			}
		})
	}
}

// listen counts the connections to an address, and ends each at once. It returns the
// port. Not every machine has every address: where there is none, nothing can go.
func listen(t *testing.T, address string, heard *atomic.Int64) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Logf("nobody listens: %v", err)
		return ""
	}
	t.Cleanup(func() { _ = l.Close() }) // it was only to listen
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			heard.Add(1)
			_ = c.Close()
		}
	}()
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// TestNoCallIsLedInside has a server that may be called send its caller inside.
func TestNoCallIsLedInside(t *testing.T) {
	names := newNames(t)
	var reached atomic.Bool
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) }))
	defer inside.Close()
	for name, call := range callers() {
		if strings.HasPrefix(name, "mail") {
			continue // SMTP has no redirects
		}
		for _, code := range []int{301, 302, 303, 307, 308} {
			outside := httptest.NewServer(http.RedirectHandler(inside.URL, code))
			err := call(t.Context(), outside.Listener.Addr().String(), names.address, "127.0.0.1")
			outside.Close()
			if err == nil || reached.Swap(false) {
				t.Errorf("%s: a %d is followed: %v", name, code, err)
			}
		}
	}
}
