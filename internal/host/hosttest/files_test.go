package hosttest_test

import (
	"testing"

	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/hosttest"
)

func TestFilesOfMem(t *testing.T) {
	hosttest.RunFiles(t, func(t *testing.T) hosttest.FilesBench {
		m := &hosttest.Mem{}
		if err := m.Mkdir(t.Context(), "/work", host.Attr{Mode: 0o755}); err != nil {
			t.Fatal(err)
		}
		return hosttest.FilesBench{Files: m, Mkdir: m.Mkdir, Dir: "/work"}
	})
}
