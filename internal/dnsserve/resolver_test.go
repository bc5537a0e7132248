package dnsserve

import (
	"bytes"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// BIND as a resolver takes our answers for what they are, and goes on over TCP
// where it asks more than the limit.
func TestBehindAResolver(t *testing.T) {
	w := world()
	for i := range 40 {
		w.values[fmt.Sprintf("n%d.auth.example.net", i)] = []string{"v"}
	}
	w.values["much.auth.example.net"] = many(60) // BIND takes no more than 100
	s := listen(t, Config{Source: w, Rate: 4})
	resolver := startResolver(t, s.Addresses()[0])
	for name, want := range map[string]string{
		"shop.auth.example.net.": "NOERROR 2",
		"long.auth.example.net.": "NOERROR 1",
		"much.auth.example.net.": "NOERROR 60",
		"none.auth.example.net.": "NXDOMAIN 0",
		"b.auth.example.net.":    "NOERROR 0",
	} {
		reply, err := exchange("tcp", resolver, new(dns.Msg).SetQuestion(name, dns.TypeTXT))
		if err != nil || fmt.Sprint(dns.RcodeToString[reply.Rcode], " ", len(reply.Answer)) != want {
			t.Errorf("%s: %v, %v, want %s", name, reply, err, want)
		}
	}
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			client := &dns.Client{Net: "tcp", Timeout: 20 * time.Second}
			reply, _, err := client.Exchange(new(dns.Msg).SetQuestion(fmt.Sprintf("n%d.auth.example.net.", i), dns.TypeTXT), resolver)
			if err != nil || len(reply.Answer) != 1 {
				t.Errorf("%d: %v, %v", i, reply, err)
			}
		})
	}
	wg.Wait()
	if s.Stats().Limited == 0 {
		t.Error("the limit was not reached: nothing is shown")
	}
}

// startResolver runs a BIND that asks the server at address for all names of
// auth.example.net.
func startResolver(t *testing.T, address string) string {
	path, err := exec.LookPath("named")
	if err != nil {
		t.Skip("named is not installed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	folder, own := t.TempDir(), l.Addr().String()
	_ = l.Close()
	_, port, _ := net.SplitHostPort(own)
	_, asked, _ := net.SplitHostPort(address)
	conf := filepath.Join(folder, "named.conf")
	write(t, conf, fmt.Sprintf(`
options { directory %[1]q; pid-file none; session-keyfile none; listen-on port %[2]s { 127.0.0.1; }; listen-on-v6 { none; };
  managed-keys-directory %[1]q; dnssec-validation no; recursion yes; };
controls { };
zone "auth.example.net" { type forward; forward only; forwarders { 127.0.0.1 port %[3]s; }; };
`, folder, port, asked))
	c := exec.CommandContext(t.Context(), path, "-g", "-n", "1", "-c", conf)
	var log bytes.Buffer
	c.Stderr = &log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	for end := time.Now().Add(20 * time.Second); ; {
		if conn, err := net.Dial("tcp", own); err == nil {
			_ = conn.Close()
			return own
		}
		if time.Now().After(end) {
			t.Fatal("named does not answer")
		}
		<-time.After(20 * time.Millisecond)
	}
}
