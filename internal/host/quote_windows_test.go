package host

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/windows"
)

// tellArgs makes the test program say what it was called with.
const tellArgs = "CERTFARM_TELL_ARGS"

func TestMain(m *testing.M) {
	if os.Getenv(tellArgs) != "" {
		for _, word := range os.Args[1:] {
			fmt.Printf("%q\n", word)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// The real cmd.exe, called as OpenSSH for Windows calls it, passes the words on
// unchanged. It is Wine's where the test runs under Wine.
func TestQuoteCmdReal(t *testing.T) {
	program := teller(t)
	var words []string
	for _, w := range hardWords {
		words = append(words, w, "x"+w, w+"y")
	}
	const alphabet = `ab "%^&|<>!\/()'=,;@PATH:`
	random := rand.New(rand.NewPCG(1, 2)) // the same words each time
	for range 150 {
		var b strings.Builder
		for range random.IntN(10) {
			b.WriteByte(alphabet[random.IntN(len(alphabet))])
		}
		words = append(words, b.String())
	}
	for chunk := range slices.Chunk(words, 6) {
		argv := append([]string{program}, chunk...)
		line, err := Quote(Cmd, argv)
		if err != nil {
			t.Fatal(err)
		}
		shell := os.Getenv("ComSpec")
		if shell == "" {
			shell = `C:\windows\system32\cmd.exe`
		}
		c := exec.Command(shell)
		c.SysProcAttr = &syscall.SysProcAttr{CmdLine: `"` + shell + `" /c "` + line + `"`}
		c.Env = append(os.Environ(), tellArgs+"=1")
		if !underWine() { // Wine 8 reads carets before variables, Windows after: no quoting is right for both
			c.Env = append(c.Env, "A=expanded")
		}
		out, err := c.CombinedOutput()
		var want strings.Builder
		for _, w := range chunk {
			fmt.Fprintf(&want, "%q\n", w)
		}
		if err != nil || string(out) != want.String() {
			t.Errorf("%s\ngot %s(%v), want %s", line, out, err, want.String())
		}
	}
}

// underWine reports whether this Windows is Wine.
func underWine() bool {
	return windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil
}

// teller is this program under a name that takes quoting.
func teller(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	folder, err := os.MkdirTemp("", "Program Files (x86) & more")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(folder, "tell it.exe")
	t.Cleanup(func() { // not t.TempDir: Wine 8 has no removal as os.RemoveAll wants it
		_, _ = os.Remove(name), os.Remove(folder)
	})
	from, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return filepath.ToSlash(name)
}
