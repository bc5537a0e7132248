package provider

import (
	"database/sql"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"
)

// TestPowerDNS is lego's client and a real server.
func TestPowerDNS(t *testing.T) {
	server, address := startPowerDNS(t)
	suite(t, account{provider: "pdns", options: fmt.Sprintf(`{"PDNS_API_URL":%q}`, server), secrets: map[string]string{"PDNS_API_KEY": secret}},
		func(name string) []string { return askTXT(t, address, name) })
}

// startPowerDNS gives the URL of the API and the address of the name server.
func startPowerDNS(t *testing.T) (api, address string) {
	program, dir, address := realServer(t, "pdns_server")
	text, err := os.ReadFile("/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql")
	if err != nil {
		t.Skip("the schema is not there: install pdns-backend-sqlite3")
	}
	file := filepath.Join(dir, "pdns.db")
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), string(text)); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(nil) // for a free port
	web.Close()
	_, webPort, _ := strings.Cut(strings.TrimPrefix(web.URL, "http://"), ":")
	_, port, _ := strings.Cut(address, ":")
	conf := fmt.Sprintf("launch=gsqlite3\ngsqlite3-database=%s\ngsqlite3-pragma-synchronous=0\nlocal-address=127.0.0.1\nlocal-port=%s\nsocket-dir=%s\n"+
		"api=yes\napi-key=%s\nwebserver=yes\nwebserver-address=127.0.0.1\nwebserver-port=%s\nwebserver-allow-from=127.0.0.1\n"+
		"cache-ttl=0\nquery-cache-ttl=0\nnegquery-cache-ttl=0\nzone-cache-refresh-interval=0\nguardian=no\ndaemon=no\n", file, port, dir, secret, webPort)
	if err := os.WriteFile(filepath.Join(dir, "pdns.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "--config-dir="+dir)
	var log logFile
	log.open(t)
	cmd.Stdout, cmd.Stderr = log.File, log.File
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	api = web.URL
	body := fmt.Sprintf(`{"name":"%s.","kind":"Native","nameservers":["ns1.%[1]s."]}`, zone)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, api+"/api/v1/servers/localhost/zones", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-API-Key", secret)
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusCreated {
				return api, address
			}
		}
		if time.Now().After(end) {
			t.Fatalf("PowerDNS does not come up: %v\n%s", err, log.text(t))
		}
	}
}
