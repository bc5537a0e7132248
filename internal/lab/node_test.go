package lab

import (
	"crypto/tls"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// newServing is a node that serves a certificate of a CA.
func newServing(t *testing.T, c NodeConfig) (b *bench, ca *testCA, fingerprint string) {
	t.Helper()
	b, ca = newBench(t, c), newCA(t)
	text, fingerprint := ca.issue(t, "shop.test")
	must(t, b.upload(DefaultPEM, text))
	b.ok("webd start")
	b.serving(fingerprint)
	return b, ca, fingerprint
}

// renew uploads a new certificate without telling the server.
func (b *bench) renew(ca *testCA) (fingerprint string) {
	b.t.Helper()
	text, fingerprint := ca.issue(b.t, "shop.test")
	must(b.t, b.upload(DefaultPEM, text))
	return fingerprint
}

func TestFreshNodeServesNothing(t *testing.T) {
	b := newBench(t, NodeConfig{})
	if canConnect(b.HTTPSAddr()) || b.Serves() {
		t.Error("serves HTTPS without a certificate")
	}
	if status, body := get(t, "http://"+b.HTTPAddr()+"/", "shop.test"); status != 200 || body != "served by web1\n" {
		t.Errorf("%d %q", status, body)
	}
	for _, verb := range []string{"-t", "start", "reload", "stop", "dance"} {
		b.refused("webd " + verb)
	}
	if out := b.refused("webd -t"); !strings.Contains(out, `[emerg] cannot load certificate "/etc/tls/site.pem"`) {
		t.Errorf("not in nginx's words: %s", out)
	}
	text, fingerprint := newCA(t).issue(t, "shop.test")
	must(t, b.upload(DefaultPEM, text))
	b.ok("timeout -k 5 4 sudo -n -- webd -t")
	b.ok("webd start")
	b.serving(fingerprint)
	b.refused("webd start")
	b.ok("webd stop")
	if canConnect(b.HTTPSAddr()) {
		t.Error("stopped, and still there")
	}
}

func TestNodeLetsInOnlyItsController(t *testing.T) {
	b := newBench(t, NodeConfig{})
	other := newBench(t, NodeConfig{})
	if b.HostKey() == other.HostKey() {
		t.Error("two nodes have one host key")
	}
	b.key = other.key
	if _, err := b.login(); err == nil {
		t.Error("lets in a stranger's key")
	}
}

func TestPlaceholder(t *testing.T) {
	for name, pairs := range map[string][]Pair{
		"one file":  nil,
		"two files": {{Chain: "/etc/tls/chain.pem", Key: "/etc/tls/private/key.pem"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, NodeConfig{Placeholder: true, Pairs: pairs})
			if _, err := Serving(soon(t), b.HTTPSAddr(), "shop.test"); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestReloadReadsFilesAndNothingElseDoes(t *testing.T) {
	b, ca, old := newServing(t, NodeConfig{})
	fingerprint := b.renew(ca)
	b.serving(old)
	b.ok("webd -t")
	b.serving(old)
	b.ok("webd reload")
	b.serving(fingerprint)
	if got := b.Ran(); got[len(got)-1] != "webd reload" {
		t.Errorf("ran %q", got)
	}
}

func TestReloadThatFailsKeepsTheOld(t *testing.T) {
	b, ca, old := newServing(t, NodeConfig{})
	good, _ := ca.issue(t, "shop.test")
	other, _ := ca.issue(t, "shop.test")
	at := strings.Index(string(good), "-----BEGIN PRIVATE")
	for name, text := range map[string]string{
		"key values mismatch": string(good[:at]) + string(other[at:]),
		"no start line":       "",
		"[emerg] cannot load": string(good[at:]),
		"PEM_read_bio_X509":   "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" + string(good[at:]),
	} {
		must(t, b.upload(DefaultPEM, []byte(text)))
		for _, verb := range []string{"-t", "reload"} {
			if out := b.refused("webd " + verb); !strings.Contains(out, name) {
				t.Errorf("webd %s: %q, want %q", verb, out, name)
			}
		}
		b.serving(old)
	}
	log, err := os.ReadFile(b.Path("/var/log/webd.log"))
	if err != nil || !strings.Contains(string(log), "key values mismatch") {
		t.Errorf("log: %v %s", err, log)
	}
}

func TestConnectionsOutliveAReload(t *testing.T) {
	b, ca, _ := newServing(t, NodeConfig{})
	d := tls.Dialer{Config: &tls.Config{ServerName: "shop.test", RootCAs: ca.roots}}
	c, err := d.DialContext(soon(t), "tcp", b.HTTPSAddr())
	must(t, err)
	defer func() { _ = c.Close() }()
	fingerprint := b.renew(ca)
	b.ok("webd reload")
	b.serving(fingerprint)
	_, err = io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
	must(t, err)
	answer, err := io.ReadAll(c)
	if err != nil || !strings.Contains(string(answer), "served by web1") {
		t.Errorf("the old connection: %v %s", err, answer)
	}
}

func TestWorkersChangeOneByOne(t *testing.T) {
	b, ca, old := newServing(t, NodeConfig{Workers: 4, CutOver: 400 * time.Millisecond})
	fingerprint := b.renew(ca)
	b.ok("webd reload")
	seen := map[string]int{}
	for range 20 {
		got, err := Serving(soon(t), b.HTTPSAddr(), "shop.test")
		must(t, err)
		seen[got]++
	}
	if seen[old] == 0 {
		t.Errorf("all workers changed at once: %v", seen)
	}
	eventually(t, "every worker serves the new one", func() bool {
		for range 20 {
			if got, _ := Serving(soon(t), b.HTTPSAddr(), "shop.test"); got != fingerprint {
				return false
			}
		}
		return true
	})
}

func TestDistance(t *testing.T) {
	const rtt, reload = 30 * time.Millisecond, 60 * time.Millisecond
	b, _, fingerprint := newServing(t, NodeConfig{RTT: rtt, ReloadTime: reload})
	begun := time.Now()
	b.serving(fingerprint)
	if took := time.Since(begun); took < 2*rtt || took > 20*rtt {
		t.Errorf("a handshake took %s, want at least connect and one round trip of %s", took, rtt)
	}
	c, err := b.login()
	must(t, err)
	s, err := c.NewSession()
	must(t, err)
	begun = time.Now()
	must(t, s.Run("webd reload"))
	if took := time.Since(begun); took < reload+rtt {
		t.Errorf("a reload took %s, want at least %s and a round trip of %s", took, reload, rtt)
	}
}

func TestReloadEndsWithItsSession(t *testing.T) {
	b, _, _ := newServing(t, NodeConfig{ReloadTime: time.Hour})
	if _, status := b.run("timeout -k 5 0.05 webd reload"); status != statusTimeout {
		t.Errorf("status %d", status)
	}
	c, err := b.login()
	must(t, err)
	s, err := c.NewSession()
	must(t, err)
	must(t, s.Start("webd reload"))
	must(t, c.Close())
	b.ok("webd stop") // it gets its turn
}
