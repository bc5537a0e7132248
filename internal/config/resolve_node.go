package config

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"go.yaml.in/yaml/v4"
	"golang.org/x/crypto/ssh"
)

// allNodes resolves the nodes and makes them findable by label.
func (c *resolver) allNodes() {
	c.nodes = map[string]farm.Node{}
	c.labeled = map[label][]string{}
	for _, name := range slices.Sorted(maps.Keys(c.file.Nodes)) {
		n := c.node(name, c.file.Nodes[name])
		c.whole.Nodes = append(c.whole.Nodes, n)
		c.nodes[name] = n
		for k, v := range n.Labels {
			c.labeled[label{k, v}] = append(c.labeled[label{k, v}], name)
		}
	}
	for _, n := range c.whole.Nodes {
		c.jump(n)
		c.balancersOf(n)
	}
}

func (c *resolver) node(name string, w node) farm.Node {
	c.checkName(key(w.at), name)
	got := farm.Node{
		Name: name, Address: w.Address, Labels: w.Labels, Local: w.Local, Agent: w.Agent,
		Shell: orElse(w.Shell, "posix"), Become: w.Become,
	}
	if w.Local {
		got.Address = orElse(w.Address, "127.0.0.1")
	}
	got.SSH = c.way(w)
	got.SMB = c.share(w)
	got.Drain = c.drains(w.Drain)
	c.own(w, got)
	c.address(w, got.Address)
	if got.Become != "" && got.Shell != "posix" {
		c.say(w.at.field("become"), "there is no sudo in "+got.Shell, "take out become")
	}
	for k, v := range w.Labels {
		if strings.TrimSpace(k) != k || k == "" || len(k) > 100 || len(v) > 100 {
			c.say(w.at.field("labels"), quote(k)+" is no label", "labels are short words")
		}
	}
	return got
}

// way is how a node is reached: by SSH, or not at all because it is here.
func (c *resolver) way(w node) *farm.SSH {
	said := w.at.field("ssh") != w.at
	switch {
	case w.Local && said:
		c.say(w.at.field("ssh"), "a local node is not reached by SSH", "take out ssh, or local")
	case said && w.SMB != nil:
		c.say(w.at.field("smb"), "a node is reached by SSH or by SMB, not by both", "take one of them out: over SSH files are written, too")
	case !w.Local && !said && !w.Agent && w.at.field("smb") == w.at && w.at.field("local").val.Tag != textTag:
		c.say(key(w.at), "it is not said how this node is reached",
			"give ssh: {user: …, key: {secret: …}, host_key: …}, local: true for the controller's own machine, or agent: true")
	}
	if w.SSH == nil {
		return nil
	}
	return c.ssh(*w.SSH)
}

// unc is how a share is written.
var unc = regexp.MustCompile(`^\\\\[A-Za-z0-9._-]+\\[^\\/:*?"<>|]+$`)

// share is how the files of a node are reached by SMB.
func (c *resolver) share(w node) *farm.SMB {
	if w.SMB == nil {
		return nil
	}
	if w.Local {
		c.say(w.at.field("smb"), "a local node is not reached by SMB", "take out smb, or local")
	}
	s := w.SMB
	if s.Share != "" && !unc.MatchString(s.Share) {
		c.say(s.at.field("share"), quote(s.Share)+" is no share", `write it in single quotes: '\\server\share', without a folder`)
	}
	if s.Port != 0 {
		c.port(s.at.field("port"), s.Port)
	}
	return &farm.SMB{Share: s.Share, Port: s.Port, User: s.User, Domain: s.Domain, Password: farm.SecretRef(s.Password)}
}

func (c *resolver) address(w node, address string) {
	switch _, _, withPort := hostPort(address); {
	case address == "" && w.at.field("address") == w.at:
		c.say(key(w.at), `"address" is missing`, "")
	case address == "", validHost(address):
	case withPort:
		c.say(w.at.field("address"), "an address has no port", "the port of SSH is ssh: {port: …}, that of TLS is said in endpoints")
	default:
		c.say(w.at.field("address"), quote(address)+" is no host name or IP address", "")
	}
}

// ssh checks the line to a node.
func (c *resolver) ssh(w sshLine) *farm.SSH {
	got := &farm.SSH{
		Port: w.Port, User: w.User, Key: farm.SecretRef(w.Key), Certificate: strings.TrimSpace(w.Certificate),
		CertificateFrom: farm.SecretRef(w.CertificateFrom), CertificateCommand: w.CertificateCommand,
		Jump: w.Jump, Receiver: w.Receiver, ConnectTimeout: 10 * time.Second,
	}
	if w.at.field("port") == w.at {
		got.Port = 22
	}
	c.port(w.at.field("port"), got.Port)
	if w.ConnectTimeout != nil {
		got.ConnectTimeout = time.Duration(*w.ConnectTimeout)
		c.positive(w.at.field("connect_timeout"), got.ConnectTimeout)
	}
	if got.Certificate != "" {
		key, ok := c.publicKey(w.at.field("certificate"), got.Certificate)
		if _, isCert := key.(*ssh.Certificate); ok && !isCert {
			c.say(w.at.field("certificate"), "this is a key, not a certificate", "give the line of the file that ends in -cert.pub")
		}
	}
	c.oneCertificate(w)
	got.HostKeys = c.publicKeys(w.at.field("host_key"), w.HostKey)
	got.HostCAs = c.publicKeys(w.at.field("host_ca"), w.HostCA)
	if len(w.HostKey)+len(w.HostCA) == 0 && w.at.val.Kind == yaml.MappingNode && w.at.field("host_key") == w.at && w.at.field("host_ca") == w.at {
		c.say(w.at, `"host_key" is missing`, "a key is never taken on trust: give the line of /etc/ssh/ssh_host_ed25519_key.pub, or host_ca")
	}
	return got
}

// oneCertificate holds a line to one way to a user certificate.
func (c *resolver) oneCertificate(w sshLine) {
	var said []string
	for _, field := range []string{"certificate", "certificate_from", "certificate_command"} {
		if w.at.field(field) != w.at {
			said = append(said, field)
		}
	}
	if len(said) > 1 {
		c.say(w.at.field(said[1]), said[0]+" says already where the certificate comes from", "take one of them out")
	}
}

func (c *resolver) publicKeys(p *place, lines []string) []string {
	var all []string
	for i, l := range lines {
		if l != "" {
			c.publicKey(p.item(i), l)
			all = append(all, strings.TrimSpace(l))
		}
	}
	return all
}

// publicKey checks a key in the form of authorized_keys.
func (c *resolver) publicKey(p *place, line string) (ssh.PublicKey, bool) {
	if strings.Contains(line, "PRIVATE KEY") {
		c.src.hide(p.val)
		c.say(p, "this is a private key", "give the public one, of the file that ends in .pub; change the private one: it has been in a file")
		return nil, false
	}
	key, _, opts, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err == nil && len(opts) == 0 {
		return key, true
	}
	hint := "give a line such as `ssh-ed25519 AAAAC3Nza…`"
	if len(opts) > 0 || len(strings.Fields(line)) > 2 {
		hint += ", without the host's name in front"
	}
	c.say(p, "this is no SSH public key", hint)
	return nil, false
}

// jump follows the way to a node: it must exist, and end.
func (c *resolver) jump(n farm.Node) {
	if n.SSH == nil || n.SSH.Jump == "" {
		return
	}
	p := c.file.Nodes[n.Name].SSH.at.field("jump")
	next, known := c.nodes[n.SSH.Jump]
	switch {
	case !known:
		c.say(p, "there is no node "+quote(n.SSH.Jump), didYouMean(n.SSH.Jump, c.nodeNames()))
		return
	case next.Local:
		c.say(p, quote(next.Name)+" is the controller's own machine", "take out jump: the way begins there anyway")
		return
	case decides(next):
		c.say(p, quote(next.Name)+" decides for itself, and passes on no connections", "go through another node, or give that machine a second node with a login for jumps")
		return
	}
	way := []string{n.Name}
	for known && next.SSH != nil {
		way = append(way, next.Name)
		if next.Name == n.Name {
			c.say(p, "the way to this node leads back to it: "+strings.Join(way, ", "), "let one of them be reached without jump")
			return
		}
		if slices.Contains(way[:len(way)-1], next.Name) {
			return // a loop further on, said there
		}
		next, known = c.nodes[next.SSH.Jump]
	}
}

func (c *resolver) nodeNames() []string { return slices.Collect(maps.Keys(c.nodes)) }

func (c *resolver) port(p *place, port int) {
	if port < 1 || port > 65535 {
		c.say(p, "a port is a number from 1 to 65535", "")
	}
}

func (c *resolver) positive(p *place, d time.Duration) {
	if d <= 0 {
		c.say(p, "this must be longer than nothing", "")
	}
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
