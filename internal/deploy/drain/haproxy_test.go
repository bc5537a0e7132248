package drain_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/deploy/drain"
	"github.com/certfarm/certfarm/internal/deploy/haproxyctl"
	"github.com/certfarm/certfarm/internal/host/local"
)

// proxy is a real HAProxy before real web servers, with an admin socket.
type proxy struct {
	front string
	line  haproxyctl.Line
}

// startHAProxy has a backend www with the servers web1, web2, … and lines of
// configuration that are added to each.
func startHAProxy(t *testing.T, more string, servers ...http.Handler) proxy {
	t.Helper()
	program, err := exec.LookPath("haproxy")
	if err != nil {
		t.Skip("haproxy is not installed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := proxy{front: l.Addr().String()}
	must(t, l.Close())
	dir, err := os.MkdirTemp("", "hap") //nolint:usetesting // the path of a socket is short
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	p.line = haproxyctl.Line{Host: local.New(local.Config{}), Network: "unix", Address: filepath.Join(dir, "s")}
	text := fmt.Sprintf("global\n  stats socket %s level admin\ndefaults\n  mode http\n  timeout client 5s\n  timeout server 5s\n  timeout connect 5s\nfrontend f\n  bind %s\n  default_backend www\nbackend www\n  balance roundrobin\n", p.line.Address, p.front)
	for i, h := range servers {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		text += fmt.Sprintf("  server web%d %s %s\n", i+1, s.Listener.Addr(), more)
	}
	conf := filepath.Join(dir, "cfg")
	must(t, os.WriteFile(conf, []byte(text), 0o600))
	cmd := exec.Command(program, "-db", "-f", conf)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) { // no event tells that it is up
		if _, err := p.line.Ask(t.Context(), "show info\n"); err == nil {
			return p
		} else if time.Since(begin) > 20*time.Second {
			t.Fatalf("HAProxy does not start: %v", err)
		}
	}
}

func (p proxy) server(name string) drain.HAProxy { return drain.NewHAProxy(p.line, "lb1", "www/"+name) }

func (p proxy) set(t *testing.T, command string) {
	t.Helper()
	reply, err := p.line.Ask(t.Context(), "set server www/"+command+"\n")
	if err != nil || reply != "" {
		t.Fatal(reply, err)
	}
}

func stands(t *testing.T, h drain.HAProxy, want drain.State) {
	t.Helper()
	if s, err := h.State(t.Context()); err != nil || s != want {
		t.Errorf("%s stands %v, want %v (%v)", h.Name(), s, want, err)
	}
}

func TestHAProxyStates(t *testing.T) {
	p := startHAProxy(t, "", http.NotFoundHandler(), http.NotFoundHandler())
	web1 := p.server("web1")
	stands(t, web1, drain.In)
	for range 2 {
		must(t, web1.Out(t.Context()))
		stands(t, web1, drain.Out)
	}
	for range 2 {
		must(t, web1.Back(t.Context()))
		stands(t, web1, drain.In)
	}
	p.set(t, "web1 state maint")
	stands(t, web1, drain.Held)
	_, err := p.server("web3").State(t.Context())
	if err == nil || !strings.Contains(err.Error(), "has no server web3") {
		t.Errorf("no such server: %v", err)
	}
	_, err = drain.NewHAProxy(p.line, "lb1", "api/web1").State(t.Context())
	if err == nil || !strings.Contains(err.Error(), "Can't find backend") {
		t.Errorf("no such backend: %v", err)
	}
	p.line.Address += "-gone"
	if _, err = p.server("web1").State(t.Context()); !errors.Is(err, haproxyctl.ErrDown) {
		t.Errorf("nobody there: %v", err)
	}
}

// The last server that takes connections stays in, also where the other one is
// drained at the same moment.
func TestHAProxyKeepsTheLast(t *testing.T) {
	p := startHAProxy(t, "", http.NotFoundHandler(), http.NotFoundHandler())
	web1, web2 := p.server("web1"), p.server("web2")
	for name, command := range map[string]string{"drained": "web2 state drain", "in maintenance": "web2 state maint", "without weight": "web2 weight 0"} {
		p.set(t, command)
		if err := web1.Out(t.Context()); err == nil || !strings.Contains(err.Error(), "last: true") {
			t.Errorf("the other is %s: %v", name, err)
		}
		stands(t, web1, drain.In)
		p.set(t, "web2 state ready")
		p.set(t, "web2 weight 100%")
	}
	for range 20 {
		var both [2]error
		var wg sync.WaitGroup
		wg.Go(func() { both[0] = web1.Out(t.Context()) })
		wg.Go(func() { both[1] = web2.Out(t.Context()) })
		wg.Wait()
		if both[0] == nil && both[1] == nil {
			t.Fatal("both were taken out")
		}
		must(t, web1.Back(t.Context()))
		must(t, web2.Back(t.Context()))
	}
	p.set(t, "web2 state maint")
	web1.Last = true
	must(t, web1.Out(t.Context()))
	stands(t, web1, drain.Out)
}

// Connections that are open when the drain begins are counted until they end.
func TestHAProxyCountsConnections(t *testing.T) {
	arrived, leave := make(chan struct{}), make(chan struct{})
	slow := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-leave
	})
	p := startHAProxy(t, "", slow, slow)
	var clients sync.WaitGroup
	for range 2 { // round robin: one for each
		clients.Go(func() {
			r, err := http.Get("http://" + p.front)
			if err != nil {
				t.Error(err)
				return
			}
			r.Body.Close()
		})
	}
	<-arrived
	<-arrived
	web1 := p.server("web1")
	must(t, web1.Out(t.Context()))
	if n, err := web1.Open(t.Context()); n != 1 || err != nil {
		t.Errorf("%d open, want 1 (%v)", n, err)
	}
	close(leave)
	clients.Wait()
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) { // HAProxy tells nobody
		if n, err := web1.Open(t.Context()); err == nil && n == 0 {
			break
		} else if time.Since(begin) > 20*time.Second {
			t.Fatalf("%d open (%v)", n, err)
		}
	}
}
