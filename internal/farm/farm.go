// Package farm has the words of Certfarm: Farm, Site, Node, Target, Endpoint,
// Certificate, Version, Order, Rollout, Wave, Step, Event. It imports nothing
// but the standard library and does nothing: it is what everything else talks
// about. The same word stands in code, farm.yaml, API, CLI and docs.
package farm

import "time"

// A Farm is what one farm.yaml says, with every default filled in and every
// selector resolved to names.
type Farm struct {
	Name      string              `json:"name,omitzero"`
	Proxy     string              `json:"proxy,omitzero"`     // URL of the proxy for outbound HTTP; empty: none
	Resolvers map[string][]string `json:"resolvers,omitzero"` // zone ("." for the rest) to DNS servers, host:port
	DNS       []DNS               `json:"dns,omitzero"`       // ways to write TXT records, by name
	// Controllers are where controllers answer HTTP-01 questions, host:port: what a
	// gateway routes to.
	Controllers []string `json:"controllers,omitzero"`
	Issuers     []Issuer `json:"issuers,omitzero"` // by name
	Nodes       []Node   `json:"nodes,omitzero"`   // by name
	Sites       []Site   `json:"sites,omitzero"`   // by name

	Notifications Notifications `json:"notifications,omitzero"`
}

// An Issuer is an ACME CA and the account used there.
type Issuer struct {
	Name           string   `json:"name,omitzero"`
	Directory      string   `json:"directory,omitzero"` // URL of the ACME directory (RFC 8555 §7.1.1)
	Staging        string   `json:"staging,omitzero"`   // URL of its staging directory, to try names at; empty: it has none
	Contact        []string `json:"contact,omitzero"`
	Profile        string   `json:"profile,omitzero"`         // ACME profile; a site may name another
	PreferredChain string   `json:"preferred_chain,omitzero"` // common name of the wanted root or top issuer
	Roots          string   `json:"roots,omitzero"`           // PEM of a private CA's roots; empty: the system's
	EAB            *EAB     `json:"eab,omitzero"`             // external account binding (RFC 8555 §7.3.4)
	Limits         *Limits  `json:"limits,omitzero"`          // what farm.yaml says that the CA allows; nil: nothing
}

// EAB is an external account binding: the key's id, and the MAC key itself
// (base64url, as the CA hands it out).
type EAB struct {
	KeyID string    `json:"key_id,omitzero"`
	HMAC  SecretRef `json:"hmac,omitzero"`
}

// A SecretRef says where a secret stands; farm.yaml never holds one itself.
// Exactly one field is set. File and Env are only resolved in place by
// `run --once -f` and `lab`, which the same person runs.
type SecretRef struct {
	Secret string `json:"secret,omitzero"` // name given to `certfarm secret set`
	File   string `json:"file,omitzero"`
	Env    string `json:"env,omitzero"`
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
	Name    string            `json:"name,omitzero"`
	Address string            `json:"address,omitzero"` // host or IP, without port; where its endpoints are, too
	Labels  map[string]string `json:"labels,omitzero"`
	Shell   string            `json:"shell,omitzero"`  // posix, cmd or powershell
	Become  string            `json:"become,omitzero"` // "" or "sudo": commands run through `sudo -n`; files are written as the SSH user
	Local   bool              `json:"local"`           // the controller's own machine
	SSH     *SSH              `json:"ssh,omitzero"`    // nil unless it is reached so
	SMB     *SMB              `json:"smb,omitzero"`    // nil unless its files are reached so; no command can be run there
	Agent   bool              `json:"agent,omitzero"`  // it is not reached: its agent asks the controllers what is to be done
	Drain   []Drain           `json:"drain,omitzero"`  // the balancers that it is taken out of while a target of it is activated
}

// Drain is one way to take a node out of the balancers in front of it while its
// targets are activated: by HAProxy's admin socket, or by a command of the
// controller's list.
type Drain struct {
	HAProxy string        `json:"haproxy,omitzero"` // node from which Socket is reached; empty: the controller, if Command is empty
	Socket  string        `json:"socket,omitzero"`  // path, or IP address and port
	Servers []string      `json:"servers,omitzero"` // BACKEND/SERVER
	Command string        `json:"command,omitzero"` // name in the controller's list
	Wait    time.Duration `json:"wait,omitzero"`    // for connections to end, before the change is made all the same
	Last    bool          `json:"last,omitzero"`    // the last server of a backend may be taken out
}

// SMB says how a share of a node is reached: signed and encrypted SMB 3.
type SMB struct {
	Share    string    `json:"share,omitzero"` // \\server\share
	Port     int       `json:"port,omitzero"`  // 0: 445
	User     string    `json:"user,omitzero"`
	Domain   string    `json:"domain,omitzero"` // empty: an account of the server
	Password SecretRef `json:"password,omitzero"`
}

// SSH says how a node is reached. The host key is always verified: against a
// pinned key, or against a host CA. There is no way to accept any key.
type SSH struct {
	Port               int           `json:"port"`
	User               string        `json:"user,omitzero"`
	Key                SecretRef     `json:"key,omitzero"`                 // PEM of the private key, or OpenSSH format
	Certificate        string        `json:"certificate,omitzero"`         // optional user certificate, authorized_keys format
	CertificateFrom    SecretRef     `json:"certificate_from,omitzero"`    // in place of Certificate: where it stands; read at each connect
	CertificateCommand string        `json:"certificate_command,omitzero"` // in place of Certificate: a command of the controller's list that writes it; run at each connect
	HostKeys           []string      `json:"host_keys,omitzero"`           // pinned public keys, authorized_keys format
	HostCAs            []string      `json:"host_cas,omitzero"`            // keys of CAs that sign host keys
	Jump               string        `json:"jump,omitzero"`                // name of the node to go through
	Receiver           bool          `json:"receiver,omitzero"`            // the login's forced command is `certfarm receive`: no other command and no file is asked for
	ConnectTimeout     time.Duration `json:"connect_timeout"`
}

// A Site is a set of names served together: one Certificate on many Targets.
type Site struct {
	Name        string       `json:"name,omitzero"`
	Tags        []string     `json:"tags,omitzero"`
	Names       []string     `json:"names,omitzero"` // DNS names, A-labels, the first is the main one
	Issuer      string       `json:"issuer,omitzero"`
	Fallbacks   []string     `json:"fallbacks,omitzero"` // issuers that are asked in turn when Issuer cannot issue in time
	Profile     string       `json:"profile,omitzero"`
	KeyTypes    []KeyType    `json:"key_types,omitzero"` // one leaf for each
	Strategy    Strategy     `json:"strategy,omitzero"`
	Validations []Validation `json:"validations,omitzero"` // the first that takes a name is how it is proven
	Targets     []Target     `json:"targets,omitzero"`
	Balancers   []Endpoint   `json:"balancers,omitzero"` // addresses in front of the nodes: sampled, never a reason to restore
	Policy      Policy       `json:"policy,omitzero"`

	Member *Member    `json:"member,omitempty"` // of a site with strategy per-node, one for each node; nil: it is a site of farm.yaml
	Behind []Endpoint `json:"behind,omitzero"`  // of strategy edge: where the nodes behind may be seen; only looked at
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

// The strategies.
const (
	Central Strategy = "central"  // one key, copied to each target
	PerNode Strategy = "per-node" // each node its own key and certificate
	Edge    Strategy = "edge"     // only the proxies that terminate TLS
)

// A Target is one place that holds one certificate: a Kind on a Node or in a
// cloud. Its options mean something to its kind alone.
type Target struct {
	Name      string               `json:"name,omitzero"` // unique in the farm
	Site      string               `json:"site,omitzero"`
	Node      string               `json:"node,omitzero"`    // empty for a cloud
	ReadBy    []string             `json:"read_by,omitzero"` // of a target on no node: the nodes that read it, where it works on them, too
	Kind      string               `json:"kind,omitzero"`
	Options   []byte               `json:"options,omitzero"`  // JSON, checked by the kind
	Identity  string               `json:"identity,omitzero"` // the physical place: two targets with one identity are a mistake
	Group     string               `json:"group,omitzero"`    // the reload group: what one reload or one share makes live together
	Secrets   map[string]SecretRef `json:"secrets,omitzero"`  // by the kind's name for them
	Labels    map[string]string    `json:"labels,omitzero"`
	Endpoints []Endpoint           `json:"endpoints,omitzero"`
	LastWave  bool                 `json:"last_wave"` // cannot be undone, so it is changed last

	Windows  []Window      `json:"windows,omitzero"`  // when this target may be activated, in place of the policy's windows: rollouts of others do not wait for it
	Deadline time.Duration `json:"deadline,omitzero"` // for one act on it, in place of the policy's; 0: the policy's
	Lag      time.Duration `json:"lag,omitzero"`      // how long its readers may still see the old certificate, beside what its kind knows

	AbsentMax Share `json:"absent_max,omitzero"` // of its endpoints, that may be away without holding a rollout; zero: none
}

// An Endpoint is where a certificate is seen: an address, a port and a server
// name. A target feeds one or more of them.
type Endpoint struct {
	Address  string `json:"address,omitzero"` // host:port, dialled as it stands
	SNI      string `json:"sni,omitzero"`
	Path     string `json:"path,omitzero"`     // "direct", or "ssh": through the target's node
	StartTLS string `json:"starttls,omitzero"` // "", smtp, imap, pop3, ldap, postgres, mysql …
	Proxy    int    `json:"proxy"`             // PROXY protocol version sent first: 0 (none), 1 or 2
}
