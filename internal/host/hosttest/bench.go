package hosttest

import (
	"errors"
	"fmt"
	"path"
	"testing"
)

func (b Bench) at(name string) string { return path.Join(b.Dir, name) }

func (b Bench) put(t *testing.T, name, data string) {
	t.Helper()
	must(t, b.Host.Write(t.Context(), b.at(name), []byte(data), private))
}

func (b Bench) has(t *testing.T, name, want string) {
	t.Helper()
	got, err := b.Host.Read(t.Context(), b.at(name))
	must(t, err)
	if string(got) != want {
		t.Fatalf("%s holds %.40q, want %.40q", name, got, want)
	}
}

func (b Bench) names(t *testing.T) string {
	t.Helper()
	entries, err := b.Host.List(t.Context(), b.Dir)
	must(t, err)
	text := ""
	for _, e := range entries {
		text += fmt.Sprintf("%s:%s ", e.Name, e.Mode.Type())
	}
	return text
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, err, is error) {
	t.Helper()
	if !errors.Is(err, is) {
		t.Fatalf("got error %v, want %v", err, is)
	}
}
