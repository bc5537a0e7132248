package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/agent"
	"github.com/certfarm/certfarm/internal/deploy/remote"
	"github.com/certfarm/certfarm/internal/deploy/target"
	"github.com/certfarm/certfarm/internal/fence"
	"github.com/certfarm/certfarm/internal/host/local"
)

func newReceive(a *app) *cobra.Command {
	var policy, state string
	c := &cobra.Command{
		Use: "receive", GroupID: groupStart, Short: "Take one call of a controller, as the forced command of an SSH login on a node",
		Long: `Receive reads one call from the standard input, does it if this node's own policy
allows it, and writes the answer. It is the forced command of the login that the
controllers have on the node (certfarm snippet receiver NODE prints the line of
authorized_keys), so that the login can do nothing else: what the client asks SSH to
run is written to the log and not run.

The policy is a file that root writes: which names, kinds, folders and commands may be
used, and how often (certfarm snippet policy NODE writes it from farm.yaml). Calls, and
what was refused with the reason, are in node.log in the state folder.`,
		Example: `command="/usr/local/bin/certfarm receive",restrict ssh-ed25519 AAAAC3Nza… controllers`,
		Args:    args(0, 0, "nothing"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.receive(cmd.Context(), policy, state)
		},
	}
	f := c.Flags()
	f.StringVar(&policy, "policy", fence.File, "what may be done on this node: a file that only root may write")
	f.StringVar(&state, "state", agent.DefaultState(), "folder of what this node remembers, for the login's user alone")
	_ = c.MarkFlagDirname("state") // there is such a flag
	return c
}

// maxLog is the size at which node.log becomes node.log.1, in bytes.
const maxLog = 4 << 20

// receive answers one call. What was begun is ended: neither the end of the line nor a
// signal from it stops it.
func (a *app) receive(ctx context.Context, policy, state string) error {
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	answerer, log, err := newAnswerer(policy, state)
	if err != nil {
		return hinted(err, "root makes the folder for the login's user: install -d -m 700 -o USER "+state)
	}
	defer log.Close()
	asked := os.Getenv("SSH_ORIGINAL_COMMAND")
	text, err := io.ReadAll(io.LimitReader(a.in, remote.MaxCall+1))
	if err == nil && len(text) == 0 {
		err = errors.New("there is no call on the standard input")
	}
	var c remote.Call
	if err == nil {
		c, err = remote.Open(text)
	}
	if err != nil {
		slog.New(slog.NewJSONHandler(log, nil)).Warn("refused", "why", err.Error(), "asked", asked, "from", os.Getenv("SSH_CONNECTION"))
		if len(text) == 0 {
			return usage("it is the forced command of a controller's login: `certfarm receive --help`", "receive: %w", err)
		}
		return a.respond(remote.Answer{ID: c.ID, Error: err.Error(), Class: remote.Unheard})
	}
	return a.respond(answerer.Answer(ctx, c))
}

// respond writes an answer, all at once.
func (a *app) respond(answer remote.Answer) error {
	text, err := remote.Frame(answer)
	if err == nil {
		_, err = a.out.Write(text)
	}
	return err
}

// newAnswerer answers on this machine, and writes what it does into a log of its own:
// what stands on the standard error goes to the controller.
func newAnswerer(policy, state string) (*agent.Answerer, *os.File, error) {
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, nil, err
	}
	log, err := openLog(filepath.Join(state, "node.log"))
	if err != nil {
		return nil, nil, err
	}
	answerer, err := agent.NewAnswerer(agent.AnswererSetup{
		Kinds: target.All(), Host: local.New(local.Config{}), State: state, Log: slog.New(slog.NewJSONHandler(log, nil)).With("from", os.Getenv("SSH_CONNECTION")),
		Policy: func() (fence.Policy, error) { return fence.Load(policy) },
	})
	if err != nil {
		return nil, nil, errors.Join(err, log.Close())
	}
	return answerer, log, nil
}

// openLog opens a log to append to. A long one is kept beside, and the one before that
// is lost.
func openLog(name string) (*os.File, error) {
	if info, err := os.Stat(name); err == nil && info.Size() > maxLog {
		if err := os.Rename(name, name+".1"); err != nil {
			return nil, fmt.Errorf("the node's log: %w", err)
		}
	}
	return os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
}
