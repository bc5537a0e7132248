package crash

import (
	"bytes"
	"context"
	"crypto/tls"
	"database/sql"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
)

// whole says what is wrong with the combined PEM of a pair.
func whole(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("there is no pair to serve: %w", err)
	}
	if _, err := tls.X509KeyPair(text, text); err != nil {
		return fmt.Errorf("what is there to serve is no matching pair: %w", err)
	}
	return nil
}

// wholeOnNodes says where there is no matching pair to serve.
func (r *run) wholeOnNodes() error {
	var errs []error
	for _, n := range r.lab.Nodes {
		if err := whole(n.Path(lab.DefaultPEM)); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", n.Name(), err))
		}
	}
	return errors.Join(errs...)
}

// check holds everything against what must be true when a story has ended.
func (r *run) check(ctx context.Context) error {
	s, err := r.state(ctx)
	if err != nil {
		return err
	}
	errs := []error{r.asWished(ctx, s), r.wholeOnNodes(), r.atCA(s), r.keysOpen(ctx, s), r.quiet(s), r.noTokens(ctx), r.neverSilent()}
	for _, n := range r.lab.Nodes {
		errs = append(errs, tidy(n))
	}
	if r.story.flees {
		errs = append(errs, r.fled(ctx, s))
	}
	r.had = s.versions
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w\n  it stands so: %s%s", err, s, r.logs())
	}
	return nil
}

// logs are the ends of the nodes' logs.
func (r *run) logs() (text string) {
	for _, n := range r.lab.Nodes {
		log, err := os.ReadFile(n.Path("/var/log/webd.log"))
		if err != nil {
			log = []byte(err.Error())
		}
		text += fmt.Sprintf("\n  %s:\n%s", n.Name(), log[max(0, len(log)-1500):])
	}
	return text
}

// asWished: the outcome is the story's, and every node serves what follows from
// it, seen by a handshake of our own.
func (r *run) asWished(ctx context.Context, s state) error {
	var errs []error
	outcome := s.rollouts[0].Outcome
	if got := outcome; got != r.story.outcome && (r.story.or == "" || got != r.story.or) {
		errs = append(errs, fmt.Errorf("it ended as %q, want %q: %s", got, r.story.outcome, s.rollouts[0].Why))
	}
	for _, step := range s.rollouts[0].Steps {
		if len(step.From) != min(1, len(s.versions)-1) {
			errs = append(errs, fmt.Errorf("%s held a version before, and the rollout thought %+v", step.Target, step.From))
		}
	}
	want := s.versions[0]
	switch {
	case outcome == farm.Done:
	case len(r.had) == 0: // a first installation that did not come about
		return errors.Join(errs...)
	default:
		want = r.had[0]
	}
	for _, n := range r.lab.Nodes {
		got, err := lab.Serving(ctx, n.HTTPSAddr(), "shop.test")
		if err == nil && got != want.Leaves[0].Fingerprint {
			err = fmt.Errorf("%s serves %s, want %s", n.Name(), farm.Short(got), farm.Short(want.Leaves[0].Fingerprint))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// atCA: no more than one certificate and one finalized order for each order of
// ours that was meant to be one, and none that we do not have.
func (r *run) atCA(s state) error {
	var errs []error
	stats := r.lab.CA.Stats()
	intents := map[string]int{}
	for _, o := range s.orders {
		if intents[o.Intent]++; intents[o.Intent] > 1 {
			errs = append(errs, fmt.Errorf("intent %s has a second order for one type of key: %s", o.Intent, o.ID))
		}
	}
	done := len(s.orders) - s.failedOrders() - len(r.had) // each version had one order
	const set = "shop.test"
	if got := stats.Finalized[set] - r.stats.Finalized[set]; got > done {
		errs = append(errs, fmt.Errorf("%d orders were finalized for %d that are done", got, done))
	}
	versions := len(s.versions) - len(r.had)
	if got := stats.Certificates[set] - r.stats.Certificates[set]; got != versions || got != done {
		errs = append(errs, fmt.Errorf("the CA issued %d certificates for %d orders that are done; we have %d", got, done, versions))
	}
	if versions != r.wishes {
		errs = append(errs, fmt.Errorf("%d wishes gave %d versions", r.wishes, versions))
	}
	return errors.Join(errs...)
}

// keysOpen: the key of every version that may be gone back to is there, opens and
// belongs to its leaf.
func (r *run) keysOpen(ctx context.Context, s state) error {
	var errs []error
	for i, v := range s.versions {
		if v.State == farm.VersionCompromised {
			continue // see fled
		}
		for _, l := range v.Leaves {
			if i >= 2 && l.Key == (farm.KeyRef{}) {
				continue // nothing goes back to it: it was erased
			}
			var sealed []byte
			err := r.store.View(ctx, func(tx *store.Tx) (err error) {
				sealed, err = tx.Sealed(ctx, v.Farm, "key", l.Key.Sealed)
				return err
			})
			var key farm.Secret
			if err == nil {
				key, err = r.keys.Open(secret.RecordID(v.Farm, "key", l.Key.Sealed), sealed)
			}
			if err == nil {
				_, err = tls.X509KeyPair(l.Chain, key.Reveal())
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("key of version %s: %w", v.ID, err))
			}
		}
	}
	return errors.Join(errs...)
}

// fled: what there was before is revoked, and its key is neither in the store nor on
// a node.
func (r *run) fled(ctx context.Context, s state) error {
	var stored []store.SealedInfo
	errs := []error{r.store.View(ctx, func(tx *store.Tx) (err error) {
		stored, err = tx.SealedNames(ctx, r.lab.Farm, "key")
		return err
	})}
	for _, was := range r.had {
		if !slices.ContainsFunc(s.versions, func(v farm.Version) bool { return v.ID == was.ID && v.State == farm.VersionCompromised }) {
			errs = append(errs, fmt.Errorf("version %s does not count as compromised", was.ID))
		}
		for _, l := range was.Leaves {
			if reason, is := r.lab.CA.Revoked(l.Chain); !is || reason != issue.KeyCompromise {
				errs = append(errs, fmt.Errorf("version %s is revoked: %t, for reason %d", was.ID, is, reason))
			}
			if slices.ContainsFunc(stored, func(i store.SealedInfo) bool { return i.Name == l.Key.Sealed }) {
				errs = append(errs, fmt.Errorf("the key of version %s is still in the store", was.ID))
			}
		}
	}
	for block, rest := pem.Decode(r.oldPair); block != nil; block, rest = pem.Decode(rest) {
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		for _, n := range r.lab.Nodes {
			errs = append(errs, lacks(n.Path("/"), pem.EncodeToMemory(block)))
		}
	}
	return errors.Join(errs...)
}

// lacks says which file below a folder has a text in it.
func lacks(root string, text []byte) error {
	return filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		got, err := os.ReadFile(file)
		if err == nil && bytes.Contains(got, text) {
			err = fmt.Errorf("the old key is still in %s", file)
		}
		return err
	})
}

// quiet: nothing is half done. (That no job is due which nobody does, the story's
// end has waited for.)
func (r *run) quiet(s state) error {
	var errs []error
	for _, o := range s.orders {
		if !o.State.Ended() {
			errs = append(errs, fmt.Errorf("order %s is still %s", o.ID, o.State))
		}
		if i := slices.IndexFunc(o.Authz, func(a farm.Authz) bool { return a.Receipt != nil }); i >= 0 {
			errs = append(errs, fmt.Errorf("order %s: the answer for %s was not taken away", o.ID, o.Authz[i].Name))
		}
	}
	for _, ro := range s.rollouts {
		if ro.Outcome == farm.Running {
			errs = append(errs, fmt.Errorf("rollout %s still runs", ro.ID))
		}
	}
	return errors.Join(errs...)
}

// noTokens: no answer to a CA's question is left in the store.
func (r *run) noTokens(ctx context.Context) error {
	db, err := sql.Open("sqlite", "file:"+r.database+"?_pragma=query_only(1)&_pragma=busy_timeout(10000)")
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	var n int
	if err := db.QueryRowContext(ctx, `SELECT count(*) FROM challenges`).Scan(&n); err != nil {
		return err
	}
	if n > 0 {
		return fmt.Errorf("%d challenge tokens are left in the store", n)
	}
	return nil
}

// neverSilent: no handshake with a node ever failed.
func (r *run) neverSilent() error {
	var errs []error
	for i, m := range r.meters {
		for _, span := range m.Reading().Spans {
			if span.Error != "" && !r.story.silent {
				errs = append(errs, fmt.Errorf("%s: %d handshakes failed from %s to %s: %s", r.lab.Nodes[i].Name(),
					span.Tries, span.From.Format(time.TimeOnly), span.To.Format(time.TimeOnly), span.Error))
			}
		}
	}
	return errors.Join(errs...)
}

// inStore are the names of what a target's folder may hold.
var inStore = regexp.MustCompile(`^[^/]+/(current|previous|[0-9]+-[0-9a-z]+(\.[0-9]+)?(/combined\.pem)?)$`)

// tidy: on the node there is what is live, at most one version before it, and
// nothing else that a dead controller left.
func tidy(n *lab.Node) error {
	var errs []error
	versions := 0
	root := n.Path("/")
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, file)
		name = filepath.ToSlash(name)
		in, isIn := strings.CutPrefix(name, "store/")
		switch {
		case d.IsDir() && strings.Count(name, "/") < 2, name == "etc/tls/site.pem", strings.HasPrefix(name, "var/log/"):
		case !isIn || !inStore.MatchString(in):
			errs = append(errs, fmt.Errorf("%s: %s was left behind", n.Name(), name))
		case d.IsDir():
			versions++
		case strings.HasSuffix(name, ".pem"):
			if err := whole(file); err != nil {
				errs = append(errs, fmt.Errorf("%s: %s: %w", n.Name(), name, err))
			}
		}
		return nil
	})
	if versions > 2 {
		errs = append(errs, fmt.Errorf("%s: the store holds %d versions, want what is live and one before it", n.Name(), versions))
	}
	return errors.Join(append(errs, err)...)
}
