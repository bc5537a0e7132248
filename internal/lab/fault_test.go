package lab

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"
)

func TestParseFault(t *testing.T) {
	for _, k := range FaultKinds() {
		node, f, err := ParseFault("web2=" + string(k.Kind))
		if err != nil || node != "web2" || f != (Fault{Kind: k.Kind}) || k.Doc == "" || f.String() != string(k.Kind) {
			t.Errorf("%s: %q %v %v", k.Kind, node, f, err)
		}
	}
	node, f, err := ParseFault("web2=down:10s")
	if err != nil || node != "web2" || f != (Fault{Down, 10 * time.Second}) || f.String() != "down:10s" {
		t.Errorf("%q %v %v", node, f, err)
	}
	for text, hint := range map[string]string{
		"web2":                    "web2=down:10s",
		"=down":                   "NODE=KIND",
		"web2=disc-full":          "did you mean disk-full?",
		"web2=wrongkey":           "did you mean wrong-key?",
		"web2=bananas":            "there are ssh-down, down,",
		"web2=down:soon":          "write 10s",
		"web2=down:-1s":           "write 10s",
		"web2=dies-for-good:1m0s": "use down:1m0s",
	} {
		if _, _, err := ParseFault(text); err == nil || !strings.Contains(err.Error(), hint) {
			t.Errorf("%s: %v, want a hint with %q", text, err, hint)
		}
	}
}

func TestOtherKey(t *testing.T) {
	pair, _ := newCA(t).issue(t, "shop.test")
	changed := otherKey("", pair)
	if len(changed) != len(pair) {
		t.Fatalf("%d bytes of %d", len(changed), len(pair))
	}
	at := bytes.Index(pair, []byte("-----BEGIN PRIVATE"))
	if !bytes.Equal(changed[:at], pair[:at]) {
		t.Error("the certificates have changed")
	}
	block, _ := pem.Decode(changed[at:])
	if block == nil {
		t.Fatal("no key is left")
	}
	if _, err := x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
		t.Errorf("not a good key: %v", err)
	}
	if _, err := tls.X509KeyPair(changed, changed); err == nil {
		t.Error("the key still belongs to the certificate")
	}
}

func TestOtherKeyOfOtherSorts(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(t, err)
	sec1, err := x509.MarshalECPrivateKey(ec)
	must(t, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(ed)
	must(t, err)
	for name, block := range map[string]*pem.Block{
		"SEC 1": {Type: "EC PRIVATE KEY", Bytes: sec1}, "not ECDSA": {Type: "PRIVATE KEY", Bytes: pkcs8},
	} {
		text := append([]byte("a line before\n"), pem.EncodeToMemory(block)...)
		changed := otherKey("", text)
		if len(changed) != len(text) || bytes.Equal(changed, text) || !bytes.HasPrefix(changed, []byte("a line before\n-----BEGIN ")) {
			t.Errorf("%s: %s", name, changed)
		}
	}
	if text := []byte("no key at all"); !bytes.Equal(otherKey("", text), text) {
		t.Error("changes what is no key")
	}
}
