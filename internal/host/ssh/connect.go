package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
)

// trust is what the host key must be.
type trust struct {
	pinned, authorities []ssh.PublicKey
	algorithms          []string // that the server may offer: what is pinned and nothing else
}

// certAlgorithms are those of host certificates; the key that a CA signed may
// be of another type than the CA's own.
var certAlgorithms = []string{
	ssh.CertAlgoED25519v01,
	ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01,
	ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01,
}

func parseTrust(s *farm.SSH) (t trust, err error) {
	if t.pinned, err = parseKeys("host_keys", s.HostKeys); err != nil {
		return t, err
	}
	if t.authorities, err = parseKeys("host_cas", s.HostCAs); err != nil {
		return t, err
	}
	if len(t.pinned)+len(t.authorities) == 0 {
		return t, errors.New("no host key is pinned and no host CA is named: give one of host_keys, host_cas (`ssh-keyscan HOST` shows the keys; compare them on the node)")
	}
	if len(t.authorities) > 0 {
		t.algorithms = slices.Clone(certAlgorithms)
	}
	for _, k := range t.pinned {
		algorithms := []string{k.Type()}
		if k.Type() == ssh.KeyAlgoRSA { // not ssh-rsa itself, which signs SHA-1 (RFC 8332)
			algorithms = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
		}
		t.algorithms = append(t.algorithms, algorithms...)
	}
	slices.Sort(t.algorithms[len(t.algorithms)-len(t.pinned):])
	t.algorithms = slices.Compact(t.algorithms)
	return t, nil
}

func parseKeys(field string, lines []string) ([]ssh.PublicKey, error) {
	var keys []ssh.PublicKey
	for i, text := range lines {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("%s, entry %d: %w; it should look like ssh-ed25519 AAAA…", field, i+1, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// check is an ssh.HostKeyCallback. Its errors wrap host.ErrHostKey.
func (t trust) check(addr string, remote net.Addr, key ssh.PublicKey) error {
	checker := ssh.CertChecker{
		IsHostAuthority: func(ca ssh.PublicKey, _ string) bool { return among(t.authorities, ca) },
		HostKeyFallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			if !among(t.pinned, key) {
				return errors.New("it is not pinned")
			}
			return nil
		},
	}
	err := checker.CheckHostKey(addr, remote, key)
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %s showed %s %s: %w; if the node was installed anew, pin its new key in farm.yaml, otherwise someone stands in between",
		host.ErrHostKey, addr, key.Type(), ssh.FingerprintSHA256(key), err)
}

func among(keys []ssh.PublicKey, key ssh.PublicKey) bool {
	return slices.ContainsFunc(keys, func(k ssh.PublicKey) bool { return bytes.Equal(k.Marshal(), key.Marshal()) })
}

// signer is what logs in: the key, or the certificate made for it.
func (h *Host) signer(ctx context.Context) (ssh.Signer, error) {
	secret, err := h.config.Key(ctx)
	if err != nil {
		return nil, fmt.Errorf("getting the key for node %s: %w", h.config.Node.Name, err)
	}
	key, err := ssh.ParsePrivateKey(secret.Reveal())
	if err != nil {
		return nil, fmt.Errorf("reading the key for node %s (%s): %w", h.config.Node.Name, h.config.Node.SSH.Key, err)
	}
	text := h.config.Node.SSH.Certificate
	if h.config.Certificate != nil {
		if text, err = h.config.Certificate(ctx); err != nil {
			return nil, fmt.Errorf("getting the user certificate for node %s: %w", h.config.Node.Name, err)
		}
	}
	if text = strings.TrimSpace(text); text == "" && h.config.Certificate == nil {
		return key, nil
	}
	signer, err := certified(key, text, time.Now())
	if err != nil {
		return nil, fmt.Errorf("user certificate for node %s: %w", h.config.Node.Name, err)
	}
	return signer, nil
}

// certified is the key with the certificate made for it, if that is good now.
func certified(key ssh.Signer, text string, now time.Time) (ssh.Signer, error) {
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("it cannot be read: %w; give the text of the file that ends in -cert.pub", err)
	}
	cert, ok := public.(*ssh.Certificate)
	switch {
	case !ok:
		return nil, errors.New("it is a plain key; give the text of the file that ends in -cert.pub")
	case cert.CertType != ssh.UserCert:
		return nil, errors.New("it is for a host; have the CA sign the key for a user (`ssh-keygen -s CA -I ID -n USER KEY.pub`, without -h)")
	case cert.ValidBefore != ssh.CertTimeInfinity && now.Unix() >= int64(min(cert.ValidBefore, math.MaxInt64)):
		return nil, fmt.Errorf("it expired %s; have the SSH CA sign the key anew (certificate_from and certificate_command are asked at each connect), and look at what should have renewed it",
			moment(cert.ValidBefore))
	case now.Unix() < int64(min(cert.ValidAfter, math.MaxInt64)):
		return nil, fmt.Errorf("it is not valid before %s: compare the clocks here and at the SSH CA", moment(cert.ValidAfter))
	}
	return ssh.NewCertSigner(cert, key)
}

func moment(seconds uint64) string {
	return time.Unix(int64(min(seconds, math.MaxInt64)), 0).UTC().Format("2006-01-02 15:04:05 MST")
}

// connect dials, checks the host key and logs in.
func (h *Host) connect(ctx context.Context) (*line, error) {
	signer, err := h.signer(ctx)
	if err != nil {
		return nil, err
	}
	keys, err := parseTrust(h.config.Node.SSH)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", h.config.Node.Name, err)
	}
	conn, err := h.config.Dial(ctx, "tcp", h.addr)
	if err != nil {
		return nil, h.unreachable(err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() }) // the handshake knows no context
	defer stop()
	var refused error
	sshConn, channels, requests, err := ssh.NewClientConn(conn, h.addr, &ssh.ClientConfig{
		User: h.config.Node.SSH.User,
		Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: func(addr string, remote net.Addr, key ssh.PublicKey) error {
			refused = keys.check(addr, remote, key)
			return refused
		},
		HostKeyAlgorithms: keys.algorithms,
	})
	if err != nil {
		conn.Close()
		return nil, h.refusal(ctx, err, refused)
	}
	if !stop() {
		sshConn.Close()
		return nil, h.unreachable(context.Cause(ctx))
	}
	return newLine(h, ssh.NewClient(sshConn, channels, requests)), nil
}

// refusal says why a handshake failed. refused is what the host key check said.
func (h *Host) refusal(ctx context.Context, err, refused error) error {
	negotiation, isNegotiation := errors.AsType[*ssh.AlgorithmNegotiationError](err)
	switch {
	case refused != nil:
		return fmt.Errorf("node %s: %w", h.config.Node.Name, refused)
	case isNegotiation && strings.Contains(negotiation.What, "host key"):
		return fmt.Errorf("node %s: %w: it has none of the pinned types %s, only %s; pin one that it has (`ssh-keyscan`)", h.config.Node.Name,
			host.ErrHostKey, strings.Join(negotiation.SupportedAlgorithms, ", "), strings.Join(negotiation.RequestedAlgorithms, ", "))
	case ctx.Err() != nil:
		return h.unreachable(fmt.Errorf("no SSH handshake in time: %w", context.Cause(ctx)))
	case strings.Contains(err.Error(), "unable to authenticate"):
		return h.unreachable(fmt.Errorf("the node does not let %q in with this key: is the public key in its authorized_keys, or the certificate valid there? %w",
			h.config.Node.SSH.User, err))
	}
	return h.unreachable(err)
}
