package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/go-acme/lego/v5/challenge"
	"github.com/go-acme/lego/v5/log"

	"github.com/certfarm/certfarm/internal/prove/dns01"
)

// patience is how long a helper that holds records waits for the next request.
const patience = time.Hour

// HelperMain is the hidden command `certfarm dns-helper`: it reads requests from
// the pipe that its parent left it, does each by the provider's API, and writes
// one line of JSON to out. It ends with its input, so it does not outlive the
// controller; the result is an exit status.
//
// It changes its own environment and the standard output, which lego's clients
// read and print to: it must be all that its process does.
func HelperMain(ctx context.Context, out io.Writer) int {
	in, err := requests()
	if err != nil {
		fmt.Fprintln(os.Stderr, "this command is run by certfarm itself, to speak to a DNS provider:", err)
		return 2
	}
	os.Stdout = os.Stderr // what a client prints is no answer
	log.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	idle := time.AfterFunc(patience, func() { _ = in.Close() })
	defer idle.Stop()
	var a api
	lines := json.NewDecoder(in)
	for {
		var q request
		if err := lines.Decode(&q); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) {
				return 0
			}
			fmt.Fprintln(os.Stderr, "read a request:", err)
			return 1
		}
		idle.Reset(patience)
		said := answer{Done: true}
		if err := a.do(ctx, q); err != nil {
			said = answer{Error: err.Error(), Left: errors.Is(err, dns01.Left)}
		}
		if err := json.NewEncoder(out).Encode(said); err != nil {
			return 1
		}
	}
}

// An api is one provider's, in the helper.
type api struct {
	lego challenge.Provider // nil: the API is spoken to by us alone
	own  own
	dns  *pretence
}

// do does one request. All that come to one helper are of one provider.
func (a *api) do(ctx context.Context, q request) error {
	if a.dns == nil {
		if err := a.open(ctx, q); err != nil {
			return err
		}
	}
	a.dns.set(q.Record)
	switch q.Action {
	case put:
		return a.put(ctx, q.Record)
	case remove:
		return a.remove(ctx, q.Record)
	}
	return fmt.Errorf("there is no action %q", q.Action)
}

// open makes the provider's client, from settings that stand in the environment,
// as lego wants it.
func (a *api) open(ctx context.Context, q request) error {
	e, known := catalog()[q.Provider]
	if !known {
		return fmt.Errorf("there is no provider %q", q.Provider)
	}
	for name, value := range q.Settings {
		s, known := e.setting(name)
		if !known {
			return fmt.Errorf("%s is not a setting of %s", name, e.Name)
		}
		if s.File {
			file, err := asFile(value)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			value = file
		}
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	pretence, err := pretend(ctx)
	if err != nil {
		return err
	}
	if open, known := owns[e.Name]; known {
		if a.own, err = open(ctx, settings(q.Settings)); err != nil {
			return err
		}
	}
	if construct, known := makers[e.Name]; known {
		if a.lego, err = construct(); err != nil {
			return err
		}
	}
	a.dns = pretence
	return nil
}

// put adds the value, unless it is there.
func (a *api) put(ctx context.Context, r dns01.Record) error {
	if a.own.has != nil {
		there, err := a.own.has(ctx, r)
		if no, refused := errors.AsType[*refusal](err); refused && no.forbidden() {
			err = nil // the credential may write and not look
		}
		if err != nil || there {
			return err
		}
	}
	if a.own.put != nil {
		return a.own.put(ctx, r)
	}
	domain, token := asked(r)
	return a.lego.Present(ctx, domain, token, r.KeyAuth)
}

// remove takes the value away, if it is there.
func (a *api) remove(ctx context.Context, r dns01.Record) error {
	if a.own.has != nil {
		there, err := a.own.has(ctx, r)
		if no, refused := errors.AsType[*refusal](err); refused && no.forbidden() {
			return fmt.Errorf("%w: the credential may not look for it; give it the right to read the zone: %w", dns01.Left, err)
		}
		if err != nil || !there {
			return err
		}
	}
	if a.own.remove != nil {
		return a.own.remove(ctx, r)
	}
	domain, token := asked(r)
	return a.lego.CleanUp(ctx, domain, token, r.KeyAuth)
}

// asked is the challenge, as lego would get it, whose record is r's: of the name
// after the prefix, or, where delegation led elsewhere, of a name that the
// pretence leads there.
func asked(r dns01.Record) (domain, token string) {
	token, _, _ = strings.Cut(r.KeyAuth, ".")
	if rest, ok := strings.CutPrefix(r.Name, dns01.Prefix); ok {
		return rest, token
	}
	return r.Name, token
}
