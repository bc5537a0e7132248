package provider

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/prove/dns01"
	"github.com/certfarm/certfarm/internal/prove/dns01/writertest"
)

// Real name servers, run by the test on a free port of 127.0.0.1.

const updateZoneFile = "$TTL 60\n@ SOA ns1 hostmaster 1 3600 600 604800 1\n@ NS ns1\nns1 A 127.0.0.1\n"

func TestRFC2136WithBIND(t *testing.T) {
	for _, algorithm := range []string{"hmac-sha256", "hmac-sha512"} {
		t.Run(algorithm, func(t *testing.T) { withServer(t, algorithm, startBIND(t, algorithm), "REFUSED: the key "+updateKey) })
	}
}

func TestRFC2136WithKnot(t *testing.T) {
	for _, algorithm := range []string{"hmac-sha256", "hmac-sha384"} {
		t.Run(algorithm, func(t *testing.T) {
			withServer(t, algorithm, startKnot(t, algorithm), "where its acl does not let the key")
		})
	}
}

// withServer runs the contract, and what the server says against an update; of a
// name that the key may not write it says what forbidden says.
func withServer(t *testing.T, algorithm, address, forbidden string) {
	options := fmt.Sprintf(`{"server":%q,"key":%q,"algorithm":%q}`, address, updateKey, algorithm)
	writertest.Run(t, writertest.Suite{
		Zone:   updateZone,
		New:    func(t *testing.T) dns01.Writer { return updateWriter(t, options, updateSecret) },
		Values: func(t *testing.T, name string) []string { return askTXT(t, address, name) },
	})
	record := dns01.Record{Zone: updateZone, Name: "_acme-challenge.life." + updateZone, Value: "v"}
	other := strings.Replace(options, updateKey, "nobodys-key", 1)
	wantSaid(t, updateWriter(t, other, updateSecret).Put(t.Context(), record), "(BADKEY)")
	wantSaid(t, updateWriter(t, options, "b3RoZXI=").Put(t.Context(), record), "(BADSIG)")
	late := updateWriter(t, options, updateSecret).(*updater)
	late.now = func() time.Time { return time.Now().Add(-time.Hour) }
	wantSaid(t, late.Put(t.Context(), record), "(BADTIME): it has 20")
	elsewhere := dns01.Record{Zone: "example.org", Name: "a.example.org", Value: "v"}
	wantSaid(t, updateWriter(t, options, updateSecret).Put(t.Context(), elsewhere), "not the primary server of example.org.")
	www := dns01.Record{Zone: updateZone, Name: "www." + updateZone, Value: "v"}
	wantSaid(t, updateWriter(t, options, updateSecret).Put(t.Context(), www), forbidden)
}

func wantSaid(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("want %q, got %v", want, err)
	}
}

// updateGrants are the names that the key may write in the real servers.
var updateGrants = []string{"life", "repeat", "restart", "nothing", "never", "apex-and-wildcard", "other", "at-once", "nested", "values"}

func startBIND(t *testing.T, algorithm string) string {
	path, folder, address := realServer(t, "named")
	host, port, _ := net.SplitHostPort(address)
	var grants strings.Builder
	for _, n := range updateGrants {
		fmt.Fprintf(&grants, " grant %s subdomain _acme-challenge.%s.%s. TXT;", updateKey, n, updateZone)
	}
	// The lower of two names in the suite has a label before the prefix.
	fmt.Fprintf(&grants, " grant %s subdomain lower._acme-challenge.nested.%s. TXT;", updateKey, updateZone)
	writeFile(t, filepath.Join(folder, "zone"), updateZoneFile)
	writeFile(t, filepath.Join(folder, "named.conf"), fmt.Sprintf(`
options { directory %[1]q; pid-file none; session-keyfile none; listen-on port %[2]s { %[3]s; }; listen-on-v6 { none; }; recursion no;
  managed-keys-directory %[1]q; dnssec-validation no; };
controls { };
key %[4]s { algorithm %[5]s; secret %[6]q; };
zone %[7]q { type primary; file "zone"; update-policy {%[8]s }; };
`, folder, port, host, updateKey, algorithm, updateSecret, updateZone, grants.String()))
	runServer(t, exec.CommandContext(t.Context(), path, "-g", "-n", "1", "-c", filepath.Join(folder, "named.conf")), address)
	return address
}

func startKnot(t *testing.T, algorithm string) string {
	path, folder, address := realServer(t, "knotd")
	var names []string
	for _, n := range updateGrants {
		names = append(names, "_acme-challenge."+n)
	}
	names = append(names, "_acme-challenge.lower._acme-challenge.nested")
	writeFile(t, filepath.Join(folder, "zone"), updateZoneFile)
	writeFile(t, filepath.Join(folder, "knot.conf"), fmt.Sprintf(`
server:
    rundir: %[1]s
    listen: %[2]s
database:
    storage: %[1]s
key:
  - id: %[3]s
    algorithm: %[4]s
    secret: %[5]s
acl:
  - id: acme
    key: %[3]s
    action: update
    update-type: [TXT]
    update-owner: name
    update-owner-match: equal
    update-owner-name: [%[6]s]
zone:
  - domain: %[7]s
    storage: %[1]s
    file: zone
    acl: acme
    zonefile-sync: -1
`, folder, strings.Replace(address, ":", "@", 1), updateKey, algorithm, updateSecret, strings.Join(names, ", "), updateZone))
	runServer(t, exec.CommandContext(t.Context(), path, "-c", filepath.Join(folder, "knot.conf")), address)
	return address
}

// realServer finds a server, a folder and a free port for it.
func realServer(t *testing.T, name string) (path, folder, address string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return path, t.TempDir(), l.Addr().String()
}

// runServer starts it, and returns when it answers for the zone.
func runServer(t *testing.T, c *exec.Cmd, address string) {
	t.Helper()
	var log logFile
	log.open(t)
	c.Stdout, c.Stderr = log.File, log.File
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	t.Cleanup(func() {
		_ = c.Process.Kill()
		<-ended
	})
	client := &dns.Client{Net: "tcp", Timeout: time.Second}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		reply, _, err := client.Exchange(new(dns.Msg).SetQuestion(updateZone+".", dns.TypeSOA), address)
		if err == nil && reply.Rcode == dns.RcodeSuccess && len(reply.Answer) == 1 {
			return
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("%s ended: %v\n%s", c.Path, err, log.text(t))
		case <-tick.C:
		}
	}
	t.Fatalf("%s does not answer\n%s", c.Path, log.text(t))
}

// logFile is a server's log: a file, so that nobody has to read along.
type logFile struct{ *os.File }

func (l *logFile) open(t *testing.T) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	l.File = f
	t.Cleanup(func() { _ = f.Close() })
}

func (l *logFile) text(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(l.Name())
	if err != nil {
		t.Error(err)
	}
	return string(text)
}

func askTXT(t *testing.T, address, name string) (values []string) {
	t.Helper()
	client := &dns.Client{Net: "tcp", Timeout: 5 * time.Second}
	reply, _, err := client.Exchange(new(dns.Msg).SetQuestion(name+".", dns.TypeTXT), address)
	if err != nil {
		t.Fatal(err)
	}
	for _, rr := range reply.Answer {
		if txt, ok := rr.(*dns.TXT); ok {
			value := strings.Join(txt.Txt, "")
			value = strings.ReplaceAll(strings.ReplaceAll(value, `\"`, `"`), `\\`, `\`)
			values = append(values, value)
		}
	}
	return values
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
