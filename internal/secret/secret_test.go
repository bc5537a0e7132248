package secret_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/secret"
)

func text(s string) farm.Secret { return farm.NewSecret([]byte(s)) }

// nowhere is an environment without anything.
func nowhere(string) string { return "" }

func load(t *testing.T, s secret.Source) *secret.Keyring {
	t.Helper()
	if s.Getenv == nil {
		s.Getenv = nowhere
	}
	k, err := secret.Load(s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func seal(t *testing.T, k *secret.Keyring, id, plain string) []byte {
	t.Helper()
	sealed, err := k.Seal(id, text(plain))
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func opens(t *testing.T, k *secret.Keyring, id string, sealed []byte, want string) {
	t.Helper()
	got, err := k.Open(id, sealed)
	if err != nil {
		t.Fatal(err)
	}
	if string(got.Reveal()) != want {
		t.Errorf("opened %q, want %q", got.Reveal(), want)
	}
}

func TestASealedRecordOpensUnderItsNameOnly(t *testing.T) {
	k := secret.Fresh()
	id := secret.RecordID("f", "key", "a")
	sealed := seal(t, k, id, "a private key")
	if bytes.Contains(sealed, []byte("private")) {
		t.Error("it can be read")
	}
	opens(t, k, id, sealed, "a private key")
	if again := seal(t, k, id, "a private key"); bytes.Equal(again, sealed) {
		t.Error("two seals of one secret are the same")
	}
	if _, err := k.Open(secret.RecordID("f", "key", "b"), sealed); !errors.Is(err, secret.ErrDamaged) {
		t.Errorf("under another name: %v", err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := k.Open(id, bad); err == nil {
			t.Errorf("byte %d may be changed", i)
		}
		if _, err := k.Open(id, sealed[:i]); err == nil {
			t.Errorf("it may be cut off at %d", i)
		}
	}
}

func TestNamesDoNotRunTogether(t *testing.T) {
	if secret.RecordID("a", "b/c", "d") == secret.RecordID("a/b", "c", "d") || secret.RecordID(`a"/"b`, "c", "d") == secret.RecordID("a", "b", "c") {
		t.Error("two names give one id")
	}
}

func TestAWrongMasterKeyIsNamed(t *testing.T) {
	a, b := secret.Fresh(), secret.Fresh()
	sealed := seal(t, a, "x", "s")
	_, err := b.Open("x", sealed)
	for _, err := range []error{err, b.Check(sealed)} {
		if !errors.Is(err, secret.ErrWrongKey) || !strings.Contains(err.Error(), a.Active()) || !strings.Contains(err.Error(), b.Active()) {
			t.Errorf("got %v", err)
		}
	}
	if err := a.Check(sealed); err != nil {
		t.Error(err)
	}
}

func TestAKeyringDoesNotPrintItsKeys(t *testing.T) {
	k := secret.Fresh()
	for _, format := range []string{"%v", "%s", "%+v", "%#v"} {
		if got := fmt.Sprintf(format, k); got != "master key "+k.Active() {
			t.Errorf("%s prints %s", format, got)
		}
	}
}

func TestTheFirstStartMakesAKeyFileForItsUserOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "master.key")
	if _, err := secret.Load(secret.Source{File: path, MustExist: true, Getenv: nowhere}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was to exist: %v", err)
	}
	k := load(t, secret.Source{File: path})
	sealed := seal(t, k, "x", "s")
	opens(t, load(t, secret.Source{File: path}), "x", sealed, "s")
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("beside it lies %v (%v)", left, err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o660} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := secret.Load(secret.Source{File: path, Getenv: nowhere}); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

func TestTheEnvironmentMayNameTheKey(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, secret.CredentialName)
	k := load(t, secret.Source{File: path})
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o440); err != nil { // as systemd does
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other")
	for name, value := range map[string]string{secret.EnvKey: string(content), secret.EnvFile: path, "CREDENTIALS_DIRECTORY": dir} {
		got := load(t, secret.Source{File: other, Getenv: func(n string) string {
			if n == name {
				return value
			}
			return ""
		}})
		if got.Active() != k.Active() {
			t.Errorf("%s was not used", name)
		}
	}
}

func TestAPassphraseLocksTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.key")
	sealed := seal(t, load(t, secret.Source{File: path, Passphrase: text("correct horse")}), "x", "s")
	opens(t, load(t, secret.Source{File: path, Passphrase: text("correct horse")}), "x", sealed, "s")
	for pass, want := range map[string]string{"": "locked", "wrong": "wrong passphrase"} {
		_, err := secret.Load(secret.Source{File: path, Passphrase: text(pass), Getenv: nowhere})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("passphrase %q: %v", pass, err)
		}
	}
}

func TestABadKeyFileIsRefusedAndNotShown(t *testing.T) {
	for _, content := range []string{"", "# only words\n", "certfarm-key c2VjcmV0\n", "certfarm-key hunter2!\n", "hunter2\n"} {
		path := filepath.Join(t.TempDir(), "master.key")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := secret.Load(secret.Source{File: path, Getenv: nowhere})
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "c2Vj") {
			t.Errorf("%q: %v", content, err)
		}
	}
}

func TestRekeying(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.key")
	old := load(t, secret.Source{File: path})
	sealed := seal(t, old, "x", "s")
	both, err := old.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	if both.Active() == old.Active() {
		t.Fatal("the active key is the same")
	}
	opens(t, load(t, secret.Source{File: path}), "x", sealed, "s") // a crash now loses nothing
	again, changed, err := both.Reseal("x", sealed)
	if err != nil || !changed {
		t.Fatal(changed, err)
	}
	if same, changed, err := both.Reseal("x", again); err != nil || changed || !bytes.Equal(same, again) {
		t.Error("what is under the active key was sealed anew:", err)
	}
	last, err := both.Retire()
	if err != nil {
		t.Fatal(err)
	}
	opens(t, last, "x", again, "s")
	opens(t, load(t, secret.Source{File: path}), "x", again, "s")
	if _, err := last.Open("x", sealed); !errors.Is(err, secret.ErrWrongKey) {
		t.Errorf("the old key still opens: %v", err)
	}
	if _, err := secret.Fresh().Rotate(); err == nil {
		t.Error("a key that is in no file was rotated")
	}
}

func TestABackupIsEncrypted(t *testing.T) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]secret.BackupKey{
		"passphrase": {Passphrase: text("correct horse")},
		"recipient":  {Recipients: []string{identity.Recipient().String()}, Identities: text(identity.String())},
		"hybrid":     {Recipients: []string{hybrid.Recipient().String()}, Identities: text("# mine\n" + hybrid.String() + "\n")},
	}
	for name, key := range keys {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var file bytes.Buffer
			w, err := secret.EncryptBackup(&file, key)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(w, "all that we know"); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			whole := file.Bytes()
			if got, err := decrypt(whole, key); err != nil || got != "all that we know" {
				t.Errorf("got %q, %v", got, err)
			}
			if _, err := decrypt(whole[:len(whole)-1], key); err == nil {
				t.Error("a part was taken for the whole")
			}
			if name != "recipient" {
				return
			}
			_, err = decrypt(whole, keys["hybrid"])
			if err == nil || !strings.Contains(err.Error(), "another passphrase or recipient") {
				t.Errorf("with another key: %v", err)
			}
		})
	}
}

func decrypt(b []byte, key secret.BackupKey) (string, error) {
	r, err := secret.DecryptBackup(bytes.NewReader(b), key)
	if err != nil {
		return "", err
	}
	got, err := io.ReadAll(r)
	return string(got), err
}

func TestABackupNeedsAKey(t *testing.T) {
	for _, key := range []secret.BackupKey{
		{},
		{Recipients: []string{"me"}},
		{Recipients: []string{"age1x"}, Passphrase: text("x")},
	} {
		if _, err := secret.EncryptBackup(io.Discard, key); err == nil {
			t.Errorf("%v was enough", key.Recipients)
		}
	}
	for _, key := range []secret.BackupKey{{}, {Identities: text("hunter2")}} {
		if _, err := secret.DecryptBackup(strings.NewReader(""), key); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("got %v", err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	k := secret.Fresh()
	good, err := k.Seal("x", text("a private key"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:60])
	f.Add([]byte("cfs1"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, sealed []byte) {
		got, err := k.Open("x", sealed)
		if err == nil && !bytes.Equal(sealed, good) {
			t.Errorf("opened %q from bytes that nobody sealed", got.Reveal())
		}
		if err != nil && !errors.Is(err, secret.ErrDamaged) && !errors.Is(err, secret.ErrWrongKey) {
			t.Errorf("got %v", err)
		}
	})
}
