package farm

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"time"
)

// A Certificate is a site's certificate through all its versions.
type Certificate struct {
	Farm      string     `json:"farm,omitzero"`
	Site      string     `json:"site,omitzero"`
	Version   string     `json:"version,omitzero"`    // id of the newest version; empty before the first
	Verdict   string     `json:"verdict,omitzero"`    // why it is or is not due, for people
	Next      time.Time  `json:"next,omitzero"`       // when it is looked at again
	Due       time.Time  `json:"due,omitzero"`        // since when it is due; zero: it is not
	ARI       Suggestion `json:"ari,omitzero"`        // what the CA last suggested for the newest version
	Failures  int        `json:"failures"`            // orders that failed since the last success
	LastOrder time.Time  `json:"last_order,omitzero"` // when the last order was begun
	Intent    string     `json:"intent,omitzero"`     // the intent whose orders run; empty: none
	Retries   int        `json:"retries"`             // rollouts of the newest version that were restored in a row
	Retry     time.Time  `json:"retry,omitzero"`      // when it is rolled out again
	Aborted   string     `json:"aborted,omitzero"`    // id of the version whose rollout a person aborted: it is not rolled out again by itself
	AbortedBy string     `json:"aborted_by,omitzero"` // and who it was

	// Barred are issuers of the site that may not issue for it as things are, and why:
	// CAA records, or records of dns-persist-01 that name another account.
	Barred map[string]string `json:"barred,omitempty"`

	// Replace is its part in a mass replacement; nil: it has none.
	Replace *Replacement `json:"replace,omitempty"`

	// Turn is its place among those that wait for the limits of a CA; nil: it does not.
	Turn *Turn `json:"turn,omitempty"`

	// Compromise is the last journey away from keys that others know; nil: there was none.
	Compromise *Compromise `json:"compromise,omitzero"`
}

// Failing reports that the last order or rollout did not do what it was to, and is
// tried again.
func (c Certificate) Failing() bool { return c.Failures > 0 || c.Retries > 0 }

// A Turn is a certificate's place among those that wait until a CA's limits allow
// their orders.
type Turn struct {
	Issuer    string    `json:"issuer,omitzero"`
	Names     []string  `json:"names,omitzero"`
	Orders    int       `json:"orders"`              // that are wanted
	Since     time.Time `json:"since,omitzero"`      // when it began to wait
	NotBefore time.Time `json:"not_before,omitzero"` // of what is served; zero: there is nothing
	NotAfter  time.Time `json:"not_after,omitzero"`
	Granted   time.Time `json:"granted,omitzero"` // when the orders were granted; zero: it waits
}

// A Suggestion is a CA's renewal information (RFC 9773). The zero value says
// that the CA suggests nothing.
type Suggestion struct {
	Leaf        string    `json:"leaf,omitzero"` // fingerprint of the leaf it is for
	Start       time.Time `json:"start,omitzero"`
	End         time.Time `json:"end,omitzero"`         // the window
	Chosen      time.Time `json:"chosen,omitzero"`      // the random time in the window that we keep to
	Explanation string    `json:"explanation,omitzero"` // URL, shown and never fetched
	Ask         time.Time `json:"ask,omitzero"`         // when the CA is asked again
}

// A Version is what one issuing gave: an id and one leaf or more, RSA beside
// ECDSA.
type Version struct {
	ID      string       `json:"id,omitzero"`
	Farm    string       `json:"farm,omitzero"`
	Site    string       `json:"site,omitzero"`
	Names   []string     `json:"names,omitzero"`
	Issuer  string       `json:"issuer,omitzero"`
	Profile string       `json:"profile,omitzero"`
	Leaves  []Leaf       `json:"leaves,omitzero"`
	Created time.Time    `json:"created,omitzero"`
	State   VersionState `json:"state,omitzero"`
	Proven  time.Time    `json:"proven,omitzero"` // when a rollout of it first ended with its targets verified; zero: none did
	Reason  string       `json:"reason,omitzero"` // why it is bad, revoked or compromised

	// StandsFor is what farm.yaml asked for when the version was imported: it will do,
	// whatever it is, until farm.yaml asks for something else. Nil: it was issued.
	StandsFor *Wanted `json:"stands_for,omitzero"`

	// Revocation is the wish that its leaves are revoked; nil: there is none.
	Revocation *Revocation `json:"revocation,omitzero"`
}

// Wanted is what a site asks of its certificate, beside the names.
type Wanted struct {
	KeyTypes []KeyType `json:"key_types,omitzero"`
	Issuer   string    `json:"issuer,omitzero"`
	Profile  string    `json:"profile,omitzero"`
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
	Fingerprint string    `json:"fingerprint,omitzero"` // SHA-256 of the DER, hex
	KeyType     KeyType   `json:"key_type,omitzero"`
	Serial      string    `json:"serial,omitzero"` // hex
	NotBefore   time.Time `json:"not_before,omitzero"`
	NotAfter    time.Time `json:"not_after,omitzero"`
	Chain       []byte    `json:"chain,omitzero"` // PEM, leaf first
	Key         KeyRef    `json:"key,omitzero"`
	Shape       Shape     `json:"shape,omitzero"`
	Revoked     time.Time `json:"revoked,omitzero"`     // when the CA revoked it for us; zero: it did not
	NotRevoked  string    `json:"not_revoked,omitzero"` // why the CA never will for us; empty: it was not asked, or may yet
}

// A KeyRef says where a private key is: sealed in the store under an id, or
// held on a node and never seen here. The zero value is a key that was erased.
type KeyRef struct {
	Sealed string `json:"sealed,omitzero"`
	Node   string `json:"node,omitzero"`
}

// A Shape is what clients may depend on beyond the dates. A rollout that
// changes it gets a canary and a soak even if the policy has none.
type Shape struct {
	Root  string `json:"root,omitzero"` // subject of the topmost certificate in the chain, or its issuer
	EKU   string `json:"eku,omitzero"`
	Names string `json:"names,omitzero"` // sorted, joined by commas
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

// HasKeys reports that no key of the version was erased: it can still be installed.
func (v Version) HasKeys() bool {
	for _, l := range v.Leaves {
		if l.Key == (KeyRef{}) {
			return false
		}
	}
	return true
}

// Unrevoked lists the leaves that are to be revoked and are not yet. One that has
// expired need not be: nobody accepts it.
func (v Version) Unrevoked(now time.Time) (all []Leaf) {
	if v.Revocation == nil {
		return nil
	}
	for _, l := range v.Leaves {
		if l.Revoked.IsZero() && l.NotRevoked == "" && now.Before(l.NotAfter) {
			all = append(all, l)
		}
	}
	return all
}

// Leaf is the fingerprint of the first leaf; empty where there is none.
func (v Version) Leaf() string {
	if len(v.Leaves) == 0 {
		return ""
	}
	return v.Leaves[0].Fingerprint
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
