package farm

import (
	"fmt"
	"log/slog"
)

// A Secret is a private key or a credential. It refuses to print, to log and
// to marshal itself; Reveal is the one way out, easy to search for.
type Secret struct{ bytes []byte }

const redacted = "[secret]"

// NewSecret wraps b, which must not be used afterwards.
func NewSecret(b []byte) Secret { return Secret{b} }

// Reveal returns the bytes. Whoever calls it answers for where they go.
func (s Secret) Reveal() []byte { return s.bytes }

// IsZero reports that there is nothing in it.
func (s Secret) IsZero() bool { return len(s.bytes) == 0 }

// Format writes a placeholder for every verb, %#v among them.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

// String is a placeholder.
func (s Secret) String() string { return redacted }

// LogValue is a placeholder.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText is a placeholder: JSON, YAML and XML come through here.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
