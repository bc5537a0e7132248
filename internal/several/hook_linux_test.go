package several

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
)

// hmacSecret signs the calls to hooks, by its name in farm.yaml.
const hmacSecret = "hmac"

func hmacKey() farm.Secret { return farm.NewSecret(bytes.Repeat([]byte("k"), 32)) }

// A hook is fenced: a receiver of kind webhook that remembers the highest epoch and
// refuses a lower.
type hook struct {
	*front
	server *httptest.Server

	// All below is guarded by front.mu.
	epoch  int64
	next   int
	staged map[string]*held // by note
	now    *held
}

// held is a certificate on the hook, and what was live when it was staged.
type held struct {
	fingerprint string
	epoch       int64 // of whoever made it live last
	pair        tls.Certificate
	before      *held
}

func newHook(chance *rand.Rand) (place, error) {
	f, err := newFront(chance)
	if err != nil {
		return nil, err
	}
	h := &hook{front: f, staged: map[string]*held{}, now: &held{pair: f.live}}
	h.server = httptest.NewTLSServer(http.HandlerFunc(h.answer))
	return h, nil
}

func (h *hook) entry(name string) string {
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.server.Certificate().Raw})
	return fmt.Sprintf(`{kind: webhook, name: %s, options: {url: %q, deliver: true, timeout: 5s, allow_private: [127.0.0.0/8], ca: %q}, secrets: {hmac: {secret: %s}}, endpoints: [{address: %q}]}`,
		name, h.server.URL, ca, hmacSecret, h.endpoint.Addr())
}

func (h *hook) calls() string { return strings.TrimPrefix(h.server.URL, "https://") }

func (h *hook) fenced() bool { return true }

func (h *hook) close() {
	h.server.Close()
	_ = h.endpoint.Close() // the story has ended
}

// A told is what a call says; see the kind webhook.
type told struct {
	Verb, Note string
	Epoch      int64
	Leaves     []struct{ Fingerprint, Chain, Key string }
}

func (h *hook) answer(w http.ResponseWriter, r *http.Request) {
	var c told
	out := map[string]any{"ok": true}
	err := json.NewDecoder(r.Body).Decode(&c)
	if err == nil {
		if c.Verb != "inspect" {
			defer h.travel()()
		}
		h.mu.Lock()
		err = h.obey(c, out)
		h.mu.Unlock()
	}
	if err != nil {
		out["ok"], out["error"] = false, err.Error()
	}
	_ = json.NewEncoder(w).Encode(out) // the caller is gone
}

// obey does what a call says, unless it is from a controller that was relieved.
func (h *hook) obey(c told, out map[string]any) error {
	if c.Verb == "inspect" {
		out["leaves"], out["placeholder"] = []string{h.now.fingerprint}, h.now.fingerprint == ""
		if h.now.fingerprint == "" {
			out["leaves"] = []string{}
		}
		return nil
	}
	if c.Epoch < h.epoch {
		h.refused++
		return fmt.Errorf("epoch %d was relieved by %d", c.Epoch, h.epoch)
	}
	h.epoch = c.Epoch
	s := h.staged[c.Note]
	switch {
	case c.Verb == "stage":
		return h.stage(c, out)
	case c.Verb == "discard":
		delete(h.staged, c.Note)
		return nil
	case s == nil:
		return fmt.Errorf("nothing is staged as %q", c.Note)
	}
	h.turn(c, s)
	return nil
}

func (h *hook) stage(c told, out map[string]any) error {
	l := c.Leaves[0]
	pair, err := tls.X509KeyPair([]byte(l.Chain), []byte(l.Key))
	if err != nil {
		return err
	}
	h.next++
	note := strconv.Itoa(h.next)
	h.staged[note] = &held{fingerprint: farm.Fingerprint(pair.Certificate[0]), pair: pair, before: h.now}
	out["note"] = note
	return nil
}

// turn activates or restores.
func (h *hook) turn(c told, s *held) {
	now := s
	if c.Verb == "restore" {
		now = s.before
	}
	if h.now == now {
		return
	}
	if c.Verb == "restore" && h.now != s {
		h.wrong = append(h.wrong, fmt.Sprintf("epoch %d undid what epoch %d had made live since", c.Epoch, h.now.epoch))
	}
	if c.Epoch < h.now.epoch {
		h.wrong = append(h.wrong, fmt.Sprintf("%s of epoch %d came after epoch %d", c.Verb, c.Epoch, h.now.epoch))
	}
	now.epoch, h.now = c.Epoch, now
	h.show(now.pair)
}
