package agent

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/certfarm/certfarm/internal/fence"
)

// A note is what a node adds to its deployer's own, signed: the controllers keep
// receipts, and one that none of them could make tells what it will bring to light.
type note struct {
	Kind, Node string
	Oldest     time.Time            // NotBefore of the oldest leaf that was staged
	Before     map[string]time.Time // by place: what was kept there
	Note       json.RawMessage
}

// signed is a note as it stands in a receipt.
type signed struct {
	Signed []byte
	By     []byte // HMAC-SHA256
}

// receipts signs notes with a key that never leaves the node.
type receipts struct{ key []byte }

func (r receipts) sign(n note) (json.RawMessage, error) {
	text, err := json.Marshal(n)
	if err != nil {
		return nil, fmt.Errorf("a receipt: %w", err)
	}
	return json.Marshal(signed{text, r.sum(text)})
}

func (r receipts) sum(text []byte) []byte {
	mac := hmac.New(sha256.New, r.key)
	mac.Write(text)
	return mac.Sum(nil)
}

var errForged = errors.New("a receipt that was not made here")

func (r receipts) open(text json.RawMessage) (n note, err error) {
	var s signed
	if json.Unmarshal(text, &s) != nil || !hmac.Equal(s.By, r.sum(s.Signed)) {
		return n, errForged
	}
	return n, json.Unmarshal(s.Signed, &n)
}

const receiptKeySize = 32 // bytes

// receiptKey reads the key that signs receipts, or makes it.
func receiptKey(state string) ([]byte, error) {
	file := filepath.Join(state, "receipt.key")
	key, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, receiptKeySize)
		_, _ = rand.Read(key) // it never fails (crypto/rand)
		err = fence.Write(file, key)
	}
	if err == nil && len(key) != receiptKeySize {
		err = fmt.Errorf("%s has not %d bytes", file, receiptKeySize)
	}
	if err != nil {
		return nil, fmt.Errorf("the key that signs receipts: %w", err)
	}
	return key, nil
}
