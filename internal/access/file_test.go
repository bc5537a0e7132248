package access_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/access"
)

func TestTokenFiles(t *testing.T) {
	const token = "0123456789abcdef0123456789abcdef"
	for text, want := range map[string]string{
		"":                              "no token in it",
		"ops":                           "line 1",
		"ops short":                     "too short",
		"\nops " + token + " fly":       `no permission "fly"`,
		"ops " + token + " view edit":   "a line is",
		"ops " + token + " view,edit\n": "",
	} {
		file := filepath.Join(t.TempDir(), "tokens")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := access.ReadFile(file)
		if got := fmt.Sprint(err); want == "" && err != nil || !strings.Contains(got, want) || strings.Contains(got, token) {
			t.Errorf("%q: %v", text, err)
		}
	}
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte("ops "+token), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := access.ReadFile(file); runtime.GOOS != "windows" && err == nil {
		t.Error("a token file that others can read was taken")
	}
}
