package dns01

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
)

// Question is the token of a preflight and the TXT value that it wants to see.
// They follow from the seed, so that whoever died in between and asks again takes
// away what he put up; a new seed makes a question that no cache knows.
func Question(seed string) (token, value string) {
	sum := sha512.Sum384([]byte("certfarm preflight " + seed))
	token = base64.RawURLEncoding.EncodeToString(sum[:])[:43]
	digest := sha256.Sum256([]byte(token))
	return token, base64.RawURLEncoding.EncodeToString(digest[:])
}
