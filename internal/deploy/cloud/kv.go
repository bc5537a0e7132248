package cloud

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/hashicorp/vault/api"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/outbound"
)

// newVault opens the deployer of a secret over a client that follows no redirects.
func newVault(o vault, s deploy.Setup, over *http.Client) (deploy.Deployer, error) {
	identity, _, err := o.Facts()
	if err != nil {
		return nil, err
	}
	token, secretID, err := o.credentials(s)
	if err != nil {
		return nil, err
	}
	lag, err := lagOf(o.Lag)
	if err != nil {
		return nil, err
	}
	at, err := o.at()
	if err != nil {
		return nil, err
	}
	client, err := api.NewClient(&api.Config{Address: at, HttpClient: over}) // no retries: the rollout has its own
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", identity, err)
	}
	// The library takes these from the environment, where they are another program's.
	client.SetHeaders(http.Header{api.RequestHeaderName: {"true"}})
	client.SetToken(outbound.Word(token))
	if namespace := strings.Trim(o.Namespace, "/"); namespace != "" {
		client.SetNamespace(namespace)
	}
	v := &vaultShelf{options: o, client: client, secretID: secretID, in: o.RoleID == ""}
	return &keeper{shelf: v, past: v, identity: identity, undo: o.Undo, lag: lag, secrets: []farm.Secret{token, secretID}}, nil
}

// vaultShelf is one secret of a KV engine.
type vaultShelf struct {
	options  vault
	client   *api.Client
	secretID farm.Secret

	mu sync.Mutex
	in bool // signed in
}

// signIn gets a token by AppRole, once for a deployer.
func (v *vaultShelf) signIn(ctx context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.in {
		return nil
	}
	login := map[string]any{"role_id": v.options.RoleID}
	if !v.secretID.IsZero() {
		login["secret_id"] = outbound.Word(v.secretID)
	}
	got, err := v.client.Logical().WriteWithContext(ctx, path.Join("auth", v.options.RoleMount, "login"), login)
	if err != nil {
		return fmt.Errorf("signing in by AppRole: %w", vaultError(err))
	}
	if got == nil || got.Auth == nil || got.Auth.ClientToken == "" {
		return errors.New("signing in by AppRole: the answer has no token")
	}
	v.client.SetToken(got.Auth.ClientToken)
	v.in = true
	return nil
}

func (v *vaultShelf) look(ctx context.Context) (held, error) {
	if err := v.signIn(ctx); err != nil {
		return held{}, err
	}
	if v.options.KV == 1 {
		got, err := v.client.KVv1(v.options.Mount).Get(ctx, v.options.Path)
		if errors.Is(err, api.ErrSecretNotFound) {
			return held{}, nil
		}
		if err != nil {
			return held{}, vaultError(err)
		}
		return v.held(got.Data, 0), nil
	}
	got, err := v.client.KVv2(v.options.Mount).Get(ctx, v.options.Path)
	if errors.Is(err, api.ErrSecretNotFound) {
		return held{ref: "0"}, nil
	}
	if err != nil {
		return held{}, vaultError(err)
	}
	if got.VersionMetadata == nil {
		return held{}, errors.New("the answer has no version: is it a KV engine of version 1? Then say `kv: 1`")
	}
	return v.held(got.Data, got.VersionMetadata.Version), nil
}

// held reads a secret's fields.
func (v *vaultShelf) held(fields map[string]any, version int) held {
	h := held{ref: strconv.Itoa(version), fields: fields}
	b, err := v.bundle(fields)
	if err != nil {
		h.mismatch = errors.Is(err, encode.ErrMismatch)
		return h
	}
	leaf, err := encode.Leaf(b.Chain)
	if err != nil {
		return h
	}
	h.notAfter = leaf.NotAfter
	if h.placeholder = encode.IsPlaceholder(leaf); !h.placeholder {
		h.leaf, h.key = b.Leaf, keyOf(leaf)
	}
	return h
}

func (v *vaultShelf) bundle(fields map[string]any) (farm.Bundle, error) {
	text := func(name string) []byte {
		s, _ := fields[name].(string) // another type, or none, is no PEM
		return []byte(s)
	}
	f := v.options.Fields
	chain := text(f.Fullchain)
	if f.Certificate != "" {
		chain = bytes.Join([][]byte{text(f.Certificate), text(f.Chain)}, []byte("\n"))
	}
	return pemBundle(chain, text(f.Key))
}

// ready asks what engine is there, and what the token may do. Both may be asked by
// any token under Vault's default policy; one that may not goes without, and
// the write will tell.
func (v *vaultShelf) ready(ctx context.Context, _ farm.Bundle, current held) error {
	if err := v.engine(ctx); err != nil {
		return err
	}
	at := path.Join(v.options.Mount, v.options.Path)
	if v.options.KV == 2 {
		at = path.Join(v.options.Mount, "data", v.options.Path)
	}
	may, err := v.client.Sys().CapabilitiesSelfWithContext(ctx, at)
	if refused(err) {
		return nil
	}
	if err != nil {
		return vaultError(err)
	}
	need := "create"
	if current.fields != nil {
		need = "update"
	}
	deleted := current.fields == nil && current.ref != "0" && v.options.KV == 2 // either will do
	if slices.Contains(may, need) || slices.Contains(may, "root") || deleted && slices.Contains(may, "update") {
		return nil
	}
	return fmt.Errorf("the token may not %s %s: its policy needs path %q { capabilities = [\"create\", \"read\", \"update\"] }", need, at, at)
}

// refused reports that Vault answered, and said no.
func refused(err error) bool {
	_, answered := errors.AsType[*api.ResponseError](err)
	return answered
}

// engine asks what is mounted there, as the vault command does: a KV engine of the
// other version answers as if nothing were there.
func (v *vaultShelf) engine(ctx context.Context) error {
	got, err := v.client.Logical().ReadWithContext(ctx, path.Join("sys/internal/ui/mounts", v.options.Mount))
	if refused(err) || err == nil && got == nil {
		return nil
	}
	if err != nil {
		return vaultError(err)
	}
	options, _ := got.Data["options"].(map[string]any)
	kind, _ := got.Data["type"].(string)
	version, _ := options["version"].(string)
	if version == "" {
		version = "1"
	}
	if kind == "kv" && version != strconv.Itoa(v.options.KV) {
		return fmt.Errorf("%s is a KV engine of version %s: say `kv: %s`", v.options.Mount, version, version)
	}
	if kind != "" && kind != "kv" && kind != "generic" { // as KV 1 was called until Vault 0.8
		return fmt.Errorf("%s is no KV engine but %s", v.options.Mount, outbound.Quote(kind))
	}
	return nil
}

func (v *vaultShelf) keeps(ctx context.Context, current held) error {
	if v.options.KV == 1 {
		return errors.New("a KV engine of version 1 keeps no earlier versions")
	}
	meta, err := v.client.KVv2(v.options.Mount).GetMetadata(ctx, v.options.Path)
	if err != nil {
		return fmt.Errorf("asking how many versions are kept: %w", vaultError(err))
	}
	if meta.MaxVersions == 1 {
		return errors.New("the secret keeps one version: raise its max_versions")
	}
	_, err = v.old(ctx, current.ref)
	return err
}

func (v *vaultShelf) old(ctx context.Context, ref string) (farm.Bundle, error) {
	version, err := strconv.Atoi(ref)
	if err != nil || version < 1 || v.options.KV == 1 {
		return farm.Bundle{}, errors.New("an earlier version is not kept there")
	}
	got, err := v.client.KVv2(v.options.Mount).GetVersion(ctx, v.options.Path, version)
	if err != nil {
		return farm.Bundle{}, fmt.Errorf("reading version %d: %w", version, vaultError(err))
	}
	return v.bundle(got.Data)
}

// put writes our fields and leaves all others as they are.
func (v *vaultShelf) put(ctx context.Context, p parcel, over held) error {
	fields, err := v.fields(p.Bundle)
	if err != nil {
		return err
	}
	data := maps.Clone(over.fields)
	if data == nil {
		data = map[string]any{}
	}
	maps.Copy(data, fields)
	if v.options.KV == 1 {
		return vaultError(v.client.KVv1(v.options.Mount).Put(ctx, v.options.Path, data))
	}
	version, err := strconv.Atoi(over.ref)
	if err != nil {
		return fmt.Errorf("%q is no version", over.ref)
	}
	_, err = v.client.KVv2(v.options.Mount).Put(ctx, v.options.Path, data, api.WithCheckAndSet(version))
	return vaultError(err)
}

func (v *vaultShelf) fields(b farm.Bundle) (map[string]any, error) {
	full, err := encode.ChainPEM(b)
	if err != nil {
		return nil, err
	}
	key, err := encode.KeyPEM(b)
	if err != nil {
		return nil, err
	}
	const end = "-----END CERTIFICATE-----\n"
	leaf, above, _ := strings.Cut(string(full), end)
	f, fields := v.options.Fields, map[string]any{}
	for name, text := range map[string]string{f.Certificate: leaf + end, f.Chain: above, f.Fullchain: string(full), f.Key: string(key.Reveal())} {
		if name != "" {
			fields[name] = text
		}
	}
	return fields, nil
}

// vaultError makes an error of the library readable: its own text is of many lines.
func vaultError(err error) error {
	if err == nil {
		return nil
	}
	answer, ok := errors.AsType[*api.ResponseError](err)
	if !ok {
		return unreachable(err)
	}
	text := fmt.Sprintf("Vault answers %d %s", answer.StatusCode, http.StatusText(answer.StatusCode))
	said := strings.Join(answer.Errors, "; ")
	if said != "" && !answer.RawError {
		text += ": " + outbound.Quote(said)
	}
	hint := ""
	switch {
	case strings.Contains(said, "check-and-set"):
		return outbound.Plain(text+": "+errForeign.Error(), errors.Join(errForeign, err))
	case answer.StatusCode == http.StatusForbidden:
		hint = "has the token expired, and does its policy let it create, read and update this path?"
	case answer.StatusCode == http.StatusNotFound:
		hint = "is there a KV engine of this version at mount, and is the namespace right?"
	case answer.StatusCode == http.StatusPreconditionFailed:
		hint = "this server has not heard of the last write yet: it is tried again by itself"
	case answer.StatusCode == http.StatusTooManyRequests:
		hint = "it is tried again by itself"
	case answer.StatusCode == http.StatusServiceUnavailable:
		hint = "it is sealed or in maintenance: unseal it, and it is tried again by itself"
	}
	if hint != "" {
		text += "; " + hint
	}
	return outbound.Plain(text, err)
}
