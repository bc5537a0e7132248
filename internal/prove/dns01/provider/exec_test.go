package provider

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/prove/dns01"
	"github.com/certfarm/certfarm/internal/prove/dns01/writertest"
)

// execScript writes a command that keeps values in files of a folder.
func execScript(t *testing.T, text string) string {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("only on systems with sh")
	}
	path := filepath.Join(t.TempDir(), "command")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func execWriterFor(t *testing.T, argv ...string) dns01.Writer {
	t.Helper()
	w, err := Exec().New(t.Context(), dns01.Setup{Options: []byte(`{"command":"dns"}`), Commands: map[string][]string{"dns": argv}})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestExec(t *testing.T) {
	folder := t.TempDir()
	// The file's name is made of name and value, so that calls at once do no harm.
	script := execScript(t, `[ $# = 4 ] || exit 9
file="$1/$3 $(printf %s "$4" | cksum)"
case "$2" in
present) printf %s "$4" >"$file.$$" && mv "$file.$$" "$file" ;;
cleanup) rm -f "$file" ;;
*) exit 8 ;;
esac
`)
	writertest.Run(t, writertest.Suite{
		Zone: "farm.test",
		New:  func(t *testing.T) dns01.Writer { return execWriterFor(t, script, folder) },
		Values: func(t *testing.T, name string) (values []string) {
			found, err := os.ReadDir(folder)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range found {
				if strings.HasPrefix(f.Name(), name+" ") {
					value, err := os.ReadFile(filepath.Join(folder, f.Name()))
					if err != nil {
						t.Fatal(err)
					}
					values = append(values, string(value))
				}
			}
			return values
		},
	})
}

// What it gets is not read by a shell on the way.
func TestExecHasNoShell(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	script := execScript(t, `printf '%s\n' "$@" >"`+out+`"`)
	r := dns01.Record{Zone: "farm.test", Name: "a.farm.test", Value: "$(touch x); 'a' *"}
	if err := execWriterFor(t, script, "with space").Put(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	if want := []string{"with space", "present", r.Name, r.Value, ""}; err != nil || !slices.Equal(strings.Split(string(got), "\n"), want) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestExecFailures(t *testing.T) {
	r := dns01.Record{Zone: "farm.test", Name: "a.farm.test", Value: "v"}
	err := execWriterFor(t, execScript(t, `printf 'no \033[2Jrights\n here'; yes x | head -c 2000; echo the end >&2; exit 3`)).Put(t.Context(), r)
	for _, want := range []string{"command dns, present of a.farm.test: it ended with status 3; it wrote: …", "the end"} {
		wantSaid(t, err, want)
	}
	if len(err.Error()) > execOutput+100 || strings.ContainsAny(err.Error(), "\033\n") {
		t.Errorf("got %d bytes: %q", len(err.Error()), err)
	}
	wantSaid(t, execWriterFor(t, filepath.Join(t.TempDir(), "missing")).Remove(t.Context(), r), "cleanup of a.farm.test: running ")
	if got := readable([]byte("no \033[2Jrights\n \xff here")); got != "no \ufffd[2Jrights  \ufffd here" {
		t.Errorf("got %q", got)
	}
}

func TestExecEndsWithItsTime(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	err := execWriterFor(t, execScript(t, "sleep 60 & wait")).Put(ctx, dns01.Record{Name: "a.farm.test"})
	if err == nil || time.Since(start) > 20*time.Second {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
}

func TestExecOptions(t *testing.T) {
	p := Exec()
	if got, err := p.Check([]byte(`{"command":"dns"}`), nil); err != nil || string(got) != `{"command":"dns"}` {
		t.Errorf("%s, %v", got, err)
	}
	_, err := p.Check(nil, nil)
	wantOption(t, "nothing", err, "command | it is missing")
	_, err = p.Check([]byte(`{"comand":"dns"}`), nil)
	wantOption(t, "a typing error", err, `comand | there is no option "comand" | did you mean "command"?`)
	_, err = p.Check([]byte(`{"command":"dns"}`), []string{"token"})
	wantOption(t, "a secret", err, "token | ")
	if _, err := p.Check([]byte(`{"command":["sh","-c","id"]}`), nil); err == nil {
		t.Error("farm.yaml says what runs")
	}
	_, err = p.New(t.Context(), dns01.Setup{Options: []byte(`{"command":"dns"}`), Commands: map[string][]string{"other": {"true"}}})
	wantOption(t, "not in the list", err, `command | the controller's list has no command "dns" | it has other`)
}
