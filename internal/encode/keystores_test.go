package encode

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/certfarm/certfarm/internal/farm"
)

// keys are one of each kind.
func keys(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	return map[string]crypto.Signer{"rsa": r, "ecdsa": ecKey(t)}
}

func TestPFX(t *testing.T) {
	password := NewPFXPassword()
	for kind, key := range keys(t) {
		b := issue(t, key, "www.example.org")
		for _, cipher := range []PFXCipher{PFXModern, PFXLegacy} {
			data, err := PFX(b, PFXOptions{Password: password, Cipher: cipher})
			must(t, err)
			back, err := OpenPFX(data, password)
			must(t, err)
			if !bytes.Equal(back.Chain, b.Chain) || !bytes.Equal(back.Key.Reveal(), b.Key.Reveal()) || back.Leaf != b.Leaf || !slices.Equal(back.Names, b.Names) {
				t.Errorf("%s, %s: another bundle came back: %s", kind, cipher, back.Chain)
			}
			must(t, Check(back, now))
			if got, err := PFXCipherOf(data); err != nil || got != cipher {
				t.Errorf("%s: the cipher is %q (%v), not %s", kind, got, err, cipher)
			}
			if _, err := OpenPFX(data, NewPFXPassword()); !errors.Is(err, ErrPassword) {
				t.Errorf("%s, %s: another password gives %v", kind, cipher, err)
			}
		}
	}
}

// What others may have put into a store.
func TestForeignPFX(t *testing.T) {
	b := issue(t, ecKey(t), "www.example.org")
	key, err := Key(b.Key.Reveal())
	must(t, err)
	chain, err := Chain(b.Chain)
	must(t, err)
	upside, err := pkcs12.LegacyRC2.Encode(key, chain[1], chain[:1], "pw")
	must(t, err)
	back, err := OpenPFX(upside, farm.NewSecret([]byte("pw")))
	must(t, err)
	if !bytes.Equal(back.Chain, b.Chain) {
		t.Error("the leaf does not come first")
	}
	if cipher, err := PFXCipherOf(upside); err != nil || cipher != PFXOther {
		t.Errorf("RC2 counts as %q (%v)", cipher, err)
	}
	other, err := pkcs12.Modern2023.Encode(ecKey(t), chain[0], nil, "pw")
	must(t, err)
	if _, err := OpenPFX(other, farm.NewSecret([]byte("pw"))); !errors.Is(err, ErrMismatch) {
		t.Errorf("a key of another leaf gives %v", err)
	}
	slow, err := pkcs12.Modern2023.WithIterations(maxRounds+1).Encode(key, chain[0], nil, "pw")
	must(t, err)
	if _, err := OpenPFX(slow, farm.NewSecret([]byte("pw"))); !errors.Is(err, errTooLong) {
		t.Errorf("a file that takes too long gives %v", err)
	}
	if newer, err := pkcs12.Modern2026.Encode(key, chain[0], nil, "pw"); err != nil {
		t.Error(err)
	} else if _, err := PFXCipherOf(newer); err == nil {
		t.Error("a MAC that Windows cannot check passed")
	}
}

func TestPFXRefusals(t *testing.T) {
	b := issue(t, ecKey(t), "www.example.org")
	if _, err := PFX(b, PFXOptions{Cipher: "rot13"}); err == nil {
		t.Error("an unknown cipher passed")
	}
	b.Key = issue(t, ecKey(t), "www.example.org").Key
	if _, err := PFX(b, PFXOptions{}); !errors.Is(err, ErrMismatch) {
		t.Errorf("another key gives %v", err)
	}
	if _, err := JKS(b, NewPFXPassword(), "tls"); !errors.Is(err, ErrMismatch) {
		t.Errorf("another key gives %v", err)
	}
}

func TestNewPFXPassword(t *testing.T) {
	a, b := string(NewPFXPassword().Reveal()), string(NewPFXPassword().Reveal())
	plain := func(r rune) bool { return r < '!' || r > '~' }
	if a == b || len(a) < 26 || strings.ContainsFunc(a+b, plain) {
		t.Errorf("%d letters, equal: %v", len(a), a == b)
	}
}

func TestJKS(t *testing.T) {
	password := NewPFXPassword()
	for kind, key := range keys(t) {
		b := issue(t, key, "www.example.org")
		data, err := JKS(b, password, "TLS")
		must(t, err)
		back, err := OpenJKS(data, password, "tls")
		must(t, err)
		if !bytes.Equal(back.Chain, b.Chain) || !bytes.Equal(back.Key.Reveal(), b.Key.Reveal()) || back.Leaf != b.Leaf {
			t.Errorf("%s: another bundle came back", kind)
		}
		if _, err := OpenJKS(data, NewPFXPassword(), "tls"); !errors.Is(err, ErrPassword) {
			t.Errorf("another password gives %v", err)
		}
		if _, err := OpenJKS(data, password, "other"); err == nil {
			t.Error("an alias that is not there was found")
		}
		for cut := range data {
			if _, err := OpenJKS(data[:cut], password, "tls"); err == nil {
				t.Fatalf("%d of %d bytes were enough", cut, len(data))
			}
		}
		if _, err := JKS(b, farm.NewSecret([]byte("short")), "tls"); err == nil {
			t.Error("a password that Java does not take passed")
		}
	}
	if _, err := OpenJKS([]byte("\xfe\xed\xfe\xed\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x01\x00\x01a12345678\xff\xff\xff\xff"), password, "a"); !errors.Is(err, errNoJKS) {
		t.Errorf("lengths beyond the end give %v", err)
	}
}

// run gives a tool a password through a file, so that no list of processes shows it.
func run(t *testing.T, tool string, args ...string) string {
	t.Helper()
	program, err := exec.LookPath(tool)
	if err != nil {
		t.Skipf("%s is not installed", tool)
	}
	out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", tool, args, err, out)
	}
	return string(out)
}

func TestOpenSSLReadsPFX(t *testing.T) {
	dir := t.TempDir()
	secret, pfx := filepath.Join(dir, "password"), filepath.Join(dir, "a.pfx")
	password := NewPFXPassword()
	must(t, os.WriteFile(secret, password.Reveal(), 0o600))
	for kind, key := range keys(t) {
		b := issue(t, key, "www.example.org")
		for _, cipher := range []PFXCipher{PFXModern, PFXLegacy} {
			data, err := PFX(b, PFXOptions{Password: password, Cipher: cipher})
			must(t, err)
			must(t, os.WriteFile(pfx, data, 0o600))
			text := []byte(run(t, "openssl", "pkcs12", "-in", pfx, "-nodes", "-passin", "file:"+secret))
			chain, err := Chain(text)
			must(t, err)
			if _, err := Pair(text, text); err != nil || len(chain) != 2 || farm.Fingerprint(chain[0].Raw) != b.Leaf {
				t.Errorf("%s, %s: openssl reads %d certificates (%v)", kind, cipher, len(chain), err)
			}
		}
	}
}

func TestKeytoolReadsKeyStores(t *testing.T) {
	if testing.Short() {
		t.Skip("Java starts slowly")
	}
	dir := t.TempDir()
	secret, store := filepath.Join(dir, "password"), filepath.Join(dir, "store")
	password := NewPFXPassword()
	must(t, os.WriteFile(secret, password.Reveal(), 0o600))
	b := issue(t, keys(t)["rsa"], "www.example.org")
	jks, err := JKS(b, password, "tls")
	must(t, err)
	modern, err := PFX(b, PFXOptions{Password: password})
	must(t, err)
	legacy, err := PFX(b, PFXOptions{Password: password, Cipher: PFXLegacy})
	must(t, err)
	for name, data := range map[string][]byte{"jks": jks, "modern": modern, "legacy": legacy} {
		must(t, os.WriteFile(store, data, 0o600))
		out := run(t, "keytool", "-J-XX:TieredStopAtLevel=1", "-list", "-v", "-keystore", store, "-storepass:file", secret)
		if !strings.Contains(out, "PrivateKeyEntry") || !strings.Contains(out, "Certificate chain length: 2") {
			t.Errorf("%s: keytool reads %s", name, out)
		}
	}
}

func FuzzOpenPFX(f *testing.F) {
	b, password := issue(f, ecKey(f), "www.example.org"), farm.NewSecret([]byte("pw"))
	for _, cipher := range []PFXCipher{PFXModern, PFXLegacy} {
		data, err := PFX(b, PFXOptions{Password: password, Cipher: cipher})
		must(f, err)
		f.Add(data)
		f.Add(data[:len(data)/2])
	}
	store, err := JKS(b, farm.NewSecret([]byte("password")), "tls")
	must(f, err)
	f.Add(store)
	f.Fuzz(func(t *testing.T, data []byte) {
		back, err := OpenPFX(data, password)
		if err == nil { // what opens is a pair, and can be written again
			if _, err := PFX(back, PFXOptions{Password: password}); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = OpenJKS(data, farm.NewSecret([]byte("password")), "tls")
	})
}
