package config

// The structs of this file are farm.yaml: the decoder fills them, and schema.json
// is made from them. The tags say
//
//	yaml        the field's name
//	jsonschema  required, and the texts that it may be (enum=…)
//	doc         what it means, its unit and its default

// farmFile is a whole farm.yaml.
type farmFile struct {
	located
	Farm        string               `yaml:"farm" jsonschema:"required" doc:"The farm's name: letters, digits, dots, dashes and underscores."`
	Proxy       string               `yaml:"proxy" doc:"URL of the proxy for outbound HTTP (http, https or socks5), without a password. Default: none."`
	Resolvers   map[string]list      `yaml:"resolvers" doc:"DNS servers by zone, as addresses with a port (default 53); \".\" is for every other zone. Default: the system's."`
	Controllers list                 `yaml:"controllers" doc:"Where controllers answer HTTP-01 questions, host:port (--challenge-listen of 'certfarm serve'), as the balancer reaches them. For 'certfarm snippet'. Default: none."`
	Issuers     map[string]issuer    `yaml:"issuers" jsonschema:"required" doc:"ACME CAs by name, each with one account."`
	Nodes       map[string]node      `yaml:"nodes" jsonschema:"required" doc:"Machines by name."`
	Sites       map[string]site      `yaml:"sites" jsonschema:"required" doc:"Sites by name. A site is a set of names that are served together with one certificate."`
	DNS         map[string]dnsWriter `yaml:"dns" doc:"Ways to write TXT records, by name: what sites with method dns-01 refer to."`
	Policy      *policy              `yaml:"policy" doc:"How careful rollouts are. A site's own policy overrides it field by field."`

	Notifications *notifications `yaml:"notifications" doc:"Who is told of what. Default: nobody, and the controllers' log has it."`
}

type issuer struct {
	located
	ACME           string  `yaml:"acme" jsonschema:"required" doc:"URL of the CA's ACME directory; https only."`
	Staging        string  `yaml:"staging" doc:"URL of the CA's staging directory, for 'certfarm preflight --external'. Default: that of Let's Encrypt for Let's Encrypt, else none."`
	Contact        list    `yaml:"contact" doc:"Where the CA may write to, as mailto: URLs."`
	Profile        string  `yaml:"profile" doc:"ACME profile of the certificates, by the CA's name for it. Default: the CA's choice. A site may name another."`
	PreferredChain string  `yaml:"preferred_chain" doc:"Common name of the root that the chain should lead to, where the CA offers several. Default: the CA's choice."`
	Roots          string  `yaml:"roots" doc:"Root certificates of a private CA, PEM, in place (they are public). Default: the system's roots."`
	EAB            *eab    `yaml:"eab" doc:"External account binding, where the CA wants one."`
	Limits         *limits `yaml:"limits" doc:"What the CA allows, so that orders wait their turn here and not behind a refusal. Default: what is known of the directory (Let's Encrypt), else 4 orders a week for the same names."`
}

type limits struct {
	located
	Orders   rate   `yaml:"orders" doc:"New orders of the account."`
	Domain   rate   `yaml:"domain" doc:"Certificates for one registered domain."`
	Names    rate   `yaml:"names" doc:"Certificates for exactly the same names; one of them is left to people."`
	Accounts rate   `yaml:"accounts" doc:"New accounts from the controllers' address."`
	Failures rate   `yaml:"failures" doc:"Failed validations of one name. Default: 5 per 1h."`
	Exempt   string `yaml:"exempt" jsonschema:"enum=ari,enum=none" doc:"Renewals that do not count. ari: those within the window that the CA suggests. Default: what is known of the directory, else none."`
}

type eab struct {
	located
	KeyID string `yaml:"key_id" jsonschema:"required" doc:"The key's id, as the CA gave it."`
	HMAC  secret `yaml:"hmac" jsonschema:"required" doc:"The MAC key (base64url, as the CA gave it)."`
}

type node struct {
	located
	Address string            `yaml:"address" doc:"Host name or IP address, without a port; its endpoints are there, too. Required unless the node is local (127.0.0.1)."`
	Labels  map[string]string `yaml:"labels" doc:"What targets and waves choose nodes by: pool, zone, role."`
	Shell   string            `yaml:"shell" jsonschema:"enum=posix,enum=cmd,enum=powershell" doc:"The shell that answers on the node. Default: posix."`
	Become  string            `yaml:"become" jsonschema:"enum=sudo" doc:"sudo: commands run through 'sudo -n'. Files are written as the SSH user. Default: commands run as the SSH user."`
	Local   bool              `yaml:"local" doc:"The node is the controller's own machine: no SSH."`
	SSH     *sshLine          `yaml:"ssh" doc:"How the node is reached; every node has it, or smb, that is not local and has no agent."`
	Agent   bool              `yaml:"agent" doc:"The node is not reached: its agent asks the controllers what is to be done, and its own policy says what may be. Default: false."`
	Drain   []drain           `yaml:"drain" doc:"The balancers that the node is taken out of while a certificate of it is made live, until it is seen serving it. Default: none."`
	SMB     *smbLine          `yaml:"smb" doc:"How a share of the node is reached, where only files are needed there: the tokens of via distribute."`
}

type drain struct {
	located
	HAProxy string    `yaml:"haproxy" doc:"Name of the node that HAProxy runs on."`
	Socket  string    `yaml:"socket" doc:"With haproxy: its admin socket as that node reaches it, a path or an IP address and port. Default: /run/haproxy/admin.sock."`
	Address string    `yaml:"address" doc:"In place of haproxy: IP address and port of HAProxy's admin socket, as the controllers reach it."`
	Servers list      `yaml:"servers" doc:"With haproxy or address: what this node is there, as BACKEND/SERVER."`
	Command string    `yaml:"command" doc:"In place of haproxy: a command of the controller's list (--commands-file), called with out, back or state and the node's name."`
	Wait    *duration `yaml:"wait" doc:"How long connections to the node may take to end; those that are left then meet the change. Default: 30s."`
	Last    bool      `yaml:"last" doc:"With haproxy or address: the node may be taken out even if no other server of the backend takes connections. Default: false."`
}

type smbLine struct {
	located
	Share    string `yaml:"share" jsonschema:"required" doc:"The share, as \\\\server\\share; paths on the node begin there."`
	Port     int    `yaml:"port" doc:"TCP port of the file server. Default: 445."`
	User     string `yaml:"user" jsonschema:"required" doc:"The account that writes there."`
	Domain   string `yaml:"domain" doc:"Its domain. Default: an account of the file server."`
	Password secret `yaml:"password" jsonschema:"required" doc:"Its password."`
}

type sshLine struct {
	located
	User               string    `yaml:"user" jsonschema:"required" doc:"Who logs in."`
	Port               int       `yaml:"port" doc:"TCP port of the SSH server. Default: 22."`
	Key                secret    `yaml:"key" jsonschema:"required" doc:"The user's private key (PEM or OpenSSH format)."`
	Certificate        string    `yaml:"certificate" doc:"A certificate for the key, where users are signed by an SSH CA: the line of id_…-cert.pub."`
	CertificateFrom    secret    `yaml:"certificate_from" doc:"In place of certificate: a secret that holds it, read at each connect, for certificates that live for hours."`
	CertificateCommand string    `yaml:"certificate_command" doc:"In place of certificate: a command of the controller's list (--commands-file) that writes it, run at each connect."`
	HostKey            list      `yaml:"host_key" doc:"The server's public keys, as in /etc/ssh/ssh_host_*_key.pub. A node has these or host_ca: a key is never taken on trust."`
	HostCA             list      `yaml:"host_ca" doc:"Public keys of the SSH CAs that sign host keys."`
	Jump               string    `yaml:"jump" doc:"Name of the node to go through."`
	Receiver           bool      `yaml:"receiver" doc:"The login's forced command is 'certfarm receive': the node's own policy says what may be done, and no other command or file is asked for. Default: false."`
	ConnectTimeout     *duration `yaml:"connect_timeout" doc:"How long connecting may take. Default: 10s."`
}

type site struct {
	located
	Tags       []string    `yaml:"tags" doc:"Words to find and to group sites by."`
	Names      []string    `yaml:"names" jsonschema:"required" doc:"DNS names in the certificate, or IP addresses where the CA takes them; the first is the main one. Names beyond ASCII are turned into A-labels."`
	Issuer     list        `yaml:"issuer" doc:"Name of the issuer, or a list: the first is asked at each renewal, the others in turn where it cannot issue in time. Default: the only one there is."`
	Profile    string      `yaml:"profile" doc:"ACME profile at the first issuer; the others have their own. Default: the issuer's."`
	Keys       []string    `yaml:"keys" jsonschema:"enum=ec256,enum=ec384,enum=rsa2048,enum=rsa3072,enum=rsa4096" doc:"Key types: one certificate is got for each, all served together. Default: ec256."`
	Strategy   string      `yaml:"strategy" jsonschema:"enum=central,enum=per-node,enum=edge" doc:"Who holds the key. central: one key, copied to each target. per-node: each node has a key and a certificate of its own. edge: one key, on the proxies where TLS ends; the nodes behind are not touched. Default: central."`
	NodeName   string      `yaml:"node_name" doc:"per-node: a name that only the node's own certificate has beside the site's, so that a CA's limit for the same names does not count the nodes together; {node} stands for the node's name in farm.yaml: {node}.nodes.example.com. Default: none."`
	Behind     *behind     `yaml:"behind" doc:"edge: the nodes behind the proxies. Nothing is installed there; they are only looked at. Default: nobody looks."`
	Validation validations `yaml:"validation" doc:"How the CA is shown that the names are ours; a list where names differ in it, and the first that takes a name is the one. Default: http-01 via gateway."`
	Targets    []target    `yaml:"targets" jsonschema:"required" doc:"Where the certificate is installed."`
	Balancers  []balancer  `yaml:"balancers" doc:"Addresses in front of the nodes. They are looked at, and never a reason to go back."`
	Policy     *policy     `yaml:"policy" doc:"How careful this site's rollouts are; what is not said here is as in the farm's policy."`
}

type validation struct {
	located
	Names    []string          `yaml:"names" doc:"What it is for: names, or *.example.com for everything below. Default: every name that none before it takes."`
	Method   string            `yaml:"method" jsonschema:"enum=http-01,enum=dns-01,enum=dns-persist-01" doc:"ACME challenge. Default: http-01; with dns it is dns-01."`
	Via      string            `yaml:"via" jsonschema:"enum=gateway,enum=redirect,enum=stateless,enum=distribute" doc:"http-01: who answers. gateway: the balancer or proxy routes /.well-known/acme-challenge/ to the controllers. redirect: nodes or balancer redirect it to a host that only the controllers serve. stateless: every node by itself, from a static rule. distribute: every node from its webroot, where the token is copied to. Default: gateway."`
	To       string            `yaml:"to" doc:"redirect: where to, a URL with a host that only the controllers serve: http://acme.example.com. Public CAs follow redirects to ports 80 and 443 only."`
	Webroot  string            `yaml:"webroot" doc:"distribute: the folder on each node that its web server serves at /."`
	On       selector          `yaml:"on" doc:"The nodes that answer: names or labels, as for targets. Default: the nodes of the site's targets."`
	Port     int               `yaml:"port" doc:"TCP port at which those nodes answer HTTP; preflight asks there. Default: 80."`
	Front    bool              `yaml:"front" doc:"redirect, stateless: the rule stands on the balancer, so that preflight does not ask the nodes. Default: false."`
	DNS      string            `yaml:"dns" doc:"dns-01: which entry of dns writes the records."`
	Delegate map[string]string `yaml:"delegate" doc:"dns-01: where the TXT record of a name (or of everything below *.example.com) is, where no CNAME in DNS says it."`
}

type dnsWriter struct {
	located
	Provider string            `yaml:"provider" doc:"rfc2136, builtin, exec, or one of 'certfarm dns providers'. Default: the entry's name."`
	Options  options           `yaml:"options" doc:"What the provider needs to know: 'certfarm dns providers NAME'."`
	Secrets  map[string]secret `yaml:"secrets" doc:"The provider's settings that are secret."`
	Silent   *duration         `yaml:"silent" doc:"How long a name server of the zone that does not answer is waited for, before the word of the others is enough. Default: 2m."`
	Ask      string            `yaml:"ask" jsonschema:"enum=servers,enum=resolvers" doc:"Who is asked whether a record is out. servers: all name servers of the zone. resolvers: the resolvers, where port 53 is closed. Default: servers."`
}

type target struct {
	located
	Kind      string            `yaml:"kind" jsonschema:"required" doc:"How the certificate is installed: nginx, apache, haproxy, ccs … docs/targets.md has them all."`
	Name      string            `yaml:"name" doc:"Tells two targets of one kind apart. The full name of a target is SITE/NAME@NODE. Default: the kind."`
	On        selector          `yaml:"on" doc:"The nodes: a node's name, a list of names, or labels that all must match. Required, but for kinds that are no place on a node (a share, a vault, a cloud): there it is who reads it."`
	Options   options           `yaml:"options" doc:"What the kind needs to know. With a kind that is no place on a node, {node} stands for a node's address: then each node has a target of its own."`
	Secrets   map[string]secret `yaml:"secrets" doc:"The kind's settings that are secret."`
	Window    list              `yaml:"window" doc:"When this target may be activated, written as in policy, and in place of the policy's. The site's other targets do not wait for it: it follows in a rollout of its own, with the same certificate. Default: with the others."`
	Deadline  *duration         `yaml:"deadline" doc:"For one act on this target. Default: the policy's."`
	Lag       *duration         `yaml:"lag" doc:"How long its readers may still see the old certificate after it went live: caches, replicas. Default: what the kind knows."`
	AbsentMax *share            `yaml:"absent_max" doc:"How many of its endpoints may be switched off (nobody takes a connection) without holding a rollout: servers that read a share, say. One must answer. Default: 0."`
	Endpoints []endpoint        `yaml:"endpoints" doc:"Where the certificate is seen, for each node. Default: the node's address, port 443, the site's first name."`
}

type endpoint struct {
	located
	Port     int    `yaml:"port" doc:"TCP port on the node's address. Default: 443."`
	Address  string `yaml:"address" doc:"host:port, in place of port; {node} stands for the node's address."`
	SNI      string `yaml:"sni" doc:"Server name to ask for. Default: the site's first name."`
	Path     string `yaml:"path" jsonschema:"enum=direct,enum=ssh" doc:"direct: from the controller. ssh: from the node, through its SSH line. Default: direct."`
	StartTLS string `yaml:"starttls" doc:"Protocol that is upgraded to TLS: smtp, imap … Default: TLS from the first byte."`
	Proxy    int    `yaml:"proxy" jsonschema:"enum=0,enum=1,enum=2" doc:"Version of the PROXY protocol header to send first; 0: none. Default: 0."`
}

type behind struct {
	located
	On   selector `yaml:"on" doc:"The nodes: a node's name, a list of names, or labels that all must match."`
	Port int      `yaml:"port" doc:"TCP port on the node's address where TLS would be seen. Default: 443."`
}

type balancer struct {
	located
	Address  string `yaml:"address" jsonschema:"required" doc:"host:port."`
	SNI      string `yaml:"sni" doc:"Server name to ask for. Default: the site's first name."`
	StartTLS string `yaml:"starttls" doc:"Protocol that is upgraded to TLS. Default: TLS from the first byte."`
	Proxy    int    `yaml:"proxy" jsonschema:"enum=0,enum=1,enum=2" doc:"Version of the PROXY protocol header to send first; 0: none. Default: 0."`
}

type policy struct {
	located
	Canary          *share    `yaml:"canary" doc:"Targets of the first wave. Default: 1; 0: no canary."`
	Waves           []wave    `yaml:"waves" doc:"Targets that are changed together, after the canary and before all others. Default: none."`
	MaxParallel     *share    `yaml:"max_parallel" doc:"Targets that may be live and not yet verified at one time, at least 1; targets that one reload makes live together count as one. Default: 25%."`
	Soak            *duration `yaml:"soak" doc:"How long a verified wave is watched before the next. Default: 30s."`
	Deadline        *duration `yaml:"deadline" doc:"For one act on one target, with all its commands and copies. Default: 2m."`
	HealthyDeadline *duration `yaml:"healthy_deadline" doc:"From making a certificate live until the target must be seen serving it. Default: 2m."`
	FailureBudget   *share    `yaml:"failure_budget" doc:"Targets that may fail without all the others going back. Default: 0."`
	AbsentMax       *share    `yaml:"absent_max" doc:"Targets that may be silent everywhere; they are brought up to date when they are back. Default: max(1, 5%)."`
	Settle          *duration `yaml:"settle" doc:"Least age of a certificate before it goes live, for clients with slow clocks. Default: 0s."`
	Window          list      `yaml:"window" doc:"When targets may be activated: 'Mon-Fri 02:00-05:00 Europe/Copenhagen'. A window that ends before it begins ends on the next day; no days are every day. Default: always."`
	Drift           string    `yaml:"drift" jsonschema:"enum=heal,enum=report" doc:"What is done when a target serves an older, broken or missing certificate: heal puts ours back, report tells people. A valid certificate that is not ours is always only reported. Default: heal."`
}

type wave struct {
	located
	Name    string            `yaml:"name" jsonschema:"required" doc:"Its name, for people."`
	Match   map[string]string `yaml:"match" jsonschema:"required" doc:"Labels of its nodes; all must match."`
	Approve bool              `yaml:"approve" doc:"A person must assent before it begins. Default: false."`
}
