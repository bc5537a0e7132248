package farm

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"time"
)

// A Certificate is a site's certificate through all its versions.
type Certificate struct {
	Farm, Site string
	Version    string     // id of the newest version; empty before the first
	Verdict    string     // why it is or is not due, for people
	Next       time.Time  // when it is looked at again
	ARI        Suggestion // what the CA last suggested for the newest version
	Failures   int        // orders that failed since the last success
	LastOrder  time.Time  // when the last order was begun
	Intent     string     // the intent whose orders run; empty: none
	Retries    int        // rollouts of the newest version that were restored in a row
	Retry      time.Time  // when it is rolled out again
}

// A Suggestion is a CA's renewal information (RFC 9773). The zero value says
// that the CA suggests nothing.
type Suggestion struct {
	Leaf        string    // fingerprint of the leaf it is for
	Start, End  time.Time // the window
	Chosen      time.Time // the random time in the window that we keep to
	Explanation string    // URL, shown and never fetched
	Ask         time.Time // when the CA is asked again
}

// A Version is what one issuing gave: an id and one leaf or more, RSA beside
// ECDSA.
type Version struct {
	ID      string
	Farm    string
	Site    string
	Names   []string
	Issuer  string
	Profile string
	Leaves  []Leaf
	Created time.Time
	State   VersionState
	Reason  string // why it is bad, revoked or compromised
}

// VersionState is what a version is still good for.
type VersionState string

// The states of a version.
const (
	VersionGood        VersionState = ""
	VersionFaulty      VersionState = "faulty"      // a rollout found a version fault: never rolled out again
	VersionWithdrawn   VersionState = "withdrawn"   // a person undid it: not rolled out again by itself
	VersionRevoked     VersionState = "revoked"     // never gone back to
	VersionCompromised VersionState = "compromised" // its key is known to others: never gone back to, erased
)

// A Leaf is one certificate of a version with its chain. The key is a
// reference: sealed in the store, or held on a node.
type Leaf struct {
	Fingerprint string // SHA-256 of the DER, hex
	KeyType     KeyType
	Serial      string // hex
	NotBefore   time.Time
	NotAfter    time.Time
	Chain       []byte // PEM, leaf first
	Key         KeyRef
	Shape       Shape
}

// A KeyRef says where a private key is: sealed in the store under an id, or
// held on a node and never seen here.
type KeyRef struct {
	Sealed string `json:",omitempty"`
	Node   string `json:",omitempty"`
}

// A Shape is what clients may depend on beyond the dates. A rollout that
// changes it gets a canary and a soak even if the policy has none.
type Shape struct {
	Root  string // subject of the topmost certificate in the chain, or its issuer
	EKU   string
	Names string // sorted, joined by commas
}

// NotBefore is the latest begin of the leaves, NotAfter the earliest end.
func (v Version) NotBefore() (t time.Time) {
	for _, l := range v.Leaves {
		if l.NotBefore.After(t) {
			t = l.NotBefore
		}
	}
	return t
}

// NotAfter is the earliest end of the leaves.
func (v Version) NotAfter() (t time.Time) {
	for _, l := range v.Leaves {
		if t.IsZero() || l.NotAfter.Before(t) {
			t = l.NotAfter
		}
	}
	return t
}

// Fingerprints lists the leaves' fingerprints in order.
func (v Version) Fingerprints() []string {
	var all []string
	for _, l := range v.Leaves {
		all = append(all, l.Fingerprint)
	}
	return all
}

// A Bundle is one leaf ready to install: chain and key, in memory only. It
// refuses to print its key.
type Bundle struct {
	Version string
	Leaf    string // fingerprint
	KeyType KeyType
	Names   []string
	Chain   []byte // PEM, leaf first
	Key     Secret // PEM, PKCS#8
}

// String names the leaf.
func (b Bundle) String() string { return "bundle " + Short(b.Leaf) }

// Fingerprint is the SHA-256 of a certificate's DER, hex.
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// LeafFingerprint is the fingerprint of the first certificate in a PEM text,
// or empty where there is none.
func LeafFingerprint(chain []byte) string {
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			return Fingerprint(block.Bytes)
		}
	}
	return ""
}

// Short is how a fingerprint or an id is shown to people.
func Short(id string) string { return id[:min(len(id), 8)] }
