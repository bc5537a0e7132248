// Package farm has the words of Certfarm: Farm, Site, Node, Target, Endpoint,
// Certificate, Version, Order, Rollout, Wave, Step, Event. It imports nothing
// but the standard library and does nothing: it is what everything else talks
// about. The same word stands in code, farm.yaml, API, CLI and docs.
package farm

import "time"

// A Farm is what one farm.yaml says, with every default filled in and every
// selector resolved to names.
type Farm struct {
	Name      string
	Proxy     string              // URL of the proxy for outbound HTTP; empty: none
	Resolvers map[string][]string // zone ("." for the rest) to DNS servers, host:port
	Issuers   []Issuer            // by name
	Nodes     []Node              // by name
	Sites     []Site              // by name
}

// An Issuer is an ACME CA and the account used there.
type Issuer struct {
	Name           string
	Directory      string // URL of the ACME directory (RFC 8555 §7.1.1)
	Contact        []string
	Profile        string // ACME profile; a site may name another
	PreferredChain string // common name of the wanted root or top issuer
	Roots          string // PEM of a private CA's roots; empty: the system's
	EAB            *EAB   // external account binding (RFC 8555 §7.3.4)
}

// EAB is an external account binding: the key's id, and the MAC key itself
// (base64url, as the CA hands it out).
type EAB struct {
	KeyID string
	HMAC  SecretRef
}

// A SecretRef says where a secret stands; farm.yaml never holds one itself.
// Exactly one field is set. File and Env are only resolved in place by
// `run --once -f` and `lab`, which the same person runs.
type SecretRef struct {
	Secret string `json:",omitempty"` // name given to `certfarm secret set`
	File   string `json:",omitempty"`
	Env    string `json:",omitempty"`
}

// IsZero reports that no secret is named.
func (r SecretRef) IsZero() bool { return r == SecretRef{} }

// String says where the secret stands, never what it is.
func (r SecretRef) String() string {
	switch {
	case r.Secret != "":
		return "secret " + r.Secret
	case r.File != "":
		return "file " + r.File
	case r.Env != "":
		return "env " + r.Env
	}
	return "no secret"
}

// A Node is a machine: how to reach it, what it is called by (labels), and the
// shell it speaks.
type Node struct {
	Name    string
	Address string // host or IP, without port; where its endpoints are, too
	Labels  map[string]string
	Shell   string // posix, cmd or powershell
	Become  string // "" or "sudo": commands run through `sudo -n`; files are written as the SSH user
	Local   bool   // the controller's own machine
	SSH     *SSH   // nil when Local
}

// SSH says how a node is reached. The host key is always verified: against a
// pinned key, or against a host CA. There is no way to accept any key.
type SSH struct {
	Port           int
	User           string
	Key            SecretRef // PEM of the private key, or OpenSSH format
	Certificate    string    // optional user certificate, authorized_keys format
	HostKeys       []string  // pinned public keys, authorized_keys format
	HostCAs        []string  // keys of CAs that sign host keys
	Jump           string    // name of the node to go through
	ConnectTimeout time.Duration
}

// A Site is a set of names served together: one Certificate on many Targets.
type Site struct {
	Name       string
	Tags       []string
	Names      []string // DNS names, A-labels, the first is the main one
	Issuer     string
	Profile    string
	KeyTypes   []KeyType // one leaf for each
	Strategy   Strategy
	Validation Validation
	Targets    []Target
	Balancers  []Endpoint // addresses in front of the nodes: sampled, never a reason to restore
	Policy     Policy
}

// KeyType is the algorithm and size of a leaf's key.
type KeyType string

// The key types that CAs of the Web PKI sign.
const (
	EC256   KeyType = "ec256"
	EC384   KeyType = "ec384"
	RSA2048 KeyType = "rsa2048"
	RSA3072 KeyType = "rsa3072"
	RSA4096 KeyType = "rsa4096"
)

// KeyTypes lists every key type.
var KeyTypes = []KeyType{EC256, EC384, RSA2048, RSA3072, RSA4096}

// Strategy is who holds the key.
type Strategy string

// Only Central exists yet; the others are foreseen in the data.
const (
	Central Strategy = "central"  // one key, copied to each target
	PerNode Strategy = "per-node" // each node its own key and certificate
	Edge    Strategy = "edge"     // only the proxies that terminate TLS
)

// Validation is how control of the names is proven (RFC 8555 §8).
type Validation struct {
	Method string // http-01 (dns-01 is to come)
	Via    string // gateway: the balancer or proxy routes the challenge path to the controllers
}

// A Target is one place that holds one certificate: a Kind on a Node or in a
// cloud. Its options mean something to its kind alone.
type Target struct {
	Name      string // unique in the farm
	Site      string
	Node      string // empty for a cloud
	Kind      string
	Options   []byte // JSON, checked by the kind
	Identity  string // the physical place: two targets with one identity are a mistake
	Group     string // the reload group: what one reload or one share makes live together
	Labels    map[string]string
	Endpoints []Endpoint
	LastWave  bool // cannot be undone, so it is changed last
}

// An Endpoint is where a certificate is seen: an address, a port and a server
// name. A target feeds one or more of them.
type Endpoint struct {
	Address  string // host:port, dialled as it stands
	SNI      string
	Path     string // "direct", or "ssh": through the target's node
	StartTLS string // "", smtp, imap, pop3, ldap, postgres, mysql …
	Proxy    int    // PROXY protocol version sent first: 0 (none), 1 or 2
}
