package provider

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/prove/dns01"
)

const (
	// callTime is how long a helper may take for one thing: some APIs answer only
	// when the record is live. After it the helper and its children are killed.
	callTime = 3 * time.Minute
	// goTime is how long a helper that says no more may take to go by itself.
	goTime = 5 * time.Second
	// heard is how much of what a helper prints is kept.
	heard = 64 << 10
)

// An action is what a helper is asked to do.
type action string

const (
	put    action = "put"
	remove action = "remove"
)

// A request is what a helper reads, as JSON. It holds credentials.
type request struct {
	Provider string            `json:"provider"`
	Settings map[string]string `json:"settings"`
	Action   action            `json:"action"`
	Record   dns01.Record      `json:"record"`
}

// An answer is what a helper writes to a request, as one line of JSON.
type answer struct {
	Done  bool   `json:"done"`
	Left  bool   `json:"left,omitzero"` // the record is there and cannot be removed by us
	Error string `json:"error,omitzero"`
}

// A starter starts helpers.
type starter struct {
	argv []string
	env  []string
}

// helperEnv is the whole environment of a helper: the proxy, and where the
// machine keeps its roots. The controller's own is not for it.
func helperEnv(proxy string) (env []string) {
	for _, name := range append([]string{"SSL_CERT_FILE", "SSL_CERT_DIR"}, systemEnv...) {
		if v := os.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	if proxy != "" {
		env = append(env, "HTTPS_PROXY="+proxy, "HTTP_PROXY="+proxy)
	}
	return env
}

// A helper is a running helper process.
type helper struct {
	in    io.WriteCloser
	out   *bufio.Reader
	read  *os.File // the end of out that is ours
	said  *capture
	kill  context.CancelFunc
	ended chan struct{}
	err   error // how it ended; set once ended is closed
}

// run starts a helper, which ends with ctx at the latest.
func (s starter) run(ctx context.Context) (*helper, error) {
	ctx, kill := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, s.argv[0], s.argv[1:]...)
	said := &capture{}
	cmd.Env, cmd.Stderr, cmd.WaitDelay = s.env, said, goTime
	if cmd.Env == nil {
		cmd.Env = []string{} // nil would be the controller's own
	}
	together(cmd)
	in, closeTheirs, err := requestPipe(cmd)
	if err != nil {
		kill()
		return nil, fmt.Errorf("start the helper: %w", err)
	}
	defer closeTheirs()
	out, theirs, err := os.Pipe()
	if err != nil {
		kill()
		return nil, errors.Join(fmt.Errorf("start the helper: %w", err), in.Close())
	}
	defer theirs.Close()
	cmd.Stdout = theirs
	if err := cmd.Start(); err != nil {
		kill()
		return nil, errors.Join(fmt.Errorf("start the helper: %w", err), in.Close(), out.Close())
	}
	h := &helper{in: in, out: bufio.NewReaderSize(out, heard), read: out, said: said, kill: kill, ended: make(chan struct{})}
	go func() { // ends with the process, which end waits for
		h.err = cmd.Wait()
		kill()
		close(h.ended)
	}()
	return h, nil
}

// ask has the helper do one thing. A helper that does not answer is killed.
func (h *helper) ask(ctx context.Context, q request) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	stop := context.AfterFunc(ctx, h.kill)
	defer stop()
	text, err := json.Marshal(q)
	if err != nil {
		return fmt.Errorf("write the request: %w", err)
	}
	if _, err := h.in.Write(append(text, '\n')); err != nil {
		return h.died(ctx)
	}
	line, err := h.out.ReadSlice('\n')
	var a answer
	switch {
	case errors.Is(err, bufio.ErrBufferFull), err == nil && json.Unmarshal(line, &a) != nil, err == nil && !a.Done && a.Error == "":
		h.end()
		return errors.New("the helper's answer makes no sense: " + string(bytes.TrimSpace(line)) + h.words())
	case err != nil:
		return h.died(ctx)
	case a.Done:
		return nil
	case a.Left:
		return fmt.Errorf("%w: %s", dns01.Left, a.Error)
	}
	return errors.New(a.Error)
}

// died says how the helper ended instead of answering.
func (h *helper) died(ctx context.Context) error {
	late := time.AfterFunc(goTime, h.kill) // it closed its output, and stays
	<-h.ended
	late.Stop()
	h.end()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("the helper was stopped before it answered: %w%s", err, h.words())
	}
	how := "it said nothing"
	if h.err != nil {
		how = h.err.Error()
	}
	return errors.New("the helper ended without an answer: " + how + h.words())
}

// words are what the helper printed, to stand at the end of an error.
func (h *helper) words() string {
	if text := strings.TrimSpace(h.said.text()); text != "" {
		return "; it printed: " + text
	}
	return ""
}

// lives reports whether the helper is there and runs.
func (h *helper) lives() bool {
	if h == nil {
		return false
	}
	select {
	case <-h.ended:
		return false
	default:
		return true
	}
}

// end kills the helper, whose work is done or lost, and waits until it is gone.
func (h *helper) end() {
	_ = h.in.Close() // it may be closed already
	h.kill()
	<-h.ended
	_ = h.read.Close()
}

// A capture keeps the first part of what is written to it.
type capture struct {
	mu   sync.Mutex
	kept bytes.Buffer
}

// Write keeps what there is room for, and takes the rest.
func (c *capture) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept.Write(p[:min(len(p), heard-c.kept.Len())])
	return len(p), nil
}

func (c *capture) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kept.String()
}
