package hosttest

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/certfarm/certfarm/internal/host"
)

// createdIsRead holds a host.Creator to its contract.
func createdIsRead(t *testing.T, b Bench) {
	c, can := b.Host.(host.Creator)
	if !can {
		t.Skip("not for a host that is no Creator")
	}
	for _, size := range []int{0, 1, 40 << 10, 300 << 10} {
		data, name := bytes.Repeat([]byte("0123456789abcde\n"), size/16+1)[:size], fmt.Sprint("f", size)
		back, err := c.Create(t.Context(), b.at(name), data, private)
		must(t, err)
		if !bytes.Equal(back, data) {
			t.Fatalf("%d bytes came back as %d", size, len(back))
		}
		b.has(t, name, string(data))
	}
	if _, err := c.Create(t.Context(), b.at("f1"), []byte("other"), private); err == nil {
		t.Error("a file that is there was created")
	}
	b.has(t, "f1", "0")
	entries, err := b.Host.List(t.Context(), b.Dir)
	must(t, err)
	for _, e := range entries {
		if e.Mode.Perm() != private.Mode {
			t.Errorf("%s has mode %s", e.Name, e.Mode)
		}
	}
}
