package cloud

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/host"
	machine "github.com/certfarm/certfarm/internal/host/local"
	"github.com/certfarm/certfarm/internal/outbound"
)

// command are the options of the kind exec.
type command struct {
	Command string   `json:"command,omitempty" doc:"name of a command in the controller's list (--commands-file); the command stands there alone"`
	Argv    []string `json:"argv,omitempty" doc:"in place of it, a command on each node of on"`
	Place   string   `json:"place,omitempty" doc:"what the command is told with every call: it tells two targets of one command apart"`
	Deliver bool     `json:"deliver" doc:"hand over chain and private key when staging, on standard input; false: the call tells fingerprints alone"`
	Timeout string   `json:"timeout" doc:"how long one call may take, as in 30s"`
	Lag     string   `json:"lag,omitempty" doc:"how long readers may take to fetch a new version, as in 4h"`
}

// maxPlace is the longest place, in bytes.
const maxPlace = 200

// Facts checks the options; see deploy.Options.
func (o command) Facts() (identity, group string, err error) {
	bad := func(field, problem, hint string) (string, string, error) {
		return "", "", &deploy.FieldError{Field: field, Problem: problem, Hint: hint}
	}
	control := func(w string) bool { return strings.ContainsFunc(w, unicode.IsControl) }
	switch {
	case (o.Command == "") == (len(o.Argv) == 0):
		return bad("command", "give either command, which the controller runs, or argv, which each node runs", "command: the name of an entry in the controller's commands.yaml")
	case control(o.Command):
		return bad("command", "it is no name", "the name of an entry in the controller's commands.yaml")
	case slices.ContainsFunc(o.Argv, func(w string) bool { return w == "" || control(w) }):
		return bad("argv", "a word is empty or has control characters", "a list of words, as in [/usr/local/sbin/cdn-cert, shop]")
	case len(o.Argv) == 1 && strings.Contains(o.Argv[0], " "):
		return bad("argv", "it is one word with spaces, and no shell takes it apart", "a list of words, as in [/usr/local/sbin/cdn-cert, shop]")
	case len(o.Place) > maxPlace || control(o.Place):
		return bad("place", fmt.Sprintf("it is longer than %d bytes, or has control characters", maxPlace), "a short name")
	}
	_, err1 := timeoutOf(o.Timeout)
	_, err2 := lagOf(o.Lag)
	if err := first(err1, err2); err != nil {
		return "", "", err
	}
	identity, err = o.identity()
	return identity, identity, err
}

// identity tells commands and their places apart.
func (o command) identity() (string, error) {
	id := "command " + o.Command
	if o.Command == "" {
		words, err := json.Marshal(o.Argv) // words with spaces are told apart
		if err != nil {
			return "", err
		}
		id = "command " + string(words)
	}
	if o.Place != "" {
		id += " for " + o.Place
	}
	return id, nil
}

// OnNode is deploy.Settler's: argv runs on each node.
func (o command) OnNode() bool { return len(o.Argv) > 0 }

// Exec is whatever a command of yours does: it is run with one word more, the verb,
// reads what is asked for on its standard input, and prints its answer as one line of
// JSON. The words are those of a webhook.
func Exec() deploy.Kind {
	return deploy.Define(deploy.Kind{
		Name:     "exec",
		Doc:      "a command of your own: by name from the controller's list, or on a node",
		Fence:    "unfenced",
		Nodeless: true,
	}, command{Timeout: "1m"}, openExec)
}

func openExec(o command, s deploy.Setup) (deploy.Deployer, error) {
	identity, _, err := o.Facts()
	if err != nil {
		return nil, err
	}
	line := execLine{argv: o.Argv, run: s.Host}
	if !o.OnNode() {
		if s.Command == nil {
			return nil, fmt.Errorf("opening %s: this controller has no list of commands: write one and name it with --commands-file", identity)
		}
		if line.argv, err = s.Command(o.Command); err != nil {
			return nil, fmt.Errorf("opening %s: %w", identity, err)
		}
		line.run = machine.New(machine.Config{Env: plainEnv(os.Environ())})
	}
	if line.run == nil {
		return nil, fmt.Errorf("opening %s: there is no node to run it on", identity)
	}
	if line.timeout, err = timeoutOf(o.Timeout); err != nil {
		return nil, err
	}
	lag, err := lagOf(o.Lag)
	return &caller{identity: identity, deliver: o.Deliver, lag: lag, place: o.Place, send: line.send}, err
}

// plainEnv is the part of an environment that programs need to run at all: it holds
// no credential of the controller's. It is never nil, which would mean all of it.
func plainEnv(all []string) []string {
	plain := []string{"LC_ALL=C.UTF-8"}
	for _, e := range all {
		name, _, _ := strings.Cut(e, "=")
		switch strings.ToUpper(name) {
		case "PATH", "HOME", "TZ", "TMPDIR", "TMP", "TEMP", "SYSTEMROOT", "SYSTEMDRIVE", "COMSPEC", "PATHEXT", "USERPROFILE", "PROGRAMDATA":
			plain = append(plain, e)
		}
	}
	return plain
}

// execLine sends calls to a command.
type execLine struct {
	argv    []string
	run     host.Runner
	timeout time.Duration
}

func (l execLine) send(ctx context.Context, what call) (r reply, err error) {
	request, err := json.Marshal(what)
	if err != nil {
		return r, err
	}
	within, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	output, err := l.run.Run(within, append(slices.Clone(l.argv), what.Verb), append(request, '\n'))
	exit, ran := errors.AsType[*host.ExitError](err)
	switch {
	case err == nil:
		return judgeOutput(output, 0)
	case ran: // the error's own text has the output as it came
		return judgeOutput(output, exit.Status)
	case within.Err() != nil && ctx.Err() == nil:
		return r, fmt.Errorf("%w: it did not end within %s (timeout)", host.ErrUnreachable, l.timeout)
	}
	return r, unreachable(err)
}

// judgeOutput reads what a command wrote that ended with a status.
func judgeOutput(output []byte, status int) (reply, error) {
	r, said, answered := lastLine(output)
	if said != "" {
		said = "; it wrote: " + said
	}
	switch {
	case answered && !r.OK && (status == 0 || r.Error != ""):
		return r, fmt.Errorf("it says no: %s%s", outbound.Quote(r.Error), said)
	case status != 0:
		return r, fmt.Errorf("it ended with status %d%s", status, said)
	case !answered:
		return r, fmt.Errorf("it printed no line that is a JSON object with ok in it%s", said)
	}
	return r, nil
}

// lastLine is the answer in an output: the last line that is a JSON object with ok in
// it. Hosts do not tell the two outputs of a command apart, so what else it wrote is
// what it has to say, of which the end is quoted.
func lastLine(output []byte) (r reply, said string, found bool) {
	lines := bytes.Split(output, []byte("\n"))
	var rest []string
	for _, line := range slices.Backward(lines) {
		var is struct {
			OK *bool `json:"ok"`
		}
		if !found && bytes.HasPrefix(bytes.TrimSpace(line), []byte("{")) && json.Unmarshal(line, &is) == nil && is.OK != nil {
			found = json.Unmarshal(line, &r) == nil
			continue
		}
		rest = append(rest, string(line))
	}
	slices.Reverse(rest)
	text := strings.TrimSpace(strings.Join(rest, "\n"))
	if len(text) > outbound.MaxQuote {
		text = strings.ToValidUTF8(text[len(text)-outbound.MaxQuote:], "")
	}
	return r, outbound.Quote(text), found
}
