// Package winetest runs a package's tests as a Windows program, under Wine. Wine
// is not Windows: what it shows is that a program of ours calls Windows rightly, with
// files that somebody has open and with command lines, as far as Wine has them the
// same.
//
// A prefix of wineboot takes 700 MB and many seconds. This one has links to Wine's own
// libraries and nothing else, which is enough for a program without windows.
package winetest

import (
	"context"
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// runTime is how long building and running may take on a machine that does other
// things.
const runTime = 5 * time.Minute

//go:embed testdata/bcryptprimitives.c
var shim []byte

// Run builds the tests of the package that it is called from for Windows, runs the
// one of the name, and wants it to pass: a program that Wine could not start, or that
// ran nothing, is no success. A pattern after a slash, if there is one, says which of
// its parts. It skips the test where there is no Wine.
func Run(t *testing.T, name string) {
	t.Helper()
	wine := find(t)
	prefix := newPrefix(t)
	name, parts, _ := strings.Cut(name, "/")
	pattern := "^" + name + "$"
	if parts != "" {
		pattern += "/" + parts
	}
	ctx, cancel := context.WithTimeout(t.Context(), runTime)
	defer cancel()
	must(t, exec.CommandContext(ctx, "go", "test", "-c", "-o", filepath.Join(prefix, "drive_c", "tests.exe"), "."), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0", "GOFLAGS=")

	env := []string{"WINEPREFIX=" + prefix, "WINEDEBUG=-all", "WINEDLLOVERRIDES=mscoree,mshtml=", `TEMP=C:\temp`, `TMP=C:\temp`, "DISPLAY="}
	t.Cleanup(func() { // the server of this prefix, and what runs in it
		end := exec.Command(filepath.Join(filepath.Dir(wine), "wineserver64"), "-k")
		end.Env = append(os.Environ(), env...)
		_ = end.Run()
	})
	tests := exec.CommandContext(ctx, wine, `C:\tests.exe`, "-test.v", "-test.timeout=4m", "-test.run="+pattern)
	tests.Dir = filepath.Join(prefix, "drive_c")
	out := must(t, tests, env...)
	if !strings.Contains(out, "--- PASS: "+name+" ") || (parts != "" && !strings.Contains(out, "--- PASS: "+name+"/")) {
		t.Errorf("under Wine, %s did not pass:\n%s", name, out)
	}
}

// find is the loader, which Debian has in no folder of PATH.
func find(t *testing.T) string {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("only on amd64")
	}
	const debian = "/usr/lib/wine/wine64"
	if _, err := os.Stat(debian); err != nil {
		t.Skip("Wine is not installed: apt-get install wine64")
	}
	if _, err := exec.LookPath(compiler); err != nil {
		t.Skip(compiler + " is not installed: apt-get install gcc-mingw-w64-x86-64-win32")
	}
	return debian
}

const (
	compiler  = "x86_64-w64-mingw32-gcc"
	libraries = "/usr/lib/x86_64-linux-gnu/wine/x86_64-windows"
)

// newPrefix is a drive C: with Wine's libraries and ours.
func newPrefix(t *testing.T) string {
	t.Helper()
	prefix := t.TempDir()
	system := filepath.Join(prefix, "drive_c", "windows", "system32")
	for _, folder := range []string{system, filepath.Join(prefix, "drive_c", "temp"), filepath.Join(prefix, "dosdevices")} {
		check(t, os.MkdirAll(folder, 0o700))
	}
	check(t, os.Symlink("../drive_c", filepath.Join(prefix, "dosdevices", "c:")))
	check(t, os.WriteFile(filepath.Join(prefix, ".update-timestamp"), []byte("disable\n"), 0o600)) // no wineboot
	all, err := os.ReadDir(libraries)
	check(t, err)
	for _, library := range all {
		check(t, os.Symlink(filepath.Join(libraries, library.Name()), filepath.Join(system, library.Name())))
	}
	source := filepath.Join(t.TempDir(), "bcryptprimitives.c")
	check(t, os.WriteFile(source, shim, 0o600))
	library := filepath.Join(system, "bcryptprimitives.dll")
	check(t, os.RemoveAll(library)) // where Wine has it, as well
	must(t, exec.CommandContext(t.Context(), compiler, "-shared", "-nostdlib", "-e", "DllMain", "-o", library, source, "-ladvapi32", "-lkernel32"))
	return prefix
}

// must runs a program and returns what it wrote.
func must(t *testing.T, c *exec.Cmd, env ...string) string {
	t.Helper()
	c.Env = append(os.Environ(), env...)
	c.WaitDelay = 10 * time.Second
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(c.Args, " "), err, out)
	}
	return string(out)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
