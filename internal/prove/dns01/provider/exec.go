package provider

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/local"
	"github.com/certfarm/certfarm/internal/prove/dns01"
)

const (
	execTime   = 2 * time.Minute // of one call
	execOutput = 500             // bytes of its output in an error
)

// execOptions are the options of Exec.
type execOptions struct {
	Command string `json:"command"`
}

// Exec writes records with a command of the controller. farm.yaml gives its name
// alone; what runs stands in the controller's own list. It is called without a
// shell as
//
//	argv… present NAME VALUE
//	argv… cleanup NAME VALUE
//
// NAME is the record's full name without the last dot, VALUE what the TXT record
// must hold; it is public, and may begin with a hyphen. The command adds or takes
// away this one value, leaves others at the name as they are, takes repeated calls
// for good, and ends with status 0 within two minutes.
func Exec() dns01.Provider {
	return dns01.Provider{
		Name:     "exec",
		About:    "a command of the controller, called with present or cleanup, the record's name and its value",
		Settings: []dns01.Setting{{Name: "command", About: "name of the command in the controller's list", Required: true}},
		Check: func(raw []byte, secrets []string) ([]byte, error) {
			var o execOptions
			if err := cmp.Or(readStrict(raw, &o), wantSecrets(secrets)); err != nil {
				return nil, err
			}
			if o.Command == "" {
				return nil, &optionError{"command", "it is missing", "name a command of the controller's list"}
			}
			return json.Marshal(o)
		},
		New: func(_ context.Context, s dns01.Setup) (dns01.Writer, error) {
			var o execOptions
			if err := readStrict(s.Options, &o); err != nil {
				return nil, err
			}
			argv := s.Commands[o.Command]
			if len(argv) == 0 {
				known := "it has none"
				if len(s.Commands) > 0 {
					known = "it has " + strings.Join(slices.Sorted(maps.Keys(s.Commands)), ", ")
				}
				return nil, &optionError{"command", fmt.Sprintf("the controller's list has no command %q", o.Command), known}
			}
			return &execWriter{name: o.Command, argv: argv, run: local.New(local.Config{})}, nil
		},
	}
}

type execWriter struct {
	name string
	argv []string
	run  host.Runner
}

// Put calls the command with present; see dns01.Writer.
func (w *execWriter) Put(ctx context.Context, r dns01.Record) error {
	return w.call(ctx, "present", r)
}

// Remove calls the command with cleanup; see dns01.Writer.
func (w *execWriter) Remove(ctx context.Context, r dns01.Record) error {
	return w.call(ctx, "cleanup", r)
}

func (w *execWriter) call(ctx context.Context, verb string, r dns01.Record) error {
	ctx, cancel := context.WithTimeoutCause(ctx, execTime, fmt.Errorf("it did not end within %s", execTime))
	defer cancel()
	output, err := w.run.Run(ctx, slices.Concat(w.argv, []string{verb, r.Name, r.Value}), nil)
	if err == nil {
		return nil
	}
	if exit, ran := errors.AsType[*host.ExitError](err); ran {
		err = fmt.Errorf("it ended with status %d", exit.Status) // its own text has the output as it came
	}
	if said := readable(output); said != "" {
		err = fmt.Errorf("%w; it wrote: %s", err, said)
	}
	return fmt.Errorf("command %s, %s of %s: %w", w.name, verb, r.Name, err)
}

// readable is the end of an output on one line, without what could play with a
// terminal.
func readable(output []byte) string {
	text := strings.TrimSpace(strings.ToValidUTF8(string(output), "\ufffd"))
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsPrint(r):
			return r
		}
		return '\ufffd'
	}, text)
	if len(text) > execOutput {
		text = "…" + strings.ToValidUTF8(text[len(text)-execOutput:], "")
	}
	return text
}
