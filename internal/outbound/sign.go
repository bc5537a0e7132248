package outbound

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// The headers of a signed call. The signature is "sha256=" and the hex HMAC-SHA-256 of
// time, a dot and the body. A receiver compares it in constant time, and
// refuses a time that is more than five minutes from its own.
const (
	TimeHeader      = "Certfarm-Time" // seconds since 1970
	SignatureHeader = "Certfarm-Signature"
)

// MinHMAC is the shortest secret that signs, in bytes: the size that RFC 2104
// advises for SHA-256.
const MinHMAC = 32

// SignRequest signs a request with the given body, as of now.
func SignRequest(r *http.Request, key farm.Secret, body []byte, now time.Time) {
	at := strconv.FormatInt(now.Unix(), 10)
	r.Header.Set(TimeHeader, at)
	r.Header.Set(SignatureHeader, Sign(key, at, body))
}

// Sign is the signature of a body that is sent at a time.
func Sign(key farm.Secret, now string, body []byte) string {
	mac := hmac.New(sha256.New, key.Reveal())
	mac.Write([]byte(now + "."))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}
