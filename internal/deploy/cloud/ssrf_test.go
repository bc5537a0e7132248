package cloud_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/cloud"
	"github.com/certfarm/certfarm/internal/farm"
)

// callers are what farm.yaml can aim anywhere, and that must not reach what only the
// controller can reach: one line for each.
func callers() map[string]func(ctx context.Context, url string, allow ...string) error {
	return map[string]func(context.Context, string, ...string) error{
		"webhook": callWebhook,
	}
}

func callWebhook(ctx context.Context, url string, allow ...string) error {
	options, err := json.Marshal(map[string]any{"url": url, "allow_private": allow})
	if err != nil {
		return err
	}
	key := farm.NewSecret([]byte(strings.Repeat("k", 32)))
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

// TestNoCallGoesInside asks every caller for every such address: listeners on both
// loopbacks hear of no connection, and every call is refused before its time is up.
func TestNoCallGoesInside(t *testing.T) {
	var heard atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			heard.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if six, err := net.Listen("tcp", "[::1]:"+port); err == nil { // not every machine has it
		defer six.Close()
		go func() {
			for c, err := six.Accept(); err == nil; c, err = six.Accept() {
				heard.Add(1)
				_ = c.Close()
			}
		}()
	}
	for name, call := range callers() {
		for _, host := range insides() {
			ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
			err := call(ctx, "http://"+host+":"+port+"/")
			if err == nil || ctx.Err() != nil {
				t.Errorf("%s: %s is dialled: %v", name, host, err)
			}
			stop()
		}
		if n := heard.Load(); n != 0 {
			t.Errorf("%s made %d connections inside", name, n)
		}
		_ = call(t.Context(), server.URL, "127.0.0.1") // what it is told does not matter: that it is heard does
		if heard.Swap(0) == 0 {
			t.Errorf("%s is not heard where it may call", name)
		}
		t.Run(name+" and redirects", func(t *testing.T) { staysOutside(t, call) })
	}
}

// staysOutside has a server that may be called send its caller inside.
func staysOutside(t *testing.T, call func(context.Context, string, ...string) error) {
	t.Helper()
	var reached atomic.Bool
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) }))
	defer inside.Close()
	for _, code := range []int{301, 302, 303, 307, 308} {
		outside := httptest.NewServer(http.RedirectHandler(inside.URL, code))
		err := call(t.Context(), outside.URL, "127.0.0.1")
		outside.Close()
		if err == nil || reached.Load() {
			t.Errorf("a %d is followed: %v", code, err)
		}
	}
}
