package cloud

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/outbound"
)

// The bounds of an answer, in bytes.
const (
	maxAnswer = 64 << 10
	maxNote   = 4 << 10
)

// caller is the Deployer of what acts by itself and is told by calls: a webhook, a
// command.
type caller struct {
	identity    string
	deliver     bool
	lag         time.Duration
	farm, place string
	epoch       int64       // of the lease of whoever activates, restores or discards; 0: the stage's is told
	secret      farm.Secret // what no error may hold, beside the keys
	send        func(context.Context, call) (reply, error)
}

// A call is the body of a request, or what a command reads.
type call struct {
	Verb    string     `json:"verb"` // inspect, stage, activate, restore or discard
	Farm    string     `json:"farm,omitempty"`
	Place   string     `json:"place,omitempty"` // exec: which of the command's places is meant
	Site    string     `json:"site,omitempty"`
	Version string     `json:"version,omitempty"`
	Epoch   int64      `json:"epoch,omitempty"` // grows; a call with a smaller one than was seen is from a controller that was relieved
	Names   []string   `json:"names,omitempty"`
	Leaves  []callLeaf `json:"leaves,omitempty"`
	Note    string     `json:"note,omitempty"` // what the receiver answered to stage
}

type callLeaf struct {
	Fingerprint string       `json:"fingerprint"` // SHA-256 of the DER, hex
	KeyType     farm.KeyType `json:"key_type,omitempty"`
	Chain       string       `json:"chain,omitempty"` // PEM, leaf first: stage, if deliver
	Key         string       `json:"key,omitempty"`   // PEM, PKCS#8: stage, if deliver
}

// A reply is what a receiver answers with a status of 200, and what a command prints.
type reply struct {
	OK          bool     `json:"ok"`
	Error       string   `json:"error"`       // why not
	Note        string   `json:"note"`        // stage: given back with every later call for it
	NoUndo      bool     `json:"no_undo"`     // stage: restore will not work
	Leaves      []string `json:"leaves"`      // inspect: fingerprints of what is live
	Mismatch    bool     `json:"mismatch"`    // inspect: a key that is not its leaf's
	Placeholder bool     `json:"placeholder"` // inspect: a stand-in
}

// With is deploy.Borrower's: only the farm's name is of use.
func (c *caller) With(r deploy.Records) deploy.Deployer {
	with := *c
	with.farm = r.Farm
	return &with
}

// fingerprint is the SHA-256 of a certificate, in hex.
var fingerprint = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Inspect is deploy.Deployer's.
func (c *caller) Inspect(ctx context.Context) (deploy.Installed, error) {
	r, err := c.call(ctx, call{Verb: "inspect"})
	if err != nil {
		return deploy.Installed{}, err
	}
	for _, leaf := range r.Leaves {
		if !fingerprint.MatchString(leaf) {
			return deploy.Installed{}, fmt.Errorf("inspect %s: it answers %q, which is no fingerprint: the SHA-256 of the certificate in 64 small hex digits", c.identity, outbound.Quote(leaf))
		}
	}
	return deploy.Installed{Leaves: r.Leaves, Mismatch: r.Mismatch, Placeholder: r.Placeholder}, nil
}

// Stage is deploy.Deployer's.
func (c *caller) Stage(ctx context.Context, s deploy.Stage) (deploy.Receipt, error) {
	if len(s.Bundles) == 0 {
		return deploy.Receipt{}, fmt.Errorf("stage %s: there is no certificate", c.identity)
	}
	told := call{Site: s.Site, Epoch: s.Epoch, Names: s.Names, Version: s.Bundles[0].Version}
	sent := told
	var keys []farm.Secret
	for _, b := range s.Bundles {
		leaf, err := c.leaf(b, s.Names)
		if err != nil {
			return deploy.Receipt{}, fmt.Errorf("stage %s: %w", c.identity, err)
		}
		if slices.ContainsFunc(sent.Leaves, func(l callLeaf) bool { return l.KeyType == leaf.KeyType }) {
			return deploy.Receipt{}, fmt.Errorf("stage %s: two leaves of one key type, %s", c.identity, leaf.KeyType)
		}
		told.Leaves = append(told.Leaves, callLeaf{Fingerprint: leaf.Fingerprint, KeyType: leaf.KeyType})
		sent.Leaves = append(sent.Leaves, leaf)
		keys = append(keys, b.Key)
	}
	sent.Verb = "stage"
	r, err := c.call(ctx, sent, keys...)
	if err != nil {
		return deploy.Receipt{}, err
	}
	if len(r.Note) > maxNote || outbound.Hide(r.Note, keys...) != r.Note {
		return deploy.Receipt{}, fmt.Errorf("stage %s: its note is longer than %d bytes, or holds the key", c.identity, maxNote)
	}
	told.Note = r.Note
	note, err := json.Marshal(told)
	return deploy.Receipt{Note: note, NoUndo: r.NoUndo, Lag: c.lag}, err
}

// leaf is what a call says of a bundle, checked.
func (c *caller) leaf(b farm.Bundle, names []string) (callLeaf, error) {
	if err := encode.Check(b, time.Now()); err != nil {
		return callLeaf{}, err
	}
	b.Names = names
	if err := encode.Fits(b); err != nil {
		return callLeaf{}, err
	}
	l := callLeaf{Fingerprint: farm.LeafFingerprint(b.Chain), KeyType: b.KeyType}
	if !c.deliver {
		return l, nil
	}
	chain, err := encode.ChainPEM(b)
	if err != nil {
		return callLeaf{}, err
	}
	key, err := encode.KeyPEM(b)
	if err != nil {
		return callLeaf{}, err
	}
	l.Chain, l.Key = string(chain), string(key.Reveal())
	return l, nil
}

// Activate is deploy.Deployer's.
func (c *caller) Activate(ctx context.Context, rs []deploy.Receipt) error {
	return c.each(ctx, "activate", rs)
}

// Restore is deploy.Deployer's.
func (c *caller) Restore(ctx context.Context, rs []deploy.Receipt) error {
	return c.each(ctx, "restore", rs)
}

// Discard is deploy.Deployer's.
func (c *caller) Discard(ctx context.Context, r deploy.Receipt) error {
	return c.each(ctx, "discard", []deploy.Receipt{r})
}

// each calls for every receipt; one failure does not hold the others.
func (c *caller) each(ctx context.Context, verb string, rs []deploy.Receipt) error {
	var all []error
	for _, r := range rs {
		var told call
		if err := json.Unmarshal(r.Note, &told); err != nil {
			all = append(all, fmt.Errorf("%s %s: reading a receipt: %w", verb, c.identity, err))
			continue
		}
		told.Verb = verb
		if c.epoch > 0 { // in place of the stage's, which may be of long ago
			told.Epoch = c.epoch
		}
		_, err := c.call(ctx, told)
		all = append(all, err)
	}
	return errors.Join(all...)
}

// call makes one call. Secrets are what no error may hold, beside our own.
func (c *caller) call(ctx context.Context, what call, secrets ...farm.Secret) (reply, error) {
	what.Farm, what.Place = c.farm, c.place
	r, err := c.send(ctx, what)
	if err != nil {
		return r, outbound.Clean(fmt.Errorf("%s %s: %w", what.Verb, c.identity, err), append(secrets, c.secret)...)
	}
	return r, nil
}

// hookLine sends the calls of a webhook.
type hookLine struct {
	url    string
	hmac   farm.Secret
	client *http.Client
}

func (c hookLine) send(ctx context.Context, what call) (r reply, err error) {
	body, err := json.Marshal(what)
	if err != nil {
		return r, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return r, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "certfarm")
	outbound.SignRequest(request, c.hmac, body, time.Now())
	answer, err := c.client.Do(request)
	if err != nil {
		return r, unreachable(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	if err != nil {
		return r, unreachable(err)
	}
	return judge(answer, text)
}

// judge reads an answer.
func judge(answer *http.Response, text []byte) (r reply, err error) {
	if len(text) > maxAnswer {
		return r, fmt.Errorf("it answers with more than %d bytes", maxAnswer)
	}
	err = json.Unmarshal(text, &r)
	if answer.StatusCode != http.StatusOK {
		said := outbound.Quote(r.Error)
		if wait := answer.Header.Get("Retry-After"); wait != "" {
			said += " (it asks to wait: " + outbound.Quote(wait) + ")"
		}
		return r, fmt.Errorf("it answers %d %s: %s", answer.StatusCode, http.StatusText(answer.StatusCode), said)
	}
	if err != nil {
		return r, fmt.Errorf("its answer is not the JSON that is expected: %w", err)
	}
	if !r.OK {
		return r, fmt.Errorf("it says no: %s", outbound.Quote(r.Error))
	}
	return r, nil
}
