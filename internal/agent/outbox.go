package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/certfarm/certfarm/internal/deploy/remote"
	"github.com/certfarm/certfarm/internal/fence"
)

// An outbox keeps answers on disk until a controller has taken them: what was done is
// not forgotten with the process that did it.
type outbox struct {
	folder string
	filled chan struct{} // a token: there is something new

	mu  sync.Mutex
	ids []string // in the order in which they were put
}

var callID = regexp.MustCompile(`^[A-Za-z0-9_.+-]{1,100}$`)

func openOutbox(state string) (*outbox, error) {
	o := &outbox{folder: filepath.Join(state, "answers"), filled: make(chan struct{}, 1)}
	if err := os.MkdirAll(o.folder, 0o700); err != nil {
		return nil, fmt.Errorf("the folder of answers: %w", err)
	}
	files, err := os.ReadDir(o.folder)
	if err != nil {
		return nil, fmt.Errorf("the folder of answers: %w", err)
	}
	for _, f := range files {
		if id, ok := strings.CutSuffix(f.Name(), ".json"); ok && callID.MatchString(id) {
			o.ids = append(o.ids, id)
		}
	}
	return o, nil
}

func (o *outbox) file(id string) string { return filepath.Join(o.folder, id+".json") }

// put keeps an answer.
func (o *outbox) put(a remote.Answer) error {
	if !callID.MatchString(a.ID) || strings.Trim(a.ID, ".") == "" {
		return fmt.Errorf("%q is no id of a call", a.ID)
	}
	text, err := remote.SealAnswer(a)
	if err != nil {
		text, err = remote.SealAnswer(remote.Answer{ID: a.ID, Error: "the answer cannot be sent: " + err.Error()})
	}
	if err != nil {
		return err
	}
	if err := fence.Write(o.file(a.ID), text); err != nil {
		return err
	}
	o.mu.Lock()
	o.ids = append(o.ids, a.ID)
	o.mu.Unlock()
	select {
	case o.filled <- struct{}{}:
	default: // it is looked at anyway
	}
	return nil
}

// waiting lists the answers that nobody has taken.
func (o *outbox) waiting() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.ids)
}

func (o *outbox) read(id string) ([]byte, error) {
	text, err := os.ReadFile(o.file(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Refused{KindGone, "the answer is gone"}
	}
	return text, err
}

// remove forgets an answer. One that stays on disk is sent once more after a restart.
func (o *outbox) remove(id string) {
	_ = os.Remove(o.file(id))
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ids = slices.DeleteFunc(o.ids, func(other string) bool { return other == id })
}
