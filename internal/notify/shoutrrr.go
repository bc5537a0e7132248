package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/notify/shout"
	"github.com/certfarm/certfarm/internal/outbound"
)

// shoutrrr are the options of the kind shoutrrr.
type shoutrrr struct{ way }

// Shoutrrr is any other service that the library of that name knows, by its URL. It has
// one HTTP client for all, takes no deadline, and quotes what it was given: so it works
// in a process of its own, which is ended when it is late.
func Shoutrrr() Kind {
	return define(Kind{
		Name: "shoutrrr", Doc: "another service, by its URL for shoutrrr: " + strings.Join(shout.Services(), ", "),
		Secrets: []Setting{{Name: "url", Doc: "the service's URL, as telegram://TOKEN@telegram?chats=@channel; https://shoutrrr.nickfedor.com has them all"}},
	}, shoutrrr{}, func(o shoutrrr, s Setup) (Sender, error) {
		to := outbound.Word(s.Secrets["url"])
		scheme, _, _ := strings.Cut(to, "://")
		switch service, _, _ := strings.Cut(scheme, "+"); {
		case !slices.Contains(shout.Services(), service):
			return nil, errors.New("the secret url is of no service that can be reached so: " + strings.Join(shout.Services(), ", "))
		case len(s.Helper) == 0:
			return nil, errors.New("there is no program that speaks to it here")
		}
		return shouter{s.Helper, shout.Request{URL: to, AllowPrivate: o.AllowPrivate, CA: o.CA, Proxy: s.Proxy}}, nil
	})
}

// A shouter starts a helper for each message.
type shouter struct {
	argv    []string
	request shout.Request
}

// maxHeard is how much of what a helper prints is kept, in bytes.
const maxHeard = 64 << 10

// Send is Sender's. What the helper prints beside its answer is kept nowhere: the library
// logs what it sends.
func (s shouter) Send(ctx context.Context, m Message) error {
	q := s.request
	q.Text = m.Text
	text, err := json.Marshal(q)
	if err != nil {
		return err
	}
	var out heard
	cmd := exec.CommandContext(ctx, s.argv[0], s.argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Env, cmd.WaitDelay = bytes.NewReader(text), &out, helperEnv(), time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the helper ended: %w", errors.Join(ctx.Err(), err))
	}
	var a shout.Answer
	if err := json.Unmarshal(out.Bytes(), &a); err != nil {
		return errors.New("the helper's answer makes no sense")
	}
	if a.Error != "" {
		return errors.New(a.Error)
	}
	return nil
}

// helperEnv is the whole environment of a helper: where the machine keeps its roots, and
// what Windows needs to open a socket. The controller's own is not for it.
func helperEnv() []string {
	env := []string{}
	names := []string{"SSL_CERT_FILE", "SSL_CERT_DIR"}
	if runtime.GOOS == "windows" {
		names = append(names, "SYSTEMROOT")
	}
	for _, name := range names {
		if v := os.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// heard keeps the beginning of what is written to it.
type heard struct{ bytes.Buffer }

// Write is io.Writer's; what is too much is swallowed.
func (h *heard) Write(b []byte) (int, error) {
	h.Buffer.Write(b[:min(len(b), maxHeard-h.Len())])
	return len(b), nil
}
