package cloud

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
)

// versions is past's. KV 1 keeps what is current alone. What is destroyed there
// is no more.
func (v *vaultShelf) versions(ctx context.Context) (all []version, err error) {
	if v.options.KV == 1 {
		return nil, nil
	}
	if err := v.signIn(ctx); err != nil {
		return nil, err
	}
	kv := v.client.KVv2(v.options.Mount)
	list, err := kv.GetVersionsAsList(ctx, v.options.Path)
	if errors.Is(err, api.ErrSecretNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the versions: %w", v.mayNot(err, "metadata", "read"))
	}
	for _, m := range list {
		if m.Destroyed {
			continue
		}
		got, err := kv.GetVersion(ctx, v.options.Path, m.Version)
		if errors.Is(err, api.ErrSecretNotFound) {
			continue // max_versions took it meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("reading version %d: %w", m.Version, vaultError(err))
		}
		all = append(all, version{ref: strconv.Itoa(m.Version), keys: keysIn(got.Data), hidden: got.Data == nil})
	}
	return all, nil
}

// keysIn are the public keys of all certificates and private keys in PEM in a
// secret, under whatever name: the fields may have had other names once.
func keysIn(fields map[string]any) (keys []string) {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		text, _ := fields[name].(string) // another type is no PEM
		for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
			if leaf, err := x509.ParseCertificate(block.Bytes); err == nil {
				keys = append(keys, keyOf(leaf))
				continue
			}
			key, err := encode.Key(pem.EncodeToMemory(block))
			if err != nil {
				continue // something else of the operator's
			}
			if public, err := x509.MarshalPKIXPublicKey(key.Public()); err == nil {
				keys = append(keys, farm.Fingerprint(public))
			}
		}
	}
	return keys
}

// shut is past's: the versions are destroyed, which cannot be undone.
func (v *vaultShelf) shut(ctx context.Context, refs []string) error {
	var numbers []int
	for _, ref := range refs {
		n, err := strconv.Atoi(ref)
		if err != nil {
			return fmt.Errorf("%q is no version", ref)
		}
		numbers = append(numbers, n)
	}
	if err := v.client.KVv2(v.options.Mount).Destroy(ctx, v.options.Path, numbers); err != nil {
		return fmt.Errorf("destroying %s: %w", ofVersions(refs), v.mayNot(err, "destroy", "update"))
	}
	return nil
}

// mayNot is an error of a call for which the policy needs a line of its own.
func (v *vaultShelf) mayNot(err error, below, capability string) error {
	told := vaultError(err)
	if answer, ok := errors.AsType[*api.ResponseError](err); !ok || answer.StatusCode != http.StatusForbidden {
		return told
	}
	return fmt.Errorf("%w; the policy needs path %q { capabilities = [%q] }", told, path.Join(v.options.Mount, below, v.options.Path), capability)
}

// left is past's: a version that was deleted, and not destroyed, can be brought back.
func (v *vaultShelf) left(_, hidden []string) string {
	if len(hidden) == 0 {
		return ""
	}
	return fmt.Sprintf("%s can be undeleted, and nobody sees before whether the old key is there; to be sure: `vault kv destroy -mount=%s -versions=%s %s`",
		ofVersions(hidden), v.options.Mount, strings.Join(hidden, ","), v.options.Path)
}
