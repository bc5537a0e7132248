package target

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"errors"
)

// enforce is where the kernel says whether SELinux enforces its policy.
const enforce = "/sys/fs/selinux/enforce"

// enforcing reports whether files need labels.
func (e *engine) enforcing(ctx context.Context) (bool, error) {
	if onWindows(e.Store) {
		return false, nil
	}
	text, err := e.host.Read(ctx, enforce)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("asking whether SELinux is enforced: %w", err)
	}
	return strings.TrimSpace(string(text)) == "1", nil
}

// label gives a version's folder and files the label that the server may read:
// the one of the version before it, or, for the first, of the live file or of
// its folder. Files of the store would have the store's own label, which a
// confined server may not read.
func (e *engine) label(ctx context.Context, a area, folder, like string) error {
	for _, f := range a.files() {
		name := path.Join(a.base, folder, f.Name)
		from := path.Join(a.base, like, f.Name)
		if like == "" {
			from = f.Live
			if _, err := e.host.Read(ctx, from); err != nil {
				from = path.Dir(f.Live)
			}
		}
		if err := e.run(ctx, "labelling", []string{"chcon", "--reference=" + from, name}); err != nil {
			return err
		}
	}
	from := path.Join(a.base, like)
	if like == "" {
		from = path.Dir(a.files()[0].Live)
	}
	return e.run(ctx, "labelling", []string{"chcon", "--reference=" + from, path.Join(a.base, folder)})
}

// labelLink gives the switch the label of the folder that it leads to.
func (e *engine) labelLink(ctx context.Context, a area, folder string) error {
	return e.run(ctx, "labelling", []string{"chcon", "-h", "--reference=" + path.Join(a.base, folder), a.current()})
}
