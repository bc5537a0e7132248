package target

import (
	"context"
	"fmt"
	"strings"
	"unicode"

	"github.com/certfarm/certfarm/internal/deploy"
)

// envoy are the options of the kind envoy.
type envoy struct {
	Path   string `json:"path" doc:"path of the one file with chain and key"`
	Secret string `json:"secret_name,omitempty" doc:"name of the secret in Envoy's configuration; empty: the file's, without .json"`
	upkeep
}

// Facts checks the options; see deploy.Options.
func (o envoy) Facts() (identity, group string, err error) {
	if err := checkPath("path", o.Path); err != nil {
		return "", "", err
	}
	if !strings.HasSuffix(o.Path, ".json") {
		return "", "", &deploy.FieldError{Field: "path", Problem: fmt.Sprintf("%q does not end in .json, by which Envoy knows how to read it", o.Path), Hint: "as in /etc/envoy/sds/shop.json"}
	}
	if strings.ContainsFunc(o.Secret, unicode.IsControl) {
		return "", "", &deploy.FieldError{Field: "secret_name", Problem: "it has control characters"}
	}
	return o.facts("envoy", one(o.Path, sdsSecret))
}

// Places is deploy.Spread.
func (o envoy) Places() []string { return []string{"file " + o.Path} }

// secret is the name under which Envoy asks for the certificate.
func (o envoy) secret() string {
	if o.Secret != "" {
		return o.Secret
	}
	return strings.TrimSuffix(o.Path[strings.LastIndexByte(o.Path, '/')+1:], ".json")
}

// Envoy is Envoy with file based SDS: path_config_source names the path, with or
// without its folder as watched_directory. One file holds chain and key inline, so
// that they change together. Envoy looks only when something is moved onto the
// watched path, and the switch is elsewhere: so the path's own symlink is made
// anew after it. No reload is needed, and the commands are empty by default.
//
// It was not tried on a real Envoy, which cannot be had where it was written: it
// follows Envoy's documentation, and a test watches the folder by inotify and
// reads the file as Envoy does.
func Envoy() deploy.Kind {
	return deploy.Define(deploy.Kind{
		Name:  "envoy",
		Doc:   "Envoy: an SDS file that it watches (not tried on a real Envoy)",
		Fence: "unfenced",
	}, envoy{upkeep: commandless()}, func(o envoy, s deploy.Setup) (deploy.Deployer, error) {
		e := newEngineOf(o.upkeep, one(o.Path, sdsSecret), format{Secret: o.secret()}, s)
		e.wake = e.move
		return e, nil
	})
}

// move makes the live paths anew, with the same end: Envoy watches for a move
// onto them. Then the reload command runs, if there is one.
func (e *engine) move(ctx context.Context, all []area) error {
	for _, a := range all {
		st, err := e.look(ctx, a)
		if err != nil {
			return err
		}
		for _, f := range a.files() {
			if !st.linked[f.Live] {
				continue // nothing was switched
			}
			if err := e.links.Link(ctx, a.goal(f), f.Live); err != nil {
				return fmt.Errorf("moving %s for its watcher: %w", f.Live, hint(err))
			}
		}
	}
	return e.run(ctx, "reload", e.Reload)
}
