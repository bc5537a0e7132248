package fence

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/hosttest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"www.example.org", "www.example.org", true},
		{"www.example.org", "WWW.example.org", true},
		{"www.example.org", "example.org", false},
		{"*.example.org", "www.example.org", true},
		{"*.example.org", "*.example.org", true},
		{"*.example.org", "a.b.example.org", false},
		{"*.example.org", "example.org", false},
		{"*.example.org", ".example.org", false},
		{"*.example.org", "www.example.org.evil.net", false},
		{"**.example.org", "a.b.example.org", true},
		{"**.example.org", "*.b.example.org", true},
		{"**.example.org", "example.org", false},
		{"**.example.org", "badexample.org", false},
		{"192.0.2.1", "192.0.2.1", true},
	} {
		if got := takes(c.pattern, c.name); got != c.want {
			t.Errorf("%s takes %s: %v", c.pattern, c.name, got)
		}
	}
}

func TestParse(t *testing.T) {
	good := "node: web1\nnames: [\"*.example.org\"]\nfolders: [/etc/nginx/tls]\ncommands: {reload: [nginx, -s, reload]}\nkey_types: [ec256]\n"
	if p, err := Parse([]byte(good)); err != nil || p.Node != "web1" || len(p.Commands["reload"]) != 3 {
		t.Fatalf("%+v, %v", p, err)
	}
	for name, text := range map[string]string{
		"no node":           "names: [a.example.org]",
		"an unknown field":  good + "shell: true\n",
		"every name":        "node: web1\nnames: [\"*\"]",
		"the root":          "node: web1\nfolders: [/]",
		"a drive":           "node: web1\nfolders: [\"C:/\"]",
		"a folder by dots":  "node: web1\nfolders: [/etc/nginx/../..]",
		"a part of a path":  "node: web1\nfolders: [tls]",
		"an empty command":  "node: web1\ncommands: {reload: []}",
		"a key type":        "node: web1\nkey_types: [rsa1024]",
		"fewer than none":   "node: web1\nactivations: -1",
		"nothing whatever":  "",
		"a slash at an end": "node: web1\nfolders: [/etc/nginx/]",
	} {
		if p, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func TestLoad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if _, err := Load(file); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "certfarm snippet policy") {
		t.Errorf("no file: %v", err)
	}
	must(t, os.WriteFile(file, []byte("node: web1\n"), 0o644))
	if p, err := Load(file); err != nil || p.Node != "web1" {
		t.Errorf("%+v, %v", p, err)
	}
	must(t, os.WriteFile(file, fmt.Appendf(nil, "node: web1\nfolders: [%q]\n", filepath.ToSlash(filepath.Dir(file))), 0o644))
	if p, err := Load(file); err == nil {
		t.Errorf("a policy that calls may write over: %+v", p)
	}
	if runtime.GOOS == "windows" {
		return // modes say nothing there
	}
	for _, mode := range []fs.FileMode{0o664, 0o646} {
		must(t, os.Chmod(file, mode))
		if _, err := Load(file); err == nil || !strings.Contains(err.Error(), "chmod go-w") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

// node is a machine in memory, with a fence around two folders of it.
func node(t *testing.T) (*hosttest.Mem, Host, *[]string) {
	t.Helper()
	var ran []string
	m := &hosttest.Mem{Exec: func(_ context.Context, argv []string, _ []byte) ([]byte, error) {
		ran = append(ran, strings.Join(argv, " "))
		return nil, nil
	}}
	for _, folder := range []string{"/etc/tls", "/var/lib/store", "/etc/other"} {
		must(t, m.Mkdir(t.Context(), folder, host.Attr{Mode: 0o755}))
	}
	must(t, m.Write(t.Context(), "/etc/other/secret", []byte("s"), host.Attr{Mode: 0o600}))
	return m, Host{Linked: m, Policy: Policy{
		Folders: []string{"/etc/tls", "/var/lib/store"}, Commands: map[string][]string{"test": {"nginx", "-t"}}, Sockets: []string{"/run/x.sock"},
	}}, &ran
}

// Nothing outside the folders is reached, by no call and by no symlink.
func TestFiles(t *testing.T) {
	m, h, _ := node(t)
	ctx := t.Context()
	must(t, m.Link(ctx, "/etc/other", "/etc/tls/out"))
	must(t, m.Link(ctx, "/etc/other/secret", "/etc/tls/leak"))
	must(t, m.Link(ctx, "../../../etc/other", "/var/lib/store/up"))
	must(t, m.Link(ctx, "/var/lib/store/round", "/var/lib/store/round"))
	attr := host.Attr{Mode: 0o600}
	for _, name := range []string{
		"/etc/other/secret", "/etc/tls/../other/secret", "/etc/tls/out/secret", "/etc/tlsx/secret", "etc/tls/x", "/var/lib/store/up/secret", "/var/lib/store/round/x", "/",
	} {
		_, read := h.Read(ctx, name)
		_, list := h.List(ctx, name)
		_, link := h.Readlink(ctx, name)
		for what, err := range map[string]error{
			"read": read, "list": list, "readlink": link, "write": h.Write(ctx, name, nil, attr), "remove": h.Remove(ctx, name), "mkdir": h.Mkdir(ctx, name, attr),
			"rename from": h.Rename(ctx, name, "/etc/tls/y"), "rename to": h.Rename(ctx, "/etc/tls/leak", name), "link": h.Link(ctx, "/etc/tls/y", name),
		} {
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s %s: %v", what, name, err)
			}
		}
	}
	if _, err := h.Read(ctx, "/etc/tls/leak"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("reading through a link: %v", err)
	}
	for _, to := range []string{"/etc/other/secret", "../other/secret"} {
		if err := h.Link(ctx, to, "/etc/tls/new"); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("linking to %s: %v", to, err)
		}
	}
	if err := h.Remove(ctx, "/etc/tls"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("removing a folder of the policy: %v", err)
	}
	// Within the folders all is as without a fence.
	must(t, h.Mkdir(ctx, "/var/lib/store/a/1", host.Attr{Mode: 0o755}))
	must(t, h.Write(ctx, "/var/lib/store/a/1/pem", []byte("x"), attr))
	must(t, h.Link(ctx, "1", "/var/lib/store/a/current"))
	must(t, h.Link(ctx, "/var/lib/store/a/current/pem", "/etc/tls/live.pem"))
	if text, err := h.Read(ctx, "/etc/tls/live.pem"); string(text) != "x" {
		t.Errorf("%q, %v", text, err)
	}
	must(t, h.Write(ctx, "/etc/tls/leak", []byte("y"), attr)) // the link is replaced
	if text, err := m.Read(ctx, "/etc/other/secret"); string(text) != "s" {
		t.Errorf("a write followed a link: %q, %v", text, err)
	}
}

func TestCommands(t *testing.T) {
	_, h, ran := node(t)
	var told []error
	h.Refused = func(err error) { told = append(told, err) }
	for _, argv := range [][]string{
		{"nginx", "-t", "-c", "/tmp/x"}, {"nginx"}, {"/usr/sbin/nginx", "-t"}, {"sh", "-c", "nginx -t"}, {}, {"chcon", "--reference=/etc/other/secret", "/etc/tls/x"},
		{"chcon", "--reference=/etc/tls/x", "/etc/other/secret"}, {"chcon", "-R", "--reference=/etc/tls/x", "/etc/tls/y"}, {"chcon", "-h", "x", "--reference=/etc/tls/x", "/etc/tls/y"},
	} {
		if _, err := h.Run(t.Context(), argv, nil); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%q: %v", argv, err)
		}
	}
	if len(*ran) > 0 || len(told) != 9 {
		t.Errorf("ran %q, told of %d", *ran, len(told))
	}
	for _, argv := range [][]string{{"nginx", "-t"}, {"chcon", "--reference=/etc/tls/x", "/etc/tls/y"}, {"chcon", "-h", "--reference=/etc/tls/x", "/etc/tls/y"}} {
		_, err := h.Run(t.Context(), argv, nil)
		must(t, err)
	}
	for _, to := range [][2]string{{"tcp", "192.0.2.1:443"}, {"tcp", "localhost:80"}, {"tcp", "169.254.169.254:80"}, {"unix", "/run/docker.sock"}, {"udp", "127.0.0.1:53"}} {
		if _, err := h.Dial(t.Context(), to[0], to[1]); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v", to, err)
		}
	}
	for _, to := range [][2]string{{"tcp", "127.0.0.1:1"}, {"tcp", "[::1]:1"}, {"unix", "/run/x.sock"}} {
		if _, err := h.Dial(t.Context(), to[0], to[1]); errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v", to, err)
		}
	}
}

// Epochs are compared within a lane, and one that was forgotten stays in the floor.
func TestEpochs(t *testing.T) {
	now := time.UnixMilli(1_000_000_000)
	var m Memory
	ask := func(lane string, epoch int64, nonce string) Ask {
		return Ask{Act: Put, Node: "web1", Lane: lane, Epoch: epoch, Nonce: nonce}
	}
	p := Policy{Node: "web1"}
	allowed := func(a Ask) bool { return p.Allow(a, &m, now) == nil }
	m.Begin(ask("a", 100, "n"), now)
	for _, c := range []struct {
		ask  Ask
		want bool
	}{
		{ask("a", 100, "n"), true}, {ask("a", 101, "x"), true}, {ask("a", 100, "x"), false}, {ask("a", 99, "n"), false}, {ask("b", 1, "x"), true},
		{ask("a", now.Add(24*time.Hour).UnixMilli(), "n"), true}, {ask("a", now.Add(24*time.Hour).UnixMilli()+1, "n"), false},
	} {
		if got := allowed(c.ask); got != c.want {
			t.Errorf("%s %d %s: %v", c.ask.Lane, c.ask.Epoch, c.ask.Nonce, got)
		}
	}
	for i := range maxLanes + 10 {
		m.Begin(ask(fmt.Sprint("lane", i), int64(1000+i), "n"), now)
	}
	if len(m.Lanes) != maxLanes || allowed(ask("a", 99, "n")) || !allowed(ask("new", 2000, "n")) {
		t.Errorf("%d lanes, floor %d", len(m.Lanes), m.Floor)
	}
	for i := range maxAnswers + 5 {
		m.End(Ask{ID: fmt.Sprint(i)}, nil, true)
	}
	if _, known, _ := m.Answered("4", ""); known || len(m.Answers) != maxAnswers {
		t.Errorf("%d answers", len(m.Answers))
	}
	if _, known, same := m.Answered("9", "other"); !known || same {
		t.Errorf("known %v, same %v", known, same)
	}
}

// One at a time has the memory open, and each sees what the one before wrote.
func TestBook(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "state")
	const many = 20
	var all sync.WaitGroup
	for range many {
		all.Go(func() {
			b, err := NewBook(folder)
			if err != nil {
				t.Error(err)
				return
			}
			page, err := b.Open(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			defer page.Close()
			page.Floor++
			if err := page.Save(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	b, err := NewBook(folder)
	must(t, err)
	page, err := b.Open(t.Context())
	must(t, err)
	if page.Floor != many {
		t.Errorf("%d of %d writes are there", page.Floor, many)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if other, err := b.Open(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second has it open: %v, %v", other, err)
	}
	page.Close()
	if info, err := os.Stat(filepath.Join(folder, "memory.json")); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	must(t, os.WriteFile(filepath.Join(folder, "memory.json"), []byte("{"), 0o600))
	if page, err := b.Open(t.Context()); err == nil {
		t.Errorf("a broken memory is an empty one: %+v", page)
	}
}
