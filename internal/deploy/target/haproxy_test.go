package target

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/json"
	"fmt"
	"net"
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/hosttest"
)

// fakeProxy answers on its admin socket as HAProxy 2.6 does, its one transaction
// for all certificates included.
type fakeProxy struct {
	net.Listener
	knows func(name string) bool

	mu      sync.Mutex
	certs   map[string]string // what is served
	pending string            // name of the open transaction
	staged  string
}

func startFakeProxy(t *testing.T, knows func(name string) bool) *fakeProxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &fakeProxy{Listener: l, knows: knows, certs: map[string]string{}}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			wg.Go(func() {
				defer context.AfterFunc(ctx, func() { c.Close() })() // a call whose answer was lost leaves it open
				p.serve(c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); cancel(); wg.Wait() })
	return p
}

func (p *fakeProxy) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	line, err := in.ReadString('\n')
	var payload strings.Builder
	for err == nil && strings.HasSuffix(line, "<<\n") {
		var more string
		if more, err = in.ReadString('\n'); more == "\n" {
			break
		}
		payload.WriteString(more)
	}
	if err == nil {
		fmt.Fprintf(c, "%s\n\n", p.answer(strings.Fields(line), payload.String()))
	}
}

func (p *fakeProxy) answer(words []string, payload string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	name := words[3]
	_, known := p.certs[name]
	known = known || p.knows(name)
	switch words[0] {
	case "show":
		if pending, ok := strings.CutPrefix(name, "*"); ok && pending == p.pending {
			return p.describe(name, p.staged)
		}
		if !known {
			return "Can't display the certificate: Not found or the certificate is a bundle!"
		}
		return p.describe(name, p.certs[name])
	case "new":
		p.certs[name] = ""
		return fmt.Sprintf("New empty certificate store '%s'!", name)
	case "add":
		return fmt.Sprintf("Inserting certificate '%s' in crt-list '%s'.\nSuccess!", words[4], name)
	case "set":
		verb := "updated"
		switch {
		case p.pending != "":
		case !known:
			return "Can't replace a certificate which is not referenced by the configuration!"
		default:
			verb, p.pending = "created", name
		}
		p.staged = payload
		return fmt.Sprintf("Transaction %s for certificate %s!", verb, p.pending)
	}
	switch {
	case p.pending == "":
		return "No ongoing transaction!"
	case p.pending != name:
		return fmt.Sprintf("The ongoing transaction is about '%s' but you are trying to set '%s'", p.pending, name)
	}
	if words[0] == "commit" {
		if _, err := encode.Pair([]byte(p.staged), []byte(p.staged)); err != nil {
			return "inconsistencies between private key and certificate loaded"
		}
		p.certs[name] = p.staged
	}
	p.pending = ""
	return "Committing " + name + ".\nSuccess!"
}

func (p *fakeProxy) describe(name, text string) string {
	leaf, err := encode.Leaf([]byte(text))
	if err != nil {
		return "Filename: " + name + "\nStatus: Empty"
	}
	return fmt.Sprintf("Filename: %s\nStatus: Used\nSerial: %X\nSHA1 FingerPrint: %X\nIssuer: x", name, leaf.SerialNumber, sha1.Sum(leaf.Raw))
}

// Over the admin socket, where every call to it may be cut off, too.
func TestHAProxy(t *testing.T) {
	deploytest.Run(t, func(t *testing.T) deploytest.Bench {
		p := startFakeProxy(t, func(string) bool { return true })
		return proxyBench(t, p.Addr().String(), "", "haproxy -c -f /etc/haproxy/haproxy.cfg", "")
	})
}

// With new certificates, which a crt-list takes up.
func TestHAProxyCrtList(t *testing.T) {
	deploytest.Run(t, func(t *testing.T) deploytest.Bench {
		p := startFakeProxy(t, func(string) bool { return false })
		b := proxyBench(t, p.Addr().String(), "/etc/haproxy/list", "haproxy -c -f /etc/haproxy/haproxy.cfg", "")
		b.Stride = 2 // TestHAProxy cuts after every call
		return b
	})
}

// Where nobody answers at the socket, and so with a reload.
func TestHAProxyReload(t *testing.T) {
	deploytest.Run(t, func(t *testing.T) deploytest.Bench {
		b := proxyBench(t, freeAddr(t), "", "haproxy -c -f /etc/haproxy/haproxy.cfg", "systemctl reload haproxy")
		b.Stride = 3 // TestNginx cuts after every call: it is the same engine
		return b
	})
}

func proxyBench(t *testing.T, socket, list, test, reload string) deploytest.Bench {
	t.Helper()
	m := &hosttest.Mem{}
	f := &hosttest.Faulty{Linked: m}
	open := func(names ...string) deploytest.Target {
		o := map[string]any{"socket": socket, "crt_list": list}
		if reload == "" {
			o["reload"], o["start"] = []string{}, []string{}
		}
		of := deploytest.Target{Keys: []farm.KeyType{farm.EC256, farm.RSA2048}[:len(names)]}
		for i, name := range names {
			live := path.Join("/etc/tls", name)
			of.Live = append(of.Live, [2]string{live, live})
			if i == 0 {
				o["pem"] = live
			} else {
				o["more"] = []any{map[string]any{"keys": "rsa2048", "pem": live}}
			}
		}
		text, err := json.Marshal(o)
		must(t, err)
		of.Deployer, err = All().Open("haproxy", text, deploy.Setup{Host: f})
		must(t, err)
		return of
	}
	return deploytest.Bench{
		Host: f, Target: open("shop.pem"), Second: open("blog.pem"), Double: open("both.pem.ecdsa", "both.pem.rsa"),
		Test: test, Reload: reload,
		Plain: func(_ deploytest.T, of deploytest.Target, b farm.Bundle) {
			must(t, m.Mkdir(t.Context(), "/etc/tls", host.Attr{Mode: 0o755}))
			text, err := format{}.text(combined, b)
			must(t, err)
			must(t, m.Write(t.Context(), of.Live[0][0], text, host.Attr{Mode: 0o600}))
		},
	}
}

// A node whose SSH server forwards no sockets has a command for the socket.
func TestHAProxyByCommand(t *testing.T) {
	p := startFakeProxy(t, func(string) bool { return true })
	m := &hosttest.Mem{}
	m.Exec = func(_ context.Context, argv []string, stdin []byte) ([]byte, error) {
		if argv[0] != "socat" {
			return nil, nil
		}
		head, rest, _ := strings.Cut(string(stdin), "\n")
		return []byte(p.answer(strings.Fields(head), strings.TrimSuffix(rest, "\n")) + "\n\n"), nil
	}
	d, err := All().Open("haproxy", []byte(`{"pem": "/etc/shop.pem", "runtime": ["socat", "-t5", "-", "UNIX-CONNECT:/run/haproxy/admin.sock"]}`), deploy.Setup{Host: m})
	must(t, err)
	b := deploytest.NewBundle(t, farm.EC256)
	activate(t, d, 1, b)
	if leaf, err := encode.Leaf([]byte(p.certs["/etc/shop.pem"])); err != nil || farm.Fingerprint(leaf.Raw) != b.Leaf {
		t.Errorf("HAProxy has %v, %v; ran %q", leaf, err, m.Ran())
	}
	if strings.Contains(strings.Join(m.Ran(), "\n"), "reload") {
		t.Error("it was reloaded")
	}
}

func TestPayloadHasNoBlankLines(t *testing.T) {
	if got := payload([]byte("\n a \r\n\n \t\nb")); got != "a\nb\n" {
		t.Errorf("got %q", got)
	}
}

func TestHAProxyGroups(t *testing.T) {
	facts := func(options string) deploy.Facts {
		f, err := All()["haproxy"].Check([]byte(options))
		must(t, err)
		return f
	}
	a, b := facts(`{"pem": "/a.pem"}`), facts(`{"pem": "/b.pem", "reload": [], "test": ["x"]}`)
	if a.Group != b.Group {
		t.Errorf("one HAProxy, two groups: %s and %s", a.Group, b.Group)
	}
	if c := facts(`{"pem": "/a.pem", "socket": "127.0.0.1:9999"}`); c.Group == a.Group {
		t.Error("two HAProxys are one group")
	}
}

// A certificate that HAProxy has not loaded is for the reload command.
func TestHAProxyUnknownCertificate(t *testing.T) {
	p := startFakeProxy(t, func(string) bool { return false })
	for reload, want := range map[string]string{`["systemctl", "reload", "haproxy"]`: "", `[]`: "a reload makes it known"} {
		m := &hosttest.Mem{}
		d, err := All().Open("haproxy", fmt.Appendf(nil, `{"pem": "/etc/shop.pem", "socket": %q, "reload": %s}`, p.Addr(), reload), deploy.Setup{Host: m})
		must(t, err)
		r, err := d.Stage(t.Context(), deploy.Stage{Names: deploytest.Names, Bundles: []farm.Bundle{deploytest.NewBundle(t, farm.EC256)}})
		must(t, err)
		err = d.Activate(t.Context(), []deploy.Receipt{r})
		ran := strings.Contains(strings.Join(m.Ran(), "\n"), "systemctl reload haproxy")
		if want == "" && (err != nil || !ran) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("reload %s: %v, ran %q", reload, err, m.Ran())
		}
	}
}
