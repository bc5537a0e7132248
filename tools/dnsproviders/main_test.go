package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestCurrent holds what is committed to what lego's source says.
func TestCurrent(t *testing.T) {
	dir := t.TempDir()
	if err := run(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"lego_gen.go", "lego.json"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join("..", "..", "internal", "prove", "dns01", "provider", name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not current: go generate ./internal/prove/dns01/provider", name)
		}
	}
}

func TestSecretSettings(t *testing.T) {
	for name, want := range map[string]bool{
		"CLOUDFLARE_API_KEY": true, "CF_DNS_API_TOKEN": true, "OVH_APPLICATION_SECRET": true, "NAMECOM_API_TOKEN": true,
		"GCE_SERVICE_ACCOUNT": true, "SYSE_CREDENTIALS": true, "EPIK_SIGNATURE": true, "ALL_INKL_PASSWORD": true,
		"CF_API_EMAIL": false, "AWS_ACCESS_KEY_ID": false, "AWS_REGION": false, "KEYHELP_TTL": false, "KEYHELP_BASE_URL": false,
		"PDNS_API_URL": false, "AZURE_TENANT_ID": false,
	} {
		if got := isSecret(name); got != want {
			t.Errorf("%s secret: %v, want %v", name, got, want)
		}
	}
}
