package lab

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/cloud"
	"github.com/certfarm/certfarm/internal/deploy/cloud/azurefake"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
)

// The lab's Key Vault, as farm.yaml names it. The name leads nowhere: who is in
// this process asks the fake.
const (
	vaultURL         = "https://lab.vault.azure.net"
	vaultCertificate = "shop"
)

// A Vault is a stand-in for an Azure Key Vault with one certificate. It is the
// transport of those that ask it.
type Vault struct {
	fake       *azurefake.Vault
	credential azcore.TokenCredential
	done       chan struct{}

	mu     sync.Mutex
	fault  Fault
	timer  *time.Timer // of the fault; nil: none
	closed bool
}

// newVault makes an empty vault.
func newVault() *Vault {
	return &Vault{fake: azurefake.New(), credential: azurefake.Credential(), done: make(chan struct{})}
}

// Name is the vault's name.
func (v *Vault) Name() string { return "vault" }

// HTTPSAddr is empty: a vault serves nobody itself.
func (v *Vault) HTTPSAddr() string { return "" }

// Faults lists the faults that it knows.
func (v *Vault) Faults() []Kind { return []Kind{Down, Hangs, Refuses} }

// Set makes the vault misbehave from now on, in place of any fault before.
func (v *Vault) Set(f Fault) error {
	if err := knows(v, f.Kind); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return fmt.Errorf("set %s on the vault: it is closed", f)
	}
	if v.timer != nil {
		v.timer.Stop()
		v.timer = nil
	}
	v.fault = f
	if f.For > 0 {
		var mine *time.Timer
		mine = time.AfterFunc(f.For, func() {
			v.mu.Lock()
			defer v.mu.Unlock()
			if v.timer == mine {
				v.fault, v.timer = Fault{}, nil
			}
		})
		v.timer = mine
	}
	return nil
}

// Do answers a request as the fault has it; it is policy.Transporter's.
func (v *Vault) Do(r *http.Request) (*http.Response, error) {
	v.mu.Lock()
	k, closed := v.fault.Kind, v.closed
	v.mu.Unlock()
	switch {
	case closed || k == Down:
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	case k == Hangs:
		select {
		case <-r.Context().Done():
			return nil, r.Context().Err()
		case <-v.done:
			return nil, io.ErrUnexpectedEOF
		}
	case k == Refuses && r.Method == http.MethodPost && r.Header.Get("Authorization") != "":
		return forbidden(r), nil
	}
	return v.fake.Do(r)
}

// forbidden is how Key Vault refuses who has no right to import.
func forbidden(r *http.Request) *http.Response {
	const text = `{"error": {"code": "Forbidden", "message": "Caller is not authorized to perform action on resource.", "innererror": {"code": "ForbiddenByRbac"}}}`
	return &http.Response{
		StatusCode: http.StatusForbidden, Status: "403 Forbidden", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader([]byte(text))), Request: r,
	}
}

// kind is the kind of target that reaches this vault.
func (v *Vault) kind() deploy.Kind { return cloud.KeyVaultOver(v, v.credential) }

// read is how an App Service reads: the newest version of the secret, a PFX without
// password. Before there is one it has nothing.
func (v *Vault) read() (func(context.Context) (shelf, error), error) {
	client, err := azsecrets.NewClient(vaultURL, v.credential, &azsecrets.ClientOptions{ClientOptions: policy.ClientOptions{
		Transport: v, Retry: policy.RetryOptions{MaxRetries: -1}, // the next poll is soon
	}})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (shelf, error) {
		got, err := client.GetSecret(ctx, vaultCertificate, "", nil)
		if no, ok := errors.AsType[*azcore.ResponseError](err); ok && no.StatusCode == http.StatusNotFound {
			return shelf{names: []string{}}, nil
		}
		if err != nil {
			return shelf{}, fmt.Errorf("read the secret: %w", err)
		}
		if got.Value == nil {
			return shelf{}, errors.New("read the secret: it has no value")
		}
		data, err := base64.StdEncoding.DecodeString(*got.Value)
		if err != nil {
			return shelf{}, fmt.Errorf("read the secret: %w", err)
		}
		cert, err := fromPFX(data, farm.Secret{})
		if err != nil {
			return shelf{}, fmt.Errorf("read the secret: %w", err)
		}
		return shelf{certs: []tls.Certificate{cert}}, nil
	}, nil
}

// fromPFX is a PFX as a server serves it.
func fromPFX(data []byte, password farm.Secret) (tls.Certificate, error) {
	b, err := encode.OpenPFX(data, password)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(b.Chain, b.Key.Reveal())
}

// Close ends the vault: whoever asks is refused.
func (v *Vault) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return nil
	}
	v.closed = true
	if v.timer != nil {
		v.timer.Stop()
	}
	close(v.done)
	return nil
}
