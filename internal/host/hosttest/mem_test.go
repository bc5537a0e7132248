package hosttest

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/host"
)

func TestMem(t *testing.T) {
	Run(t, func(t *testing.T) Bench {
		m := &Mem{}
		must(t, m.Mkdir(t.Context(), "/x", host.Attr{Mode: 0o755}))
		return Bench{Host: m, Dir: "/x"}
	})
}

func TestFaultyWithoutFaults(t *testing.T) {
	Run(t, func(t *testing.T) Bench {
		m := &Mem{}
		must(t, m.Mkdir(t.Context(), "/x", host.Attr{Mode: 0o755}))
		return Bench{Host: &Faulty{Linked: m}, Dir: "/x"}
	})
}

func TestFaults(t *testing.T) {
	m := &Mem{}
	f := &Faulty{Linked: m}
	put := func(name string) error { return f.Write(t.Context(), name, []byte(name), private) }

	f.DieAfter(1, true)
	must(t, put("/a"))
	want(t, put("/b"), host.ErrUnreachable)
	want(t, put("/c"), host.ErrUnreachable)
	f.Mend()
	if _, err := m.Read(t.Context(), "/b"); err != nil {
		t.Error("the call whose answer was lost was not done")
	}
	if _, err := m.Read(t.Context(), "/c"); err == nil {
		t.Error("a call after the cut was done")
	}

	f.FullAt = 2
	must(t, put("/d"))
	want(t, put("/e"), syscall.ENOSPC)
	want(t, put("/e"), syscall.ENOSPC)
	f.Mend()

	no := errors.New("no")
	f.Refuse = func(call string) error {
		if strings.HasPrefix(call, "run nginx") {
			return no
		}
		return nil
	}
	_, err := f.Run(t.Context(), []string{"nginx", "-t"}, nil)
	want(t, err, no)
	must(t, put("/f"))
	f.Mend()

	f.Hang = true
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	want(t, f.Write(ctx, "/g", nil, private), context.DeadlineExceeded)
}
