package hosttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"

	"github.com/certfarm/certfarm/internal/host"
)

// FilesBench is a fresh place for files: a share, or a host of which nothing
// else is tried.
type FilesBench struct {
	Files host.Files
	Mkdir func(ctx context.Context, name string, a host.Attr) error
	Dir   string // an empty folder
	Gap   bool   // for the time of a step there is no file; see host.Replace
}

// RunFiles holds something that has files, and neither links nor commands, to
// the contract of host.Files.
func RunFiles(t *testing.T, fresh func(t *testing.T) FilesBench) {
	for name, rule := range fileRules {
		t.Run(name, func(t *testing.T) { rule(t, fresh(t)) })
	}
}

var fileRules = map[string]func(*testing.T, FilesBench){
	"what is written is read":              bare(writtenIsRead),
	"a file that is too large is refused":  bare(tooLarge),
	"a reader sees the old or the new":     bare(readersSeeWhole),
	"many may use it at once":              bare(atOnce),
	"what is not there is fs.ErrNotExist":  fileNotThere,
	"a write replaces":                     fileReplaced,
	"nothing is left beside a file":        fileAlone,
	"rename replaces":                      fileRenamed,
	"remove takes a folder with all in it": folderRemoved,
	"list is sorted":                       folderListed,
	"mkdir makes parents and may be again": folderMade,
	"a context that ended does nothing":    fileEnded,
	"names do not lead out":                fileNames,
}

// onlyFiles is a host without the rest.
type onlyFiles struct {
	Linked
	files host.Files
}

func (o onlyFiles) Read(ctx context.Context, name string) ([]byte, error) {
	return o.files.Read(ctx, name)
}

func (o onlyFiles) Write(ctx context.Context, name string, data []byte, a host.Attr) error {
	return o.files.Write(ctx, name, data, a)
}

func (o onlyFiles) List(ctx context.Context, folder string) ([]host.Entry, error) {
	return o.files.List(ctx, folder)
}

// bare is a rule for hosts that needs nothing but reading, writing and listing.
func bare(rule func(*testing.T, Bench)) func(*testing.T, FilesBench) {
	return func(t *testing.T, b FilesBench) { rule(t, b.bench()) }
}

func (b FilesBench) bench() Bench {
	return Bench{Host: onlyFiles{files: b.Files}, Dir: b.Dir, Gap: b.Gap}
}

func (b FilesBench) at(name string) string { return b.bench().at(name) }

func (b FilesBench) put(t *testing.T, name, data string) {
	t.Helper()
	b.bench().put(t, name, data)
}

func (b FilesBench) has(t *testing.T, name, want string) {
	t.Helper()
	b.bench().has(t, name, want)
}

func (b FilesBench) mkdir(t *testing.T, name string) {
	t.Helper()
	must(t, b.Mkdir(t.Context(), b.at(name), host.Attr{Mode: 0o700}))
}

// holds checks what is in the folder; a folder's name ends with a slash.
func (b FilesBench) holds(t *testing.T, want ...string) {
	t.Helper()
	entries, err := b.Files.List(t.Context(), b.Dir)
	must(t, err)
	var got []string
	for _, e := range entries {
		if e.Mode.IsDir() {
			e.Name += "/"
		}
		got = append(got, e.Name)
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Fatalf("there is %q, want %q", got, want)
	}
}

func fileNotThere(t *testing.T, b FilesBench) {
	_, err := b.Files.Read(t.Context(), b.at("none"))
	want(t, err, fs.ErrNotExist)
	_, err = b.Files.List(t.Context(), b.at("none"))
	want(t, err, fs.ErrNotExist)
	want(t, b.Files.Write(t.Context(), b.at("none/f"), nil, private), fs.ErrNotExist)
	want(t, b.Files.Rename(t.Context(), b.at("none"), b.at("f")), fs.ErrNotExist)
	must(t, b.Files.Remove(t.Context(), b.at("none")))
	must(t, b.Files.Remove(t.Context(), b.at("none/f")))
	b.holds(t)
}

func fileReplaced(t *testing.T, b FilesBench) {
	b.put(t, "f", "a longer old content")
	b.put(t, "f", "new")
	b.has(t, "f", "new")
	entries, err := b.Files.List(t.Context(), b.Dir)
	must(t, err)
	if len(entries) != 1 || entries[0].Size != 3 || !entries[0].Mode.IsRegular() {
		t.Fatalf("got %+v", entries)
	}
}

func fileAlone(t *testing.T, b FilesBench) {
	b.put(t, "f", "1")
	b.put(t, "f", "2")
	b.mkdir(t, "d")
	if err := b.Files.Write(t.Context(), b.at("d"), []byte("over a folder"), private); err == nil {
		t.Fatal("a file replaced a folder")
	}
	b.holds(t, "d/", "f")
}

func fileRenamed(t *testing.T, b FilesBench) {
	b.mkdir(t, "d")
	b.put(t, "d/a", "new")
	b.put(t, "b", "old")
	must(t, b.Files.Rename(t.Context(), b.at("d/a"), b.at("b")))
	b.has(t, "b", "new")
	must(t, b.Files.Rename(t.Context(), b.at("b"), b.at("c")))
	b.has(t, "c", "new")
	if err := b.Files.Rename(t.Context(), b.at("c"), b.at("d")); err == nil {
		t.Fatal("a file replaced a folder")
	}
	b.holds(t, "c", "d/")
}

func folderRemoved(t *testing.T, b FilesBench) {
	b.mkdir(t, "d/e")
	b.put(t, "d/e/f", "x")
	b.put(t, "d/g", "x")
	must(t, b.Files.Remove(t.Context(), b.at("d")))
	b.holds(t)
}

func folderListed(t *testing.T, b FilesBench) {
	for _, n := range []string{"z", "a", "m", "B", ".hidden"} {
		b.put(t, n, "")
	}
	b.holds(t, ".hidden", "B", "a", "m", "z")
}

func folderMade(t *testing.T, b FilesBench) {
	for range 2 {
		b.mkdir(t, "a/b/c")
	}
	b.put(t, "a/b/c/f", "x")
	b.put(t, "f", "")
	if err := b.Mkdir(t.Context(), b.at("f"), private); err == nil {
		t.Fatal("a file counts as a folder")
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := b.Mkdir(t.Context(), b.at("m/n"), private); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	b.holds(t, "a/", "f", "m/")
}

func fileEnded(t *testing.T, b FilesBench) {
	b.put(t, "old", "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	want(t, b.Files.Write(ctx, b.at("f"), []byte("x"), private), context.Canceled)
	want(t, b.Files.Rename(ctx, b.at("old"), b.at("f")), context.Canceled)
	want(t, b.Files.Remove(ctx, b.at("old")), context.Canceled)
	b.holds(t, "old")
}

// A name that is wrong is an error and never another file.
func fileNames(t *testing.T, b FilesBench) {
	data := bytes.Repeat([]byte("x"), 3)
	for _, name := range []string{"", "f", "relative/f"} {
		if err := b.Files.Write(t.Context(), name, data, private); err == nil {
			t.Errorf("%q was written", name)
		}
		if _, err := b.Files.Read(t.Context(), name); err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("%q: got %v", name, fmt.Sprint(err))
		}
	}
	b.holds(t)
}
