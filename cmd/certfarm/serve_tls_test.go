package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/encode"
)

// served is the name on the certificate that the next handshake shows.
func (p *ownPair) served(t *testing.T) string {
	t.Helper()
	c, err := p.get(&tls.ClientHelloInfo{})
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return leaf.DNSNames[len(leaf.DNSNames)-1]
}

// TestTheControllersOwnCertificate is changed while it runs, as a target of kind files
// changes it: by a rename.
func TestTheControllersOwnCertificate(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "own.pem")
	put := func(name string, text []byte) {
		t.Helper()
		if name != "" {
			b, err := encode.Placeholder([]string{name}, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			both, err := encode.Combined(b)
			if err != nil {
				t.Fatal(err)
			}
			text = both.Reveal()
		}
		if err := os.WriteFile(file+".new", text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	p, err := newOwnPair(file, "", "ctl.example:8403", slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if got := p.served(t); got != "ctl.example" {
		t.Errorf("before there is one: %s", got)
	}
	put("first.example", nil)
	if got := p.served(t); got != "first.example" {
		t.Errorf("then: %s", got)
	}
	put("", []byte("half of it"))
	if got := p.served(t); got != "first.example" {
		t.Errorf("while the file is none: %s", got)
	}
	put("a-longer-second.example", nil)
	if got := p.served(t); got != "a-longer-second.example" {
		t.Errorf("renewed: %s", got)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if got := p.served(t); got != "a-longer-second.example" {
		t.Errorf("the file is gone: %s", got)
	}
	put("", []byte("no certificate"))
	if _, err := newOwnPair(file, "", ":8403", slog.New(slog.DiscardHandler)); err == nil {
		t.Error("it starts with a file that is none")
	}
}
