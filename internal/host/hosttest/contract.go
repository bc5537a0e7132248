package hosttest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/host"
)

// A Bench is a fresh host under test.
type Bench struct {
	Host     Linked
	Dir      string // an empty folder on it
	Commands bool   // it has a real POSIX shell's commands
	Gap      bool   // for the time of a step there is no file; see host.Replace
}

// Run holds a host to the contract of package host.
func Run(t *testing.T, fresh func(t *testing.T) Bench) {
	for name, rule := range rules {
		t.Run(name, func(t *testing.T) { rule(t, fresh(t)) })
	}
}

var private = host.Attr{Mode: 0o600}

var rules = map[string]func(*testing.T, Bench){
	"what is written is read":               writtenIsRead,
	"what is not there is fs.ErrNotExist":   notThere,
	"a file that is too large is refused":   tooLarge,
	"a write replaces and sets the mode":    writeReplaces,
	"a reader sees the old or the new":      readersSeeWhole,
	"a write replaces a link, not its file": writeReplacesLink,
	"nothing is left beside a file":         nothingLeft,
	"what is created is read back":          createdIsRead,
	"rename replaces":                       renameReplaces,
	"remove takes a folder with all in it":  removeAll,
	"remove does not follow a link":         removeLink,
	"list is sorted and does not follow":    listSorted,
	"a link is replaced in one step":        linkReplaced,
	"mkdir makes parents and may be again":  mkdirParents,
	"a context that ended does nothing":     ended,
	"many may use it at once":               atOnce,
	"commands":                              commands,
	"a command is ended at its deadline":    commandDeadline,
	"commands get their words unchanged":    commandWords,
	"many commands at once":                 manyCommands,
	"a server may outlive its command":      daemon,
	"dial reaches what the node sees":       dial,
}

func writtenIsRead(t *testing.T, b Bench) {
	for _, size := range []int{0, 1, 40 << 10, 300 << 10} {
		data := bytes.Repeat([]byte("0123456789abcde\n"), size/16+1)[:size]
		must(t, b.Host.Write(t.Context(), b.at("f"), data, private))
		b.has(t, "f", string(data))
	}
}

func notThere(t *testing.T, b Bench) {
	_, err := b.Host.Read(t.Context(), b.at("none"))
	want(t, err, fs.ErrNotExist)
	_, err = b.Host.List(t.Context(), b.at("none"))
	want(t, err, fs.ErrNotExist)
	_, err = b.Host.Readlink(t.Context(), b.at("none"))
	want(t, err, fs.ErrNotExist)
	want(t, b.Host.Write(t.Context(), b.at("none/f"), nil, private), fs.ErrNotExist)
	want(t, b.Host.Rename(t.Context(), b.at("none"), b.at("f")), fs.ErrNotExist)
	must(t, b.Host.Remove(t.Context(), b.at("none")))
}

func tooLarge(t *testing.T, b Bench) {
	must(t, b.Host.Write(t.Context(), b.at("f"), make([]byte, host.MaxFile+1), private))
	if data, err := b.Host.Read(t.Context(), b.at("f")); err == nil {
		t.Fatalf("read %d bytes", len(data))
	}
}

func writeReplaces(t *testing.T, b Bench) {
	b.put(t, "f", "a longer old content")
	must(t, b.Host.Write(t.Context(), b.at("f"), []byte("new"), host.Attr{Mode: 0o640}))
	b.has(t, "f", "new")
	entries, err := b.Host.List(t.Context(), b.Dir)
	must(t, err)
	if len(entries) != 1 || entries[0].Mode != 0o640 || entries[0].Size != 3 {
		t.Fatalf("got %+v", entries)
	}
}

func readersSeeWhole(t *testing.T, b Bench) {
	old, next := bytes.Repeat([]byte("a"), 50<<10), bytes.Repeat([]byte("b"), 60<<10)
	b.put(t, "f", string(old))
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			data := old
			if i%2 == 0 {
				data = next
			}
			if err := b.Host.Write(t.Context(), b.at("f"), data, private); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 30 {
		got, err := b.Host.Read(t.Context(), b.at("f"))
		if b.Gap && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		must(t, err)
		if !bytes.Equal(got, old) && !bytes.Equal(got, next) {
			t.Fatalf("saw %d bytes, a part", len(got))
		}
	}
}

func writeReplacesLink(t *testing.T, b Bench) {
	b.put(t, "f", "file")
	must(t, b.Host.Link(t.Context(), "f", b.at("l")))
	b.has(t, "l", "file")
	b.put(t, "l", "own")
	b.has(t, "f", "file")
	_, err := b.Host.Readlink(t.Context(), b.at("l"))
	want(t, err, host.ErrNotLink)
}

func nothingLeft(t *testing.T, b Bench) {
	b.put(t, "f", "1")
	b.put(t, "f", "2")
	must(t, b.Host.Link(t.Context(), "f", b.at("l")))
	must(t, b.Host.Mkdir(t.Context(), b.at("d"), host.Attr{Mode: 0o700}))
	if err := b.Host.Write(t.Context(), b.at("d"), []byte("over a folder"), private); err == nil {
		t.Fatal("a file replaced a folder")
	}
	if err := b.Host.Link(t.Context(), "f", b.at("d")); err == nil {
		t.Fatal("a link replaced a folder")
	}
	if got := b.names(t); got != "d:d--------- f:---------- l:L--------- " {
		t.Fatal(got)
	}
}

func renameReplaces(t *testing.T, b Bench) {
	b.put(t, "a", "new")
	b.put(t, "b", "old")
	must(t, b.Host.Rename(t.Context(), b.at("a"), b.at("b")))
	b.has(t, "b", "new")
	must(t, b.Host.Link(t.Context(), "b", b.at("l")))
	b.put(t, "c", "old")
	must(t, b.Host.Rename(t.Context(), b.at("l"), b.at("c")))
	b.has(t, "c", "new")
	if got := b.names(t); got != "b:---------- c:L--------- " {
		t.Fatal(got)
	}
}

func removeAll(t *testing.T, b Bench) {
	must(t, b.Host.Mkdir(t.Context(), b.at("d/e"), host.Attr{Mode: 0o755}))
	b.put(t, "d/e/f", "x")
	b.put(t, "d/g", "x")
	must(t, b.Host.Remove(t.Context(), b.at("d")))
	if got := b.names(t); got != "" {
		t.Fatal(got)
	}
}

func removeLink(t *testing.T, b Bench) {
	must(t, b.Host.Mkdir(t.Context(), b.at("d"), host.Attr{Mode: 0o755}))
	b.put(t, "d/f", "x")
	must(t, b.Host.Link(t.Context(), "d", b.at("l")))
	must(t, b.Host.Remove(t.Context(), b.at("l")))
	b.has(t, "d/f", "x")
}

func listSorted(t *testing.T, b Bench) {
	for _, n := range []string{"z", "a", "m", "B"} {
		b.put(t, n, "")
	}
	must(t, b.Host.Link(t.Context(), "nowhere", b.at("l")))
	if got := b.names(t); got != "B:---------- a:---------- l:L--------- m:---------- z:---------- " {
		t.Fatal(got)
	}
}

func linkReplaced(t *testing.T, b Bench) {
	must(t, b.Host.Mkdir(t.Context(), b.at("1"), host.Attr{Mode: 0o755}))
	must(t, b.Host.Mkdir(t.Context(), b.at("2"), host.Attr{Mode: 0o755}))
	b.put(t, "1/f", "one")
	b.put(t, "2/f", "two")
	must(t, b.Host.Link(t.Context(), "1", b.at("current")))
	b.has(t, "current/f", "one")
	must(t, b.Host.Link(t.Context(), b.at("2"), b.at("current")))
	b.has(t, "current/f", "two")
	got, err := b.Host.Readlink(t.Context(), b.at("current"))
	must(t, err)
	if got != b.at("2") {
		t.Fatalf("the link leads to %s", got)
	}
	b.put(t, "plain", "file")
	must(t, b.Host.Link(t.Context(), "1/f", b.at("plain")))
	b.has(t, "plain", "one")
}

func mkdirParents(t *testing.T, b Bench) {
	for range 2 {
		must(t, b.Host.Mkdir(t.Context(), b.at("a/b/c"), host.Attr{Mode: 0o700}))
	}
	entries, err := b.Host.List(t.Context(), b.at("a/b"))
	must(t, err)
	if len(entries) != 1 || entries[0].Mode != fs.ModeDir|0o700 {
		t.Fatalf("got %+v", entries)
	}
	b.put(t, "f", "")
	if err := b.Host.Mkdir(t.Context(), b.at("f"), private); err == nil {
		t.Fatal("a file counts as a folder")
	}
}

func ended(t *testing.T, b Bench) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	want(t, b.Host.Write(ctx, b.at("f"), []byte("x"), private), context.Canceled)
	_, err := b.Host.Run(ctx, []string{"true"}, nil)
	want(t, err, context.Canceled)
	if got := b.names(t); got != "" {
		t.Fatal(got)
	}
}

func atOnce(t *testing.T, b Bench) {
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			name := b.at("f" + strconv.Itoa(i))
			err := b.Host.Write(t.Context(), name, []byte(name), private)
			got, err2 := b.Host.Read(t.Context(), name)
			if err != nil || err2 != nil || string(got) != name {
				t.Error(err, err2, string(got))
			}
		})
	}
	wg.Wait()
}

func commands(t *testing.T, b Bench) {
	b.needsCommands(t)
	out, err := b.Host.Run(t.Context(), []string{"cat"}, []byte("through"))
	must(t, err)
	if string(out) != "through" {
		t.Fatalf("got %q", out)
	}
	out, err = b.Host.Run(t.Context(), []string{"sh", "-c", "echo no >&2; exit 7"}, nil)
	exit, ok := errors.AsType[*host.ExitError](err)
	if !ok || exit.Status != 7 || string(exit.Output) != "no\n" || string(out) != "no\n" {
		t.Fatalf("got %q and %v", out, err)
	}
	if _, err = b.Host.Run(t.Context(), []string{"/no/such/program"}, nil); err == nil {
		t.Fatal("a program that is not there ran")
	}
}

func commandDeadline(t *testing.T, b Bench) {
	b.needsCommands(t)
	ctx, cancel := context.WithTimeout(t.Context(), 1200*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := b.Host.Run(ctx, []string{"sh", "-c", "sleep 20; echo late > " + b.at("late")}, nil)
	want(t, err, context.DeadlineExceeded)
	if took := time.Since(begin); took > 10*time.Second {
		t.Fatalf("took %s", took)
	}
}

func commandWords(t *testing.T, b Bench) {
	b.needsCommands(t)
	words := []string{"a b", "", "'", `"`, `\`, "$HOME", "`id`", "*", "x\ny", "-n", "ä€"}
	out, err := b.Host.Run(t.Context(), append([]string{"printf", `%s|`}, words...), nil)
	must(t, err)
	wanted := ""
	for _, w := range words {
		wanted += w + "|"
	}
	if string(out) != wanted {
		t.Fatalf("got %q, want %q", out, wanted)
	}
}

func manyCommands(t *testing.T, b Bench) {
	b.needsCommands(t)
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			out, err := b.Host.Run(t.Context(), []string{"echo", strconv.Itoa(i)}, nil)
			// a line of it: many login shells at once may have something to say, too
			if err != nil || !strings.Contains("\n"+string(out), "\n"+strconv.Itoa(i)+"\n") {
				t.Error(string(out), err)
			}
		})
	}
	wg.Wait()
}

func daemon(t *testing.T, b Bench) {
	b.needsCommands(t)
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
	defer cancel()
	out, err := b.Host.Run(ctx, []string{"sh", "-c", "echo up; sleep 12 &"}, nil)
	must(t, err)
	if string(out) != "up\n" {
		t.Fatalf("got %q", out)
	}
}

func dial(t *testing.T, b Bench) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		c, err := l.Accept()
		if err == nil {
			_, _ = io.WriteString(c, "hello")
			c.Close()
		}
	})
	c, err := b.Host.Dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		l.Close()
		t.Fatal(err)
	}
	defer c.Close()
	got, err := io.ReadAll(c)
	must(t, err)
	if string(got) != "hello" {
		t.Fatalf("got %q", got)
	}
}

func (b Bench) needsCommands(t *testing.T) {
	t.Helper()
	if !b.Commands {
		t.Skip("not for a host without real commands")
	}
}
