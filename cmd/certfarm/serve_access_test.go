package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/access"
)

// readingAccess reads an access.yaml with a client's secret beside it.
func readingAccess(t *testing.T, text string) (access.Config, error) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"access.yaml": text, "oidc-secret": "hunter2\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var c access.Config
	a := &app{ui: &ui{}, state: dir}
	return c, a.readAccess("", &c)
}

// TestTheAccessFileOfTheDocs reads the block of docs/access.md.
func TestTheAccessFileOfTheDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/access.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(page), "```yaml\n")
	block, _, ok := strings.Cut(block, "```")
	if !ok {
		t.Fatal("docs/access.md has no block of YAML")
	}
	c, err := readingAccess(t, block)
	if err != nil {
		t.Fatal(err)
	}
	if c.OIDC == nil || c.OIDC.Redirect != "https://certfarm.example.com:8403/login/callback" || string(c.OIDC.Secret.Reveal()) != "hunter2" {
		t.Errorf("provider %+v", c.OIDC)
	}
	if len(c.Grants) != 3 || c.Grants[1].Tags[0] != "shop" || c.Idle != 4*time.Hour || c.Long != 24*time.Hour {
		t.Errorf("%+v", c)
	}
	if _, err := access.NewGate(c); err != nil {
		t.Error(err)
	}
}

func TestAccessFilesThatAreWrong(t *testing.T) {
	const oidc = "oidc: {issuer: 'https://idp.example', client_id: x}\n"
	const grants = "grants: [{group: g, role: viewer}]\n"
	for text, want := range map[string]string{
		"gruntz: []":                                     "gruntz",
		"url: certfarm.example":                          "is no URL",
		"grants: [{group: g, role: boss}]":               `no role "boss"`,
		"grants: [{role: viewer}]":                       "names no group",
		"grants: [{group: g, role: viewer, tags: ['']}]": "a tag",
		"session_idle: -4h":                              "session_idle",
		"session_idle: long":                             "long",
		oidc + "url: https://x.example":                  "grants",
		oidc + grants:                                    "url or redirect_url",
		grants + "url: https://x.example\noidc: {issuer: 'http://idp.example', client_id: x}":                                           "must be https",
		grants + "url: https://x.example\noidc: {issuer: 'https://idp.example', client_id: x, client_secret: {file: gone}}":             "client_secret",
		grants + "url: https://x.example\noidc: {issuer: 'https://idp.example', client_id: x, client_secret: {file: a, credential: b}}": "not both",
		grants + "url: https://x.example\noidc: {issuer: 'https://idp.example', client_id: x, client_secret: {credential: ../b}}":       "credential",
		grants + "url: https://x.example\noidc: {issuer: 'https://idp.example', client_id: x, roots: access.yaml}":                      "no certificate",
	} {
		_, err := readingAccess(t, text)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestAnAccessFileThatOthersMayWrite(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("only on systems other than Windows, which has no such bits")
	}
	file := filepath.Join(t.TempDir(), "access.yaml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o622); err != nil {
		t.Fatal(err)
	}
	var c access.Config
	if err := (&app{ui: &ui{}}).readAccess(file, &c); err == nil {
		t.Error("it was taken")
	}
}
