package target

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"testing"

	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/host/local"
)

// onLocalDrive is the machine itself with C:/Apache24 somewhere below its folder for
// temporary files.
type onLocalDrive struct {
	*local.Host
}

// Remove does without os.RemoveAll, which wants what Wine 8 has not.
func (h onLocalDrive) Remove(ctx context.Context, name string) error {
	entries, err := h.List(ctx, name)
	for _, e := range entries {
		if err := h.Remove(ctx, path.Join(name, e.Name)); err != nil {
			return err
		}
	}
	if err = os.Remove(filepath.FromSlash(name)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// On the files of a real Windows, or Wine's.
func TestLocalFilesOnWindows(t *testing.T) {
	deploytest.Run(t, func(t *testing.T) deploytest.Bench {
		h := onLocalDrive{local.New(local.Config{})}
		root, err := os.MkdirTemp("", "tls")
		must(t, err)
		t.Cleanup(func() { _ = h.Remove(context.Background(), filepath.ToSlash(root)) })
		s := onDrive("files")
		s.options, s.test, s.reload = nil, "", ""
		return s.driveBenchAt(t, h, filepath.ToSlash(root))
	})
}
